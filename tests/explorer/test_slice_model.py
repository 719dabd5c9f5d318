"""Slices against a naive evaluator that keeps everything in memory."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.stored import Line, StoredTag, merge, stop_merges, store, stored_tag, truncate
from tailrace.explorer import Explorer, Period
from tailrace.explorer.answers import Metric

DAY = 86_400_000_000
START = 1_795_000_000_000_000
V7 = [f"{(START + day * DAY) // 1000:012x}" for day in range(3)]
TRACES = ["t1", "t2", "t'3", *(f"{h[:8]}-{h[8:]}-7abc-8def-0123456789ab" for h in V7)]
NAMES = ["a", "b", "lat", "ver", "it's", "ünï"]
STRINGS = [
    "",
    "x",
    "X",
    "120",
    "1.5",
    "true",
    "null",
    "NaN",
    'it\'s \\ "q"',
    "1.9.0",
    "1.10.0",
    "v1.10",
    "1.10",
    "2",
    "1.10.0-rc1",
    "1.10.0rc2",
    "1.10.0+cu118",
    "1.2.3.4.5.6.7.8.9",
    "v99999999999999999999.1",
    "2026-11-20",
    "1.9.0\n",
    "日本",
]
NUMBERS = [
    0,
    1,
    -1,
    120,
    1.5,
    2,
    1e300,
    -0.0,
    9007199254740993,
    9007199254740992,
    math.nan,
    math.inf,
    -math.inf,
]
OPERATORS = ["==", "!=", ">", ">=", "<", "<="]
BARE = [
    "0",
    "1",
    "-1",
    "120",
    "1.5",
    "1.50",
    "2",
    "1e2",
    "9007199254740993",
    "true",
    "null",
    "NaN",
    "x",
    "2026-11-19",
]
VERSIONS = ["1.9.0", "1.10.0", "v1.10", "v2", "1.10.0-rc1", "1.10.0-rc2", "1.2.3.4.5.6.7.8", "v0", "1.10.0+x"]


@dataclass(frozen=True)
class Asked:
    """A condition as a test knows it: what is typed, and its parts."""

    kind: str
    name: str
    operator: str = ""
    value: str = ""
    quoted: bool = True

    def __str__(self) -> str:
        if self.kind != "compare":
            return f"{self.kind}({json.dumps(self.name, ensure_ascii=False)})"
        value = json.dumps(self.value, ensure_ascii=False) if self.quoted else self.value
        return f"{json.dumps(self.name, ensure_ascii=False)} {self.operator} {value}"


def tags_of(lines: set[Line], key: tuple[str, str]) -> list[StoredTag]:
    return [
        tag
        for line in lines
        if line.table == "tag_lines" and (line.project, line.trace_id) == key
        for tag in line.tags
    ]


def matches(asked: Asked, tag: StoredTag) -> bool:
    """The rules of the language, one tag at a time, written without looking at how the product does it."""
    if asked.kind == "tagname":
        return tag.name == asked.name
    if asked.kind == "tagtype":
        return tag.type == asked.name
    if asked.kind == "taggroup":
        return tag.group == asked.name
    if tag.name != asked.name:
        return False
    if asked.operator == "!=":
        return not equal(asked, tag)
    if asked.operator == "==":
        return equal(asked, tag)
    number = None if asked.quoted else as_number(asked.value)
    if number is not None:
        return tag.kind in ("number", "bool") and ordered(asked.operator, tag.num, number)
    if tag.kind != "string":
        return False
    if not asked.quoted and (asked.value[0] == "v" or asked.value.count(".") > 1):
        mine, theirs = as_version(tag.str), as_version(asked.value)
        return mine is not None and ordered(asked.operator, mine, theirs)
    return ordered(asked.operator, tag.str.encode(), asked.value.encode())


def equal(asked: Asked, tag: StoredTag) -> bool:
    number = None if asked.quoted else as_number(asked.value)
    if number is None or tag.kind not in ("number", "bool") or abs(Fraction(asked.value)) > 2**53:
        return tag.str == asked.value
    return tag.num == number


def as_number(text: str) -> float | None:
    if text in ("NaN", "true", "null"):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def as_version(text: str) -> Any:
    """(numbers without zeros at the end, is a release, suffix), or None."""
    rest = text.removeprefix("v").partition("+")[0]
    numbers = []
    while rest[:1].isdigit() and rest.isascii():
        digits = len(rest) - len(rest.lstrip("0123456789"))
        numbers.append(int(rest[:digits]))
        rest = rest[digits:]
        if digits > 18:
            return None
        if rest[:1] == "." and rest[1:2].isdigit():
            rest = rest[1:]
            continue
        break
    if not numbers or len(numbers) > 8 or "\n" in rest:
        return None
    while numbers and numbers[-1] == 0:
        numbers.pop()
    suffix = rest.lstrip("-_.")
    return (numbers, suffix == "", suffix)


def ordered(operator: str, left: Any, right: Any) -> bool:
    return {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right}[operator]


def naive(lines: set[Line], conditions: list[Asked]) -> set[tuple[str, str]]:
    keys = {(line.project, line.trace_id) for line in lines if line.trace_id}
    return {
        key
        for key in keys
        if all(
            key[1] == asked.name
            if asked.kind == "trace"
            else any(matches(asked, tag) for tag in tags_of(lines, key))
            for asked in conditions
        )
    }


def naive_errors(lines: set[Line]) -> set[tuple[str, str]]:
    return {
        (line.project, line.trace_id)
        for line in lines
        if line.table == "exceptions"
        or (line.table == "event_lines" and line.columns["status"] == "error")
        or any(tag.type == "error" for tag in line.tags)
    }


def naive_metric(lines: set[Line], keys: set[tuple[str, str]], name: str) -> Metric:
    values = [
        tag.num
        for line in lines
        if (line.project, line.trace_id) in keys
        # The same tag twice in one line is one tag; NaN is no reason to tell two apart.
        for tag in {(t.name, t.kind, t.str, t.type, t.group): t for t in line.tags}.values()
        if tag.name == name and tag.kind in ("number", "bool")
    ]
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return Metric(0, len(values))

    def quantile(level: float) -> float:
        at = level * (len(finite) - 1)
        low = math.floor(at)
        high = min(low + 1, len(finite) - 1)
        return finite[low] + (at - low) * (finite[high] - finite[low])

    return Metric(
        len(finite),
        len(values) - len(finite),
        math.fsum(finite) / len(finite),
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
    )


values = st.one_of(st.sampled_from(STRINGS), st.sampled_from(NUMBERS), st.booleans(), st.none(), st.just([1]))
types, groups = st.sampled_from(["label", "metric", "error"]), st.sampled_from(["", "g", "h'"])
# Half of the tags and conditions keep to what a name is usually used for, so that they meet.
tags = st.one_of(
    st.builds(stored_tag, st.sampled_from(NAMES), values, types, groups),
    st.builds(
        stored_tag, st.just("ver"), st.sampled_from([*VERSIONS, "latest", "", "1.9.0\n"]), types, groups
    ),
    st.builds(stored_tag, st.just("lat"), st.sampled_from(NUMBERS), types, groups),
)


@st.composite
def line(draw: st.DrawFn) -> Line:
    table = draw(
        st.sampled_from(["tag_lines"] * 6 + ["logs", "exceptions", "event_lines", "feedback", "feedback"])
    )
    trace_id = draw(st.sampled_from(TRACES))
    ts = START + draw(st.integers(0, 3)) * DAY + draw(st.integers(0, 10))
    began = int(trace_id.replace("-", "")[:12], 16) * 1000 if "-7abc-" in trace_id else None
    columns: dict[str, Any] = {}
    if table == "event_lines":
        columns = {"event_id": "e", "phase": "end", "status": draw(st.sampled_from(["ok", "error"]))}
    return Line(
        table=table,
        trace_id=trace_id,
        ts=ts,
        line_hash=draw(st.integers(0, 2**64 - 1)),
        project=draw(st.sampled_from(["p", "q'"])),
        trace_ts=began,
        tags=tuple(draw(st.lists(tags, min_size=1, max_size=4))) if table == "tag_lines" else (),
        columns=columns,
    )


conditions = st.one_of(
    *[
        st.builds(
            Asked,
            st.just("compare"),
            st.sampled_from(names),
            st.sampled_from(OPERATORS),
            st.sampled_from(words),
            st.just(quoted),
        )
        for names, words, quoted in (
            (NAMES, STRINGS, True),
            (NAMES, BARE, False),
            (NAMES, VERSIONS, False),
            (["ver"], VERSIONS, False),
            (["lat"], BARE, False),
        )
    ],
    st.builds(Asked, st.just("tagname"), st.sampled_from(NAMES)),
    st.builds(Asked, st.just("tagtype"), st.sampled_from(["label", "metric", "error", "none"])),
    st.builds(Asked, st.just("taggroup"), st.sampled_from(["", "g", "h'"])),
    st.builds(Asked, st.just("trace"), st.sampled_from(TRACES)),
)


@st.composite
def question(draw: st.DrawFn) -> tuple[list[Asked], str | None, Period, str | None, list[str]]:
    chosen = draw(
        st.one_of(st.just([]), st.lists(conditions, min_size=1, max_size=1), st.lists(conditions, max_size=3))
    )
    bounds = sorted(draw(st.lists(st.integers(-1, 5), min_size=2, max_size=2, unique=True)))
    since, until = (START + day * DAY if 0 <= day <= 4 else None for day in bounds)
    return (
        chosen,
        draw(st.sampled_from([None, "p", "q'"])),
        Period(since, until),
        draw(st.sampled_from([None, *NAMES])),
        draw(st.lists(st.sampled_from(["lat", *NAMES]), max_size=2)),
    )


def approximately(metric: Metric) -> list[Any]:
    return [
        pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for value in astuple(metric)
    ]


def astuple(metric: Metric) -> list[Any]:
    return [metric.count, metric.not_finite, metric.mean, metric.p50, metric.p95, metric.p99]


def check(
    explorer: Explorer, lines: set[Line], asked: tuple[list[Asked], str | None, Period, str | None, list[str]]
) -> None:
    chosen, project, period, by, metrics = asked
    text = " && ".join(map(str, chosen))
    seen = {
        line
        for line in lines
        if (project is None or line.project == project)
        and (period.since is None or line.start >= period.since)
        and (period.until is None or line.start < period.until)
    }
    keys, failed = naive(seen, chosen), naive_errors(seen)
    report = explorer.slice(text, project=project, period=period, by=by, metrics=metrics, limit=100)
    assert (report.traces, report.errors) == (len(keys), len(keys & failed)), text
    for name in metrics:
        assert astuple(report.metrics[name]) == approximately(naive_metric(seen, keys, name)), (text, name)
    if by is not None:
        assert report.by is not None
        groups: dict[str | None, set[tuple[str, str]]] = {}
        for key in keys:
            for value in {tag.str for tag in tags_of(seen, key) if tag.name == by} or {None}:
                groups.setdefault(value, set()).add(key)
        assert report.by.values == len(groups)
        assert {row.value: (row.traces, row.errors) for row in report.by.rows} == {
            value: (len(members), len(members & failed)) for value, members in groups.items()
        }, (text, by)
        assert [row.traces for row in report.by.rows] == sorted(
            (len(g) for g in groups.values()), reverse=True
        )
        for row in report.by.rows:
            for name in metrics:
                expected = naive_metric(seen, groups[row.value], name)
                assert astuple(row.metrics[name]) == approximately(expected), (text, by, row.value, name)
    rows = explorer.traces(text, project=project, period=period, limit=100)
    assert {(row.project_id, row.trace_id) for row in rows} == keys, text
    for row in rows:
        key = (row.project_id, row.trace_id)
        mine = [line for line in seen if (line.project, line.trace_id) == key]
        start = min(line.start for line in mine)
        last = max([line.ts for line in mine if line.table != "feedback"], default=start)
        assert row.start.timestamp() == pytest.approx(start / 1e6)
        assert row.duration == pytest.approx(max(last - start, 0) / 1e6)
        assert row.tags == len(tags_of(seen, key))
        assert row.error == (key in failed)


@pytest.fixture(scope="module")
def client(engine: Any) -> Any:
    return engine()


@pytest.mark.timeout(900)  # a failure is shrunk for minutes; cut short, it would look like a flaky one
@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(
    lines=st.lists(line(), min_size=10, max_size=40, unique_by=lambda line: line.line_hash).map(set),
    questions=st.lists(question(), min_size=6, max_size=8),
)
def test_a_slice_is_what_a_naive_evaluator_says(client: Any, lines: set[Line], questions: Any) -> None:
    """For random lines and slices every figure is that of a program which loops over distinct lines: with lines that
    arrived twice in other inserts, and again after all parts are merged."""
    truncate(client)
    stop_merges(client)
    store(client, lines)
    store(client, [line for line in lines if line.line_hash % 4])
    explorer = Explorer(client)
    for asked in questions:
        check(explorer, lines, asked)
    merge(client)
    for asked in questions:
        check(explorer, lines, asked)
