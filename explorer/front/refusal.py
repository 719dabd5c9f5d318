"""Errors in the shape that ClickHouse gives them: a code, a name, a text, and an HTTP status."""

from __future__ import annotations

import re

_NAMES = {
    36: "BAD_ARGUMENTS",
    48: "NOT_IMPLEMENTED",
    62: "SYNTAX_ERROR",
    115: "UNKNOWN_SETTING",
    164: "READONLY",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    243: "NOT_ENOUGH_SPACE",
    307: "TOO_MANY_BYTES",
    372: "SESSION_NOT_FOUND",
    373: "SESSION_IS_LOCKED",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
    1000: "POCO_EXCEPTION",
    1001: "STD_EXCEPTION",
}

_STATUS = (
    (
        400,
        {
            6,
            25,
            26,
            27,
            36,
            38,
            41,
            42,
            43,
            53,
            62,
            72,
            117,
            130,
            131,
            167,
            168,
            190,
            223,
            367,
            427,
            441,
            457,
            675,
            676,
        },
    ),
    (401, {194}),
    (403, {192, 193, 497, 516}),
    (404, {46, 47, 50, 56, 60, 63, 73, 81, 115, 336, 372}),
    (408, {159}),
    (413, {307}),
    (501, {48}),
    (503, {202, 209, 210, 439}),
)

_PREFIX = re.compile(r"Code:\s*(\d+)\.\s*DB::Exception:\s*")
_VERSION = re.compile(r"\(version [^)]*(?:\([^)]*\))?[^)]*\)")
_REPEATED = re.compile(r"(?:\.?\s*\([A-Z][A-Z0-9_]+\)(?:\s*\(version [^)]*\))?)+\.?\s*")
"""What wrappings leave behind the version: the name of the error, once more."""


class Refusal(Exception):
    """An answer that is an error. It never leaves the front: it becomes a response.

    Args:
        code: ClickHouse's error code.
        text: What is wrong, without code and name.
        status: The HTTP status; by default the one that ClickHouse sends with that code.
    """

    def __init__(self, code: int, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.status = status if status is not None else status_of(code)

    def body(self, version: str) -> str:
        """The body of the response, in ClickHouse's shape."""
        return f"Code: {self.code}. DB::Exception: {self.text} ({_NAMES.get(self.code, 'ERROR')}) (version {version})\n"


class EngineRefusal(Refusal):
    """What the engine itself said; its text is passed on."""

    def body(self, version: str) -> str:
        """The engine's own text, with the version that it leaves out at times."""
        known = self.text if _VERSION.search(self.text) else f"{self.text} (version {version})"
        return f"Code: {self.code}. DB::Exception: {known}\n"


def status_of(code: int) -> int:
    """The HTTP status that goes with an error code; 500 for those that have none of their own."""
    return next((status for status, codes in _STATUS if code in codes), 500)


def from_engine(exc: BaseException) -> Refusal:
    """What an exception of the engine means, with its wrappings taken off.

    chDB repeats the prefix and the name where it passes an error on (`Code: 164. DB::Exception: Code: 164. …`).
    """
    message = str(exc).strip()
    found = _PREFIX.search(message)
    if found is None:
        return Refusal(1001, message or type(exc).__name__)
    text = message[found.end() :]
    code = int(found.group(1))
    while (again := _PREFIX.match(text)) is not None:
        code = int(again.group(1))
        text = text[again.end() :]
    if (version := _VERSION.search(text)) is not None and _REPEATED.fullmatch(text, version.end()):
        text = text[: version.end()]
    return EngineRefusal(code, text.strip())
