"""What is odd about lines that are records: stored as they are, and perhaps not what somebody meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tailrace.ingestor.columns import NUMBER, tag_value
from tailrace.ingestor.decode import ReadLine
from tailrace.schemas.dialects.tolerant import parse
from tailrace.schemas.errors import RecordError
from tailrace.schemas.records import RECORD_TYPES, Tag, Tags

HUGE_BYTES = 1024 * 1024
"""A longer line is named."""
SKEW = timedelta(minutes=5)
"""How far clocks, and the lines of one file, may be apart."""
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_MANY_VALUES = 500
_MANY_NAMES = 1_000
_REMEMBERED = 10_000
"""So many values of a tag, and so many names, are told apart."""
_NAMED = 5

_KIND_OF = {record: kind for kind, record in RECORD_TYPES.items()}
_FIELDS: dict[str, frozenset[str]] = {
    kind: frozenset(("kind", *record.__struct_encode_fields__)) for kind, record in RECORD_TYPES.items()
}
_TAG_FIELDS = frozenset(Tag.__struct_encode_fields__)
_JCR_FIELDS = frozenset(("timestamp", "trace_id", "ref", "data", "project_id"))
_API_FIELDS = frozenset((*_JCR_FIELDS, "dtype"))


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something odd.

    Args:
        what: Its name: `future_time`, `old_time`, `time_goes_back`, `huge_line`, `not_a_number`, `metric_is_text`,
            `unknown_field`, `many_values` or `many_names`.
        lines: How many lines; of `sampled` ones only those that were looked at closely.
        detail: One sentence.
        first: `path:line` of the first.
        sampled: Whether only the sample was looked at for it.
    """

    what: str
    lines: int
    detail: str
    first: str
    sampled: bool


@dataclass(slots=True)
class _Seen:
    lines: int = 0
    first: str = ""
    example: str = ""

    def add(self, path: str, number: int, example: str = "") -> None:
        if not self.lines:
            self.first, self.example = f"{path}:{number}", example
        self.lines += 1


class TimeLook:
    """Looks at the time of every line.

    Args:
        now: What later times are in the future of; `None` when nobody knows.
    """

    def __init__(self, now: datetime | None) -> None:
        self._latest_allowed = datetime.max.replace(tzinfo=UTC) if now is None else now + SKEW
        self._latest = _LONG_AGO
        self._future, self._old, self._back = _Seen(), _Seen(), _Seen()

    def next_file(self) -> None:
        """Lines of another file need not follow on those of this one."""
        self._latest = _LONG_AGO

    def look(self, path: str, number: int, times: list[datetime], low: datetime, high: datetime) -> None:
        """The times of lines that follow on one another, `number` being that of the first; all are between `low` and `high`."""
        if self.is_ordinary(low, high):
            return
        for line, time in enumerate(times, number):
            if time > self._latest_allowed:
                self._future.add(path, line, time.isoformat())
            elif time < _LONG_AGO:
                self._old.add(path, line, time.isoformat())
            else:
                if time < self._latest - SKEW:
                    self._back.add(path, line, f"{self._latest.isoformat()}, then {time.isoformat()}")
                self._latest = max(self._latest, time)

    def is_ordinary(self, low: datetime, high: datetime) -> bool:
        """Whether nothing can be odd about lines whose times are all between these; where something may be, `look` is to be asked."""
        if (
            low >= _LONG_AGO
            and high <= self._latest_allowed
            and low >= self._latest - SKEW
            and high - low < SKEW
        ):
            self._latest = max(self._latest, high)
            return True
        return False

    def suspicions(self) -> list[Suspicion]:
        """What was odd."""
        minutes = SKEW // timedelta(minutes=1)
        texts = {
            "future_time": (self._future, f"over {minutes} minutes ahead of this machine's clock"),
            "old_time": (self._old, "before 2000: seconds and milliseconds may be confused"),
            "time_goes_back": (
                self._back,
                f"over {minutes} minutes before a line above: a clock was set, or files mixed",
            ),
        }
        return [
            Suspicion(what, seen.lines, f"{text}, for example {seen.example}", seen.first, False)
            for what, (seen, text) in texts.items()
            if seen.lines
        ]


@dataclass(slots=True)
class _Values:
    tags: int = 0
    distinct: set[str] = field(default_factory=set)
    first: str = ""


