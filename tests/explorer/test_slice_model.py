"""Slices against a naive evaluator that keeps everything in memory."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
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


PATTERNS = ["1", "^1", "[0-9]+$", "^$", "x|X", "(?i)TRUE", r"\.", "日", "^.{2,3}$", "'", r"0\n"]
TEXTS = ["timeout", "TimeOut", "50%", "日本", "it's", "_"]
MESSAGES = ["", "Timeout reading 50% of it's data", "TIMEOUT", "500 日本", "time out", "a_b", "axb"]
IDS = ["c1", "c'2", ""]


@dataclass(frozen=True)
class Asked:
    """A condition as a test knows it: what is typed, and its parts."""

    kind: str
    name: str
    operator: str = ""
    value: str = ""
    quoted: bool = True
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = quote(self.name)
        match self.kind:
            case "compare":
                return f"{name} {self.operator} {quote(self.value) if self.quoted else self.value}"
            case "match":
                return f"{name} ~ {quote(self.value)}"
            case "in":
                return f"{name} in ({', '.join(self.values)})"
            case "error":
                return "error"
            case "duration":
                return f"duration {self.operator} {self.value}us"
        return f"{self.kind}({name})"


@dataclass(frozen=True)
class Joined:
    """Conditions joined by `&&` or `||`, or one negated, in as many parentheses as it takes."""

    how: str
    parts: tuple[Any, ...]

    def __str__(self) -> str:
        if self.how == "!":
            return f"!({self.parts[0]})"
        return "(" + f" {self.how} ".join(map(str, self.parts)) + ")"


def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


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
    if asked.kind == "match":
        return re.search(asked.value.replace("$", r"\Z"), tag.str, re.DOTALL) is not None
    if asked.kind == "in":
        return any(
            equal(Asked("compare", asked.name, "==", json.loads(v) if v[0] == '"' else v, v[0] == '"'), tag)
            for v in asked.values
        )
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


OPERATIONS: dict[str, Any] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
}


def ordered(operator: str, left: Any, right: Any) -> bool:
    return bool(OPERATIONS[operator](left, right))


def naive(lines: set[Line], conditions: list[Any]) -> set[tuple[str, str]]:
    by_key: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.trace_id:
            by_key.setdefault((line.project, line.trace_id), []).append(line)
    return {key for key, mine in by_key.items() if all(holds(asked, mine) for asked in conditions)}


def holds(asked: Any, lines: list[Line]) -> bool:
    """Whether a trace with these lines satisfies an expression."""
    if isinstance(asked, Joined):
        each = (holds(part, lines) for part in asked.parts)
        return not next(each) if asked.how == "!" else all(each) if asked.how == "&&" else any(each)
    column = {"conversation": "conversation_id", "session": "session_id", "user": "user_id"}.get(asked.kind)
    match asked.kind:
        case "trace":
            return lines[0].trace_id == asked.name
        case "error":
            return bool(naive_errors(set(lines)))
        case "duration":
            start, last = span(lines)
            return OPERATIONS[asked.operator](max(last - start, 0), int(asked.value))
        case "text":
            word = lowered(asked.name)
            return any(line.table == "logs" and word in lowered(line.columns["message"]) for line in lines)
        case "event":
            return any(line.columns.get("event_type") == asked.name for line in lines)
        case "feedback":
            return any(line.columns.get("feedback_tag") == asked.name for line in lines)
        case "conversation" | "session" | "user":
            return any(line.table == "traces" and line.columns[column] == asked.name for line in lines)
    return any(matches(asked, tag) for line in lines if line.table == "tag_lines" for tag in line.tags)


def lowered(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def span(lines: list[Line]) -> tuple[int, int]:
    """When a trace began, and its last line but feedback."""
    start = min(line.start for line in lines)
    return start, max([line.ts for line in lines if line.table != "feedback"], default=start)


def naive_errors(lines: set[Line]) -> set[tuple[str, str]]:
    return {
        (line.project, line.trace_id)
        for line in lines
        if line.table == "exceptions"
        or (line.table == "event_lines" and line.columns.get("status") == "error")
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
        None if len(finite) < 2 else deviation(finite),
    )


def deviation(values: list[float]) -> float | None:
    """Of the sample; none where a square leaves the range of a float."""
    mean = math.fsum(values) / len(values)
    try:
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    except OverflowError:
        return None


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
        st.sampled_from(
            ["tag_lines"] * 7 + ["logs", "logs", "exceptions", "event_lines", "feedback", "traces"]
        )
    )
    trace_id = draw(st.sampled_from(TRACES))
    ts = START + draw(st.integers(0, 3)) * DAY + draw(st.integers(0, 10))
    began = int(trace_id.replace("-", "")[:12], 16) * 1000 if "-7abc-" in trace_id else None
    columns: dict[str, Any] = {}
    if table == "event_lines" and draw(st.booleans()):
        columns = {"event_id": "e", "phase": "end", "status": draw(st.sampled_from(["ok", "error"]))}
    elif table == "event_lines":
        columns = {"event_id": "e", "phase": "start", "event_type": draw(st.sampled_from(["TOOL", "AGENT"]))}
    elif table == "logs":
        columns = {"message": draw(st.sampled_from(MESSAGES))}
    elif table == "feedback":
        columns = {"feedback_tag": draw(st.sampled_from(["thumbs", "it's"]))}
    elif table == "traces":
        columns = {n: draw(st.sampled_from(IDS)) for n in ("conversation_id", "session_id", "user_id")}
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
    st.builds(
        Asked,
        st.just("match"),
        st.sampled_from(NAMES),
        value=st.sampled_from(PATTERNS),
    ),
    st.builds(
        Asked,
        st.just("in"),
        st.sampled_from(NAMES),
        values=st.lists(
            st.sampled_from([*BARE, *VERSIONS, *map(quote, STRINGS)]), min_size=1, max_size=4
        ).map(tuple),
    ),
    st.just(Asked("error", "")),
    st.builds(
        Asked,
        st.just("duration"),
        st.just(""),
        st.sampled_from(OPERATORS),
        st.sampled_from(["0", "1", "5", str(DAY), str(2 * DAY)]),
    ),
    st.builds(Asked, st.just("text"), st.sampled_from(TEXTS)),
    st.builds(Asked, st.just("event"), st.sampled_from(["TOOL", "AGENT", "SYSTEM"])),
    st.builds(Asked, st.sampled_from(["conversation", "session", "user"]), st.sampled_from(IDS)),
    st.builds(Asked, st.just("feedback"), st.sampled_from(["thumbs", "it's", "no"])),
)
expressions: st.SearchStrategy[Any] = st.recursive(
    conditions,
    lambda parts: st.one_of(
        st.builds(Joined, st.sampled_from(["&&", "||"]), st.lists(parts, min_size=2, max_size=3).map(tuple)),
        st.builds(Joined, st.just("!"), st.tuples(parts)),
    ),
    max_leaves=5,
)


@st.composite
def question(draw: st.DrawFn) -> tuple[list[Any], str | None, Period, str | None, list[str]]:
    chosen = draw(
        st.one_of(
            st.just([]),
            st.lists(conditions, min_size=1, max_size=1),
            st.lists(conditions, max_size=3),
            st.lists(expressions, min_size=1, max_size=3),
        )
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
    return [metric.count, metric.not_finite, metric.mean, metric.p50, metric.p95, metric.p99, metric.std]


def check(
    explorer: Explorer, lines: set[Line], asked: tuple[list[Any], str | None, Period, str | None, list[str]]
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
    report = explorer.slice(
        text, project=project, period=period, by=by, metrics=metrics, over="day", limit=100
    )
    assert (report.traces, report.errors) == (len(keys), len(keys & failed)), text
    for name in metrics:
        assert astuple(report.metrics[name]) == approximately(naive_metric(seen, keys, name)), (text, name)
    check_series(report, seen, keys, failed, text)
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
            others = keys - groups[row.value]
            rest = len(others & failed) / len(others) if others else None
            difference = row.error_difference.difference
            assert difference == (None if rest is None else pytest.approx(row.error_rate - rest)), (text, by)
            for name in metrics:
                expected = naive_metric(seen, groups[row.value], name)
                assert astuple(row.metrics[name]) == approximately(expected), (text, by, row.value, name)
    rows = explorer.traces(text, project=project, period=period, limit=100)
    assert {(row.project_id, row.trace_id) for row in rows} == keys, text
    for row in rows:
        key = (row.project_id, row.trace_id)
        mine = [line for line in seen if (line.project, line.trace_id) == key]
        start, last = span(mine)
        assert row.start.timestamp() == pytest.approx(start / 1e6)
        assert row.duration == pytest.approx(max(last - start, 0) / 1e6)
        assert row.tags == len(tags_of(seen, key))
        assert row.error == (key in failed)


def check_series(report: Any, seen: set[Line], keys: set[Any], failed: set[Any], text: str) -> None:
    """Every trace counts once; in the day of its start, where every line of it tells the same."""
    rows = report.over.rows
    assert sum(row.traces for row in rows) == len(keys), text
    assert sum(row.errors for row in rows) == len(keys & failed), text
    assert all(later.start - row.start == timedelta(days=1) for row, later in pairwise(rows))
    if all("-7abc-" in trace_id for _, trace_id in keys):
        counted: dict[int, int] = {}
        for key in keys:
            start, _ = span([line for line in seen if (line.project, line.trace_id) == key])
            counted[start // DAY] = counted.get(start // DAY, 0) + 1
        shown = {int(row.start.timestamp()) * 1_000_000 // DAY: row.traces for row in rows if row.traces}
        assert shown == counted, text


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
