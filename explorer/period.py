"""The time range of a question, as `--since` and `--until` say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tailrace.schemas.errors import ConfigError, RecordError
from tailrace.schemas.timestamps import EARLIEST, LATEST, TimestampParser

_RELATIVE = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([smhdw])\s*", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DAY = 86_400_000_000
"""Microseconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Period:
    """Traces that began in `[since, until)`, in microseconds since the epoch; `None` means open.

    A trace's start is what its lines say (`trace_ts`). Where a trace id tells no time and the lines carry none,
    each line counts by its own time, and a line outside of the period is not seen at all.
    """

    since: int | None = None
    until: int | None = None

    @classmethod
    def parse(cls, since: str | None, until: str | None, now: datetime) -> Period:
        """Read both ends.

        Args:
            since: An instant (ISO 8601; UTC where it names no zone; a date alone is its midnight), or a time
                before `now`: `90s`, `30m`, `24h`, `7d`, `2w`.
            until: Likewise; not included.
            now: With a zone.

        Raises:
            ConfigError: One cannot be read, or the period is empty.
        """
        period = cls(_read("--since", since, now), _read("--until", until, now))
        if period.since is not None and period.until is not None and period.since >= period.until:
            raise ConfigError(f"--since {since} is not before --until {until}: no trace can be between them")
        return period


EVER = Period()
"""No bounds."""


def _read(option: str, text: str | None, now: datetime) -> int | None:
    if text is None:
        return None
    if match := _RELATIVE.fullmatch(text):
        before = int(float(match.group(1)) * _SECONDS[match.group(2)] * 1_000_000)
        return min(max(to_micros(now) - before, EARLIEST), LATEST)
    try:
        return TimestampParser().parse(text)
    except RecordError as exc:
        raise ConfigError(
            f"{option} {text!r:.80} is not a time; write 2026-11-20, 2026-11-20T08:00:00Z, or 24h, 7d for that long ago"
        ) from exc


def to_micros(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_datetime(micros: int) -> datetime:
    """The instant, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)
