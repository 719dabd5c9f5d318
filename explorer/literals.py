"""What a value in a slice string is: text, a number, or a version."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

VERSION_PARTS = 8
"""A version has at most this many numbers; shorter ones are filled with zeros, so that 1.10 is 1.10.0."""

VERSION_PATTERN = (
    r"^[vV]?([0-9]{1,18}(?:\.[0-9]{1,18}){0,7})"
    r"(?:[-_.]?([A-Za-z][0-9A-Za-z.~_-]*)|[-_]([0-9][0-9A-Za-z.~_-]*))?"
    r"(?:\+[0-9A-Za-z.~_-]*)?$"
)
"""A version, for Python's `re.fullmatch` and ClickHouse's RE2 alike: its numbers, and a suffix in one of two groups."""

EXACT_INTEGERS = 2**53
"""Up to here a 64-bit float holds every integer."""

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_VERSION = re.compile(VERSION_PATTERN)
_TIME = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(us|ms|s|m|h|d)?", re.ASCII)
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


@dataclass(frozen=True, slots=True)
class Text:
    """A word that is nothing else, or anything in quotes."""

    text: str


@dataclass(frozen=True, slots=True)
class Number:
    """A word that reads as a number, with what was typed.

    Args:
        text: As typed: what tags that are strings are compared with.
        number: What numbers are compared with.
        exact: False for an integer that a 64-bit float cannot hold; equality then goes by the text.
    """

    text: str
    number: float
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Version:
    """A word such as 1.10.0, v2 or 1.4.0-rc2: a leading v, or more than one dot.

    Args:
        text: As typed.
        parts: Its numbers, filled with zeros to `VERSION_PARTS`.
        suffix: What follows them without the sign between; '' for a release. Build metadata (`+cu118`) is dropped.
    """

    text: str
    parts: tuple[int, ...]
    suffix: str

    @property
    def key(self) -> tuple[tuple[int, ...], bool, str]:
        """What versions are compared by: one without a suffix is above the same one with any."""
        return self.parts, self.suffix == "", self.suffix


Literal = Text | Number | Version


def read_literal(word: str) -> Literal:
    """What an unquoted word is.

    Raises:
        OverflowError: A number beyond the range of a 64-bit float.
    """
    if _NUMBER.fullmatch(word):
        number = float(word)
        if math.isinf(number):
            raise OverflowError(word)
        # By its digits: 2**53 + 1 as a float is 2**53.
        exact = _INTEGER.fullmatch(word) is None or int(word.lstrip("+-0") or "0") <= EXACT_INTEGERS
        return Number(word, number, exact)
    version = read_version(word)
    if version is not None and (word[0] in "vV" or _core(word).count(".") > 1):
        return version
    return Text(word)


def read_version(text: str) -> Version | None:
    """The version that a text is, also one with fewer dots than a literal needs (`2`, `1.10`); `None` if it is none."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    numbers = [int(part) for part in match.group(1).split(".")]
    return Version(
        text,
        tuple(numbers + [0] * (VERSION_PARTS - len(numbers))),
        (match.group(2) or "") + (match.group(3) or ""),
    )


def read_micros(word: str) -> int | None:
    """Microseconds that a duration says: seconds, or with a unit (`150ms`, `2s`, `5m`); `None` if it is none."""
    match = _TIME.fullmatch(word)
    if match is None:
        return None
    micros = float(match.group(1)) * _UNITS[match.group(2) or "s"]
    return round(micros) if micros < EXACT_INTEGERS else None


def _core(word: str) -> str:
    match = _VERSION.fullmatch(word)
    return match.group(1) if match else ""
