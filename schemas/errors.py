"""Every exception that Tailrace raises.

TailraceError
├── ConfigError                 a setting is missing, malformed or unsafe; the message names it and the fix
├── RecordError                 a line cannot become a record (never stops anything: the line is a dead letter)
├── SliceError                  a slice string cannot be read; holds the column
├── DataError                   a data object cannot be written, or read back; the text says which part and why
├── NotFound                    a trace or an object that was asked for does not exist
├── DeliveryError               a line was not taken by the server, and its logger was told to raise
├── RetryableError              the other side is away or overloaded; the same call may succeed later
│   ├── KafkaUnavailable
│   └── ClickHouseUnavailable
└── FatalError                  going on would lose, repeat or corrupt data; the process stops and says why
    ├── KafkaRefused            the broker rejects us for good (authentication, authorisation, unknown topic)
    ├── Fenced                  another process took over this shipper id or consumer group member
    ├── ClickHouseRejected      the server understood and refused (syntax, type, permission, missing table)
    │   ├── SchemaMismatch      tables are older or newer than this program
    │   └── RowsRejected        some row of an insert breaks a rule of its table; the others do not
    ├── EngineLocked            another process holds the embedded database
    └── CheckpointError         progress on disk cannot be read or written
"""

from __future__ import annotations

from enum import StrEnum


class TailraceError(Exception):
    """Base of all errors of this distribution; its text is one sentence that says what to do."""


class ConfigError(TailraceError):
    """A setting is missing, malformed, or unsafe in combination with another."""


class Reason(StrEnum):
    """Why a line is a dead letter. The values are stored: never rename one."""

    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    WRONG_SHAPE = "wrong_shape"
    UNKNOWN_DIALECT = "unknown_dialect"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_VERSION = "unknown_version"
    MISSING_FIELD = "missing_field"
    BAD_TIMESTAMP = "bad_timestamp"
    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    REJECTED = "rejected_by_clickhouse"
    FAULT = "fault"
    """Of this program, which ought to have read the line, or to have said what is wrong with it."""


class RecordError(TailraceError):
    """A line that cannot become a record.

    Args:
        reason: The class of fault, stored with the dead letter.
        detail: One sentence for a person; names the field (`$.jcr.timestamp`) or the column where known.
        column: Byte position in the line where the fault was noticed, from 0; `None` when it has none.
    """

    def __init__(self, reason: Reason, detail: str, column: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.column = column


class SliceError(TailraceError):
    """A slice string cannot be read.

    Args:
        message: What is wrong, and a hint.
        text: The slice string as it was typed.
        column: Where, from 0, in characters.
    """

    def __init__(self, message: str, text: str, column: int) -> None:
        super().__init__(message)
        self.text = text
        self.column = column


class DataError(TailraceError):
    """A data object (array, frame, image, …) cannot be encoded, or its stored form is malformed."""


class NotFound(TailraceError):
    """What was asked for does not exist."""


class DeliveryError(TailraceError):
    """A line was not taken by the server. Raised only by a logger that was made with `raise_errors=True`."""


class RetryableError(TailraceError):
    """The other side is away or overloaded; the same call may succeed later."""


class KafkaUnavailable(RetryableError):
    """No broker answers, or none leads the partition."""


class ClickHouseUnavailable(RetryableError):
    """ClickHouse does not answer, answers 5xx, or is out of memory, disk or part slots."""


class FatalError(TailraceError):
    """Going on would lose, repeat or corrupt data: the process stops and says why."""


class KafkaRefused(FatalError):
    """The broker rejects us for good: authentication, authorisation, or a topic that may not exist."""


class Fenced(FatalError):
    """Another process took over under the same identity; this one must not write any more."""


class ClickHouseRejected(FatalError):
    """ClickHouse understood the request and refused it.

    Args:
        message: One sentence.
        code: ClickHouse's error code (`src/Common/ErrorCodes.cpp`), or `None` when it sent none.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class SchemaMismatch(ClickHouseRejected):
    """Tables or columns are missing or of another type: run `tailrace migrate`."""


class RowsRejected(ClickHouseRejected):
    """Some row of an insert cannot be stored (a constraint, a value out of range); the others may be."""


class EngineLocked(FatalError):
    """Another process holds the embedded database directory."""


class CheckpointError(FatalError):
    """Progress on disk cannot be read or written."""
