"""The fields of one line: each redacted, encoded, and kept within the size limit of the logger's policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tailrace.jsonable import encode, encode_text
from tailrace.logger import Logger
from tailrace.oversized import fitted, fitted_text
from tailrace.policy import Redact, redacted
from tailrace.wire import encode_id, encode_name


class Fields:
    """Collects the fields of a line. A value of None is left out.

    Args:
        logger: Counts what is over its size limit.
        redact: Its policy's hook.
    """

    __slots__ = ("_logger", "_parts", "_redact", "altered")

    def __init__(self, logger: Logger, redact: Redact | None) -> None:
        self._logger = logger
        self._redact = redact
        self._parts: list[bytes] = []
        self.altered = ""
        """What could not be written faithfully; empty for nothing."""

    def plain(self, key: bytes, value: str) -> None:
        """A text of ours that JSON needs no escapes for."""
        self._parts.append(b'"%b":"%b"' % (key, value.encode()))

    def name(self, key: bytes, value: Any) -> None:
        """A name or an id of ours: never redacted, never empty, bounded."""
        encoded, altered = encode_name(value)
        self._add(key, encoded, altered)

    def text(self, key: bytes, value: Any, what: str) -> None:
        """A text."""
        if value is not None:
            encoded, altered = encode_text(self._redacted(what, value))
            self._add(key, fitted_text(self._logger, key, encoded), altered)

    def json(self, key: bytes, value: Any, what: str, *, tokens: bool = True) -> None:
        """Anything. What is over the size limit is kept out of the line, as an object is.

        Args:
            key: The field.
            value: The value.
            what: What the redact hook is told.
            tokens: As for `jsonable.encode`.
        """
        if value is None:
            return
        value = self._redacted(what, value)
        encoded, altered = encode_text(value) if type(value) is str else encode(value, tokens=tokens)
        self._add(key, fitted(self._logger, key, encoded), altered)

    def user(self, value: Any) -> None:
        """Who: an id, or a mapping with the key `id`."""
        value = self._redacted("user", value)
        if isinstance(value, Mapping):
            user = dict(value)
            identity = b""
            if user.get("id") is not None:
                identity, altered = encode_id(user["id"])
                user["id"] = orjson.Fragment(identity)
                self._note(altered, b"user")
            encoded, altered = encode(user, tokens=False)
            kept = fitted(self._logger, b"user", encoded)
            if kept is not encoded and identity:
                kept = b'{"id":%b,%b' % (identity, kept[1:])
            self._add(b"user", kept, altered)
        elif value is not None:
            self._add(b"user", *encode_id(value))

    def number(self, key: bytes, value: Any) -> None:
        """A finite number; what is none is left out, as altered."""
        if value is None:
            return
        try:
            number = float(value)
            if number - number == 0:
                self._parts.append(b'"%b":%b' % (key, repr(number).encode()))
                return
        except Exception:  # noqa: S110 - a class may raise anything when it is asked for a number
            pass
        self.altered = f"`{key.decode()}`, which is not a number"

    def joined(self) -> bytes:
        """The fields as they stand in a line."""
        return b",".join(self._parts)

    def _redacted(self, what: str, value: Any) -> Any:
        if self._redact is None:
            return value
        value, problem = redacted(self._redact, what, value)
        self.altered = problem or self.altered
        return value

    def _add(self, key: bytes, encoded: bytes, altered: bool) -> None:
        self._parts.append(b'"%b":%b' % (key, encoded))
        self._note(altered, key)

    def _note(self, altered: bool, key: bytes) -> None:
        if altered:
            self.altered = self.altered or f"`{key.decode()}` has no faithful JSON form"


def plain_mapping(value: Any) -> dict[str, Any]:
    """A mapping, or the fields of an object such as an SDK returns (pydantic, dataclass), as a dict.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, Mapping):
        return dict(value)
    for method in ("model_dump", "to_dict"):
        if callable(getattr(value, method, None)):
            return dict(getattr(value, method)())
    if hasattr(value, "__dict__"):
        return {name: item for name, item in vars(value).items() if not name.startswith("_")}
    raise TypeError(f"{type(value).__name__} is not a mapping")
