"""What counts as a time, and when a trace began.

Times are integers: microseconds since 1970-01-01T00:00:00Z, negative before it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from tailrace.schemas.errors import Reason, RecordError

MICROSECONDS = 1_000_000
EARLIEST = -2_208_988_800 * MICROSECONDS
"""1900-01-01: the first instant of ClickHouse's DateTime64."""
LATEST = 10_413_792_000 * MICROSECONDS - 1
"""The last microsecond of 2299, the last instant of ClickHouse's DateTime64."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FULL = re.compile(
    r"\s*(\d{4}-\d\d-\d\d)(?:[Tt _](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s*(?:(Z|z|UTC|GMT)|([+-])(\d\d):?(\d\d)?)?\s*",
    re.ASCII,
)
_NUMBER = re.compile(r"\s*-?\d+(\.\d+)?([eE][+-]?\d+)?\s*", re.ASCII)
_ZERO_ZONES = frozenset({"Z", "+00:00", "", "z", "+0000", "+00", "-00:00"})
_CACHED_SECONDS = 4096
_UUID7 = re.compile(
    r"[0-9a-f]{8}-?[0-9a-f]{4}-?7[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}", re.ASCII | re.IGNORECASE
)

#: A UUIDv7 says when its trace began; it is believed only if that is no later than this after the line itself
#: (clock skew between services) and no earlier than `_OLDEST_TRACE` before it (a foreign id that looks like one).
_SKEW = 24 * 3600 * MICROSECONDS
_OLDEST_TRACE = 400 * 24 * 3600 * MICROSECONDS


class TimestampParser:
    """Reads timestamps; remembers the seconds that it has seen, since neighbouring lines share them.

    Not safe for use by several threads at once: give each decoder its own.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, int] = {}

    def parse(self, value: str | int | float) -> int:
        """Microseconds since the epoch.

        Args:
            value: RFC 3339 text, also with a space for the T, a missing zone (UTC), a date alone, or a comma
                before the fraction, of which digits past the sixth are cut; or a number (or its text) of
                seconds, milli-, micro- or nanoseconds, taken by size: below 1e11 seconds (until the year
                5138), below 1e14 milliseconds, below 1e17 microseconds.

        Raises:
            RecordError: It is none of these, or before 1900 or after 2299.
        """
        if not isinstance(value, str):
            return _from_number(value)
        text = value
        seconds = self._seconds.get(text[:19])
        # The two shapes that our client and Python's str(datetime) write, cut apart at fixed columns.
        if (
            seconds is not None
            and text[19:20] == "."
            and text[26:] in _ZERO_ZONES
            and len(fraction := text[20:26]) == 6
            and fraction.isdecimal()
        ):
            return seconds + int(fraction)
        return self._parse_slowly(text)

    def _parse_slowly(self, text: str) -> int:
        match = _FULL.fullmatch(text)
        if match is None:
            if _NUMBER.fullmatch(text):
                return _from_number(float(text))
            raise _bad(text)
        date, hour, minute, second, fraction, _zulu, sign, zone_hours, zone_minutes = match.groups()
        try:
            base = datetime.fromisoformat(date).replace(tzinfo=UTC)
            leap = second == "60"
            base = base.replace(
                hour=int(hour or 0), minute=int(minute or 0), second=59 if leap else int(second or 0)
            )
        except ValueError as exc:
            raise _bad(text) from exc
        micros = (base - _EPOCH) // timedelta(seconds=1) * MICROSECONDS + (MICROSECONDS if leap else 0)
        if text[19:20] == "." and text[26:] in _ZERO_ZONES and not leap and EARLIEST <= micros <= LATEST:
            if len(self._seconds) >= _CACHED_SECONDS:
                self._seconds.clear()
            self._seconds[text[:19]] = micros
        if fraction:
            micros += int(fraction[:6].ljust(6, "0"))
        if sign:
            offset = int(zone_hours) * 60 + int(zone_minutes or 0)
            if offset >= 24 * 60:
                raise _bad(text)
            micros -= offset * 60 * MICROSECONDS * (-1 if sign == "-" else 1)
        return _checked(micros, text)


def _from_number(value: float) -> int:
    if not math.isfinite(value):
        raise _bad(value)
    size = abs(value)
    if size < 1e11:
        micros = value * MICROSECONDS
    elif size < 1e14:
        micros = value * 1000
    elif size < 1e17:
        micros = value
    else:
        micros = value // 1000 if isinstance(value, int) else value / 1000
    return _checked(round(micros), value)


def _checked(micros: int, given: object) -> int:
    if EARLIEST <= micros <= LATEST:
        return micros
    raise RecordError(Reason.BAD_TIMESTAMP, f"timestamp {given!r:.80} is outside 1900 to 2299")


def _bad(given: object) -> RecordError:
    return RecordError(
        Reason.BAD_TIMESTAMP,
        f"{given!r:.80} is not a timestamp; write for example 2026-11-20T08:00:00.000001Z",
    )


def iso_text(moment: datetime) -> str:
    """ISO 8601 of an aware datetime, with as many digits as it has, and `Z` for UTC."""
    return moment.isoformat().replace("+00:00", "Z")


def to_text(micros: int) -> str:
    """RFC 3339 in UTC with six digits, as tailrace v1 writes it."""
    moment = _EPOCH + timedelta(microseconds=micros)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment.year >= 1000 else moment.isoformat()


def trace_start(trace_id: str, ts: int) -> int | None:
    """When a trace began, as its id says, or `None` when the id says nothing credible.

    Args:
        trace_id: A UUIDv7, with or without hyphens, holds the milliseconds of its making in the first 48 bits
            (RFC 9562, section 5.7).
        ts: The time of a line of the trace, to tell a UUIDv7 from an id that only looks like one.
    """
    length = len(trace_id)
    if length == 36:
        if trace_id[14] != "7":
            return None
    elif length != 32 or trace_id[12] != "7":
        return None
    if _UUID7.fullmatch(trace_id) is None:
        return None
    started = int(trace_id.replace("-", "")[:12], 16) * 1000
    return started if ts - _OLDEST_TRACE <= started <= ts + _SKEW else None
