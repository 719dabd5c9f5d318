"""The lines that writers write, and what must become of them.

A line is a function of its writer and its number, so nobody has to keep what was written: how many lines each writer
wrote says everything. Each line carries `#writer:number#`. This module decodes nothing: it knows the rows because it
made the lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import orjson

PROJECT = "crash"
LINES_A_TRACE = 8
_MARK = re.compile(rb"#(\d+):(\d+)#")
_DAY = 86_400_000_000
_START = 20_412 * _DAY  # 2025-11-20
_DAYS = 3
"""Neighbouring lines are days apart, so that every insert makes several parts."""


class Row(NamedTuple):
    """A row as text: its table, and its columns joined by `|`, as `stores.CONTENT` makes them of what is stored."""

    table: str
    content: str


class Line(NamedTuple):
    """One line.

    Args:
        data: Without its newline.
        rows: What it must become; nothing for a line that is garbage.
    """

    data: bytes
    rows: tuple[Row, ...]

    @property
    def is_garbage(self) -> bool:
        """Whether it must be a dead letter."""
        return not self.rows


def trace_of(writer: int, number: int) -> str:
    """The trace of a line."""
    return f"t{writer}-{number // LINES_A_TRACE}"


def line(writer: int, number: int) -> Line:
    """A line of one of several kinds, in the raymon dialect or in ours."""
    mark, kind = f"#{writer}:{number}#", number % 10
    if number % 53 == 17:
        return Line(f"Traceback (most recent call last) {mark}".encode(), ())
    if kind < 4:
        return _text(writer, number, f"{mark} {'x' * (number * 7 % 160)}")
    if kind < 8:
        return _tags(writer, number, mark)
    return _object(writer, number, mark) if kind == 8 else _feedback(writer, number, mark)


def origin(data: bytes) -> tuple[int, int] | None:
    """Writer and number of a line; `None` for what no writer wrote."""
    found = _MARK.search(data)
    return (int(found[1]), int(found[2])) if found else None


def lines(counts: Mapping[int, int]) -> Iterator[Line]:
    """Everything that was written, by how many lines each writer wrote."""
    for writer, count in counts.items():
        for number in range(count):
            yield line(writer, number)


def micros(number: int) -> int:
    """The time of a line."""
    return _START + number % _DAYS * _DAY + number * 1000 + 1


def _stamp(number: int, separator: str) -> str:
    since = micros(number) - _START
    return (
        f"2025-11-{20 + since // _DAY}{separator}{_clock(since % _DAY // 1_000_000)}.{since % 1_000_000:06}"
    )


@lru_cache(16)
def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _ours(kind: str, writer: int, number: int, **fields: object) -> bytes:
    head = {"v": 1, "kind": kind, "ts": f"{_stamp(number, 'T')}Z", "project_id": PROJECT}
    return orjson.dumps({**head, "trace_id": trace_of(writer, number), **fields})


def _raymon(kind: str, writer: int, number: int, data: str) -> bytes:
    """As `json.dumps` writes it, with spaces; it takes longer than everything else here, and there may be millions."""
    return (
        f'{{"type": "{kind}", "jcr": {{"timestamp": "{_stamp(number, " ")}+00:00", "trace_id": "{trace_of(writer, number)}", '
        f'"ref": null, "data": {data}, "project_id": "{PROJECT}"}}}}'
    ).encode()


def _row(table: str, writer: int, number: int, *columns: object) -> Row:
    return Row(table, "|".join(map(str, (trace_of(writer, number), micros(number), *columns))))


def _text(writer: int, number: int, message: str) -> Line:
    if number % 2:
        data = _raymon("info", writer, number, f'"{message}"')
    else:
        data = _ours("text", writer, number, message=message)
    return Line(data, (_row("logs", writer, number, "info", message),))


def _tags(writer: int, number: int, mark: str) -> Line:
    latency = number % 997 + 0.5
    client = f"client-{number % 7}"
    if number % 2:
        tags = (
            f'[{{"type": "label", "name": "mark", "value": "{mark}", "group": null}}, '
            f'{{"type": "label", "name": "client", "value": "{client}", "group": "who"}}, '
            f'{{"type": "metric", "name": "latency_ms", "value": {latency}, "group": null}}]'
        )
        data = _raymon("tags", writer, number, tags)
    else:
        found = [
            {"type": "label", "name": "mark", "value": mark, "group": None},
            {"type": "label", "name": "client", "value": client, "group": "who"},
            {"type": "metric", "name": "latency_ms", "value": latency, "group": None},
        ]
        data = _ours("tags", writer, number, tags=found)
    values = [
        ("mark", "string", mark, "nan", "label", ""),
        ("client", "string", client, "nan", "label", "who"),
        ("latency_ms", "number", str(latency), str(latency), "metric", ""),
    ]
    columns = (",".join(column) for column in zip(*values, strict=True))
    rows = [_row("tag_lines", writer, number, *columns)]
    rows += [Row("tags", "|".join((str(micros(number)), *value))) for value in values]
    return Line(data, tuple(rows))


def _object(writer: int, number: int, mark: str) -> Line:
    ref = f"ref-{number}"
    params = {"mark": mark, "data": [number] * (number % 40)}
    data = _ours("object", writer, number, ref=ref, type="crash.Thing", data=params)
    return Line(data, (_row("objects", writer, number, ref, "crash.Thing", orjson.dumps(params).decode()),))


def _feedback(writer: int, number: int, mark: str) -> Line:
    score = number % 5 + 0.25
    data = _ours("feedback", writer, number, feedback_tag="stars", feedback_text=mark, score=score)
    return Line(data, (_row("feedback", writer, number, "stars", mark, score),))