class CloseLook:
    """Looks at whole records, which takes some microseconds each."""

    def __init__(self) -> None:
        self.lines = 0
        """So many were looked at."""
        self._huge, self._nan, self._text = _Seen(), _Seen(), _Seen()
        self._unknown: dict[str, _Seen] = {}
        self._names: dict[str, _Values] = {}
        self._decoder = msgspec.json.Decoder()

    def look_at_length(self, path: str, number: int, length: int) -> None:
        """Notes a huge line; for every line that may be one."""
        if length > HUGE_BYTES:
            self._huge.add(path, number, f"{length:,} bytes")

    def look(self, path: str, number: int, line: ReadLine) -> None:
        """One valid line."""
        self.lines += 1
        if isinstance(line.record, Tags):
            self.look_at_tags(path, number, line.record.tags)
        for name in self._unknown_fields(line):
            self._unknown.setdefault(name, _Seen()).add(path, number)

    def look_at_tags(self, path: str, number: int, tags: list[Tag]) -> None:
        """The tags of a valid line whose fields are all known, which is counted by the caller."""
        for tag in tags:
            kind, text, value = tag_value(tag.value, tag.type)
            if kind == NUMBER:
                if value - value != 0:
                    self._nan.add(path, number, f"{tag.name}={text}")
            elif tag.type == "metric":
                self._text.add(path, number, f"{tag.name}={text:.40}")
            values = self._names.get(tag.name)
            if values is None:
                if len(self._names) >= _REMEMBERED:
                    continue
                values = self._names[tag.name] = _Values(first=f"{path}:{number}")
            if kind != NUMBER and len(values.distinct) < _REMEMBERED:
                values.tags += 1
                values.distinct.add(text)

    def _unknown_fields(self, line: ReadLine) -> list[str]:
        try:
            document = self._decoder.decode(line.content)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            try:
                document = parse(line.content)
            except RecordError:
                return []  # valid in a part that the decoder keeps as it is, and beyond what Python reads
        if line.dialect == "raymon-file":
            jcr = document["jcr"]
            found = [*_beyond(document, frozenset(("type", "jcr"))), *_beyond(jcr, _JCR_FIELDS, "jcr.")]
            tags = jcr.get("data")
        elif line.dialect == "raymon-api":
            found, tags = _beyond(document, _API_FIELDS), document.get("data")
        else:
            kind = _KIND_OF[type(line.record)]
            found, tags = _beyond(document, _FIELDS[kind], f"{kind}."), document.get("tags")
        if isinstance(line.record, Tags) and isinstance(tags, list):
            unknown = {name for tag in tags for name in tag if name not in _TAG_FIELDS}
            found += [f"tag.{name}" for name in sorted(unknown)]
        return found

    def suspicions(self) -> list[Suspicion]:
        """What was odd."""
        found = []
        for what, seen, text, sampled in (
            ("huge_line", self._huge, f"longer than {HUGE_BYTES >> 20} MiB", False),
            ("not_a_number", self._nan, "NaN or infinite: no average or percentile counts it", True),
            (
                "metric_is_text",
                self._text,
                "a metric that reads as no number: nothing can be computed of it",
                True,
            ),
        ):
            if seen.lines:
                detail = f"{text}, for example {seen.example}"
                found.append(Suspicion(what, seen.lines, detail, seen.first, sampled))
        unknown = sorted(self._unknown.items(), key=lambda item: -item[1].lines)
        for name, seen in unknown[:_NAMED]:
            text = f"the field {name!r:.80} is not known, and is not stored"
            found.append(Suspicion("unknown_field", seen.lines, text, seen.first, True))
        if len(unknown) > _NAMED:
            rest = unknown[_NAMED:]
            text = f"{len(rest):,} more fields that are not known"
            found.append(
                Suspicion("unknown_field", sum(x.lines for _, x in rest), text, rest[0][1].first, True)
            )
        for name, values in self._names.items():
            count = len(values.distinct)
            if count > _MANY_VALUES and 2 * count > values.tags:
                text = f"the tag {name!r:.80} has {count:,} values in {values.tags:,} tags: nobody can slice by it"
                found.append(Suspicion("many_values", values.tags, text, values.first, True))
        if len(self._names) > _MANY_NAMES:
            text = f"{len(self._names):,} names of tags: what varies belongs into values"
            first = next(iter(self._names.values())).first
            found.append(Suspicion("many_names", self.lines, text, first, True))
        return found


def _beyond(document: Any, known: frozenset[str], prefix: str = "") -> list[str]:
    return [prefix + name for name in document if name not in known]
