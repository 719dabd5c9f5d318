"""The data objects of both raymon dialects: `{"type": "raymon.types.Numpy", "params": {…}}`."""

from __future__ import annotations

import json

import msgspec
from msgspec import Raw, Struct

from tailrace.schemas.dialects.tolerant import to_raw


class _Payload(Struct, forbid_unknown_fields=True):
    type: str
    params: Raw


class PayloadDecoder:
    """Tells a wrapped object from plain JSON."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Payload)

    def split(self, data: Raw) -> tuple[str, Raw]:
        """The wrapper's name and its parameters; an empty name and all of the data when it is plain JSON."""
        try:
            payload = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._split_tolerantly(data)
        return payload.type, payload.params

    def _split_tolerantly(self, data: Raw) -> tuple[str, Raw]:
        """Raymon writes NaN and Infinity as bare tokens, which the typed decoder refuses and Python's reads."""
        text = bytes(data)
        if b"NaN" in text or b"Infinity" in text:
            try:
                document = json.loads(text)
            except (ValueError, RecursionError):
                # JSON all the same: the word stands in some text, and an integer has more digits than Python reads.
                return "", data
            if (
                isinstance(document, dict)
                and document.keys() == {"type", "params"}
                and isinstance(document["type"], str)
            ):
                return document["type"], to_raw(document["params"])
        return "", data
