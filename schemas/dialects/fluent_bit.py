"""The envelope of Fluent Bit's Kafka output with `format json`, and of others that do alike.

    {"@timestamp": 1763712000.123, "log": "<the line>", "file": "/var/log/app.log"}

Filebeat and Vector call the field `message`. The line inside is what is decoded, hashed and kept, so that a
line is the same line whichever way it came.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct


class _Envelope(Struct):
    log: str | None = None
    message: str | None = None


class FluentBit:
    """Takes a line out of its envelope."""

    name = "fluent-bit"

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Envelope)

    def unwrap(self, line: bytes) -> bytes | None:
        """The line inside, or `None` when this is no envelope.

        Raises:
            msgspec.MsgspecError: Not JSON, or the field is no text.
        """
        envelope = self._decoder.decode(line)
        inner = envelope.log if envelope.log is not None else envelope.message
        return None if inner is None else inner.rstrip("\r\n").encode("utf-8", "surrogatepass")
