"""Slices against a naive evaluator that keeps everything in memory."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.stored import Line, StoredTag, merge, moment, stop_merges, store, stored_tag, truncate
from tailrace.explorer import Explorer, Period
from tailrace.explorer.answers import Group, Metric
from tailrace.explorer.language import FUNCTIONS

DAY = 86_400_000_000
START = 1_795_000_000_000_000
V7 = [f"{(START + day * DAY) // 1000:012x}" for day in range(3)]
TRACES = ["t1", "t2", "t'3", *(f"{h[:8]}-{h[8:]}-7abc-8def-0123456789ab" for h in V7)]
NAMES = ["a", "b", "lat", "ver", "it's", "ünï", "duration", "error"]
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
TIMES = {
    "0": 0,
    "1us": 1,
    "5us": 5,
    "0.005ms": 5,
    ".000005": 5,
    "24h": DAY,
    "1440m": DAY,
    "86400s": DAY,
    "2d": 2 * DAY,
}
BARE_WORD = re.compile(r"[\w.\-/:@+]+")


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
        name = quote(self.name) if self.name in ("error", "duration") else word(self.name)
        match self.kind:
            case "comparison":
                return f"{name} {self.operator} {quote(self.value) if self.quoted else self.value}"
            case "~":
                return f"{name}~{quote(self.value)}"
            case "in":
                return f"{name} in ({', '.join(self.values)})"
            case "error":
                return f"error{self.operator}{self.value}"
            case "duration":
                return f"duration{self.operator}{self.value}"
        return f"{self.kind}({word(self.name)})"


@dataclass(frozen=True)
class Joined:
    """Conditions joined by `&&` or `||`, or one negated.

    Args:
        how: `&&`, `||` or `!`.
        parts: What is joined.
        spare: Parentheses stand only where the grammar needs them.
    """

    how: str
    parts: tuple[Any, ...]
    spare: bool = False

    def __str__(self) -> str:
        return written(self, 0)


def written(asked: Any, around: int) -> str:
    """An expression as it is typed inside of one that binds so closely."""
    if isinstance(asked, Asked):
        return str(asked)
    binds = {"||": 1, "&&": 2, "!": 3}[asked.how]
    inner = binds if asked.spare else 4
    parts = [written(part, inner) for part in asked.parts]
    text = f"!{parts[0]}" if asked.how == "!" else f" {asked.how} ".join(parts)
    return f"({text})" if binds < around else text


def slice_of(conditions: list[Any]) -> str:
    """The conjunction, as it is typed."""
    return " && ".join(written(condition, 2) for condition in conditions)


def word(text: str) -> str:
    """A word as it is typed: in quotes where it must be."""
    return text if BARE_WORD.fullmatch(text) else quote(text)


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
    if asked.kind == "~":
        return re.search(asked.value.replace("$", r"\Z"), tag.str, re.DOTALL) is not None
    if asked.kind == "in":
        return any(
            equal(
                Asked("comparison", asked.name, "==", json.loads(v) if v[0] == '"' else v, v[0] == '"'), tag
            )
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
            return bool(naive_errors(set(lines))) == (
                asked.operator + asked.value not in ("==false", "!=true")
            )
        case "duration":
            start, last = span(lines)
            return OPERATIONS[asked.operator](max(last - start, 0), TIMES[asked.value])
        case "text":
            word = lowered(asked.name)
            return any(line.table == "logs" and word in lowered(line.columns["message"]) for line in lines)
        case "event":
            return any(line.columns.get("event_type") == asked.name.upper() for line in lines)
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


names = st.sampled_from(NAMES)
comparisons = [
    st.builds(
        Asked,
        st.just("comparison"),
        st.sampled_from(of),
        st.sampled_from(OPERATORS),
        st.sampled_from(words),
        st.just(quoted),
    )
    for of, words, quoted in (
        (NAMES, STRINGS, True),
        (NAMES, BARE, False),
        (NAMES, VERSIONS, False),
        (["ver"], VERSIONS, False),
        (["lat"], BARE, False),
    )
]
# Every form of the grammar, by the word that tells it.
FORMS: dict[str, st.SearchStrategy[Asked]] = {
    "comparison": st.one_of(comparisons),
    "~": st.builds(Asked, st.just("~"), names, value=st.sampled_from(PATTERNS)),
    "in": st.builds(
        Asked,
        st.just("in"),
        names,
        values=st.lists(
            st.sampled_from([*BARE, *VERSIONS, *map(quote, STRINGS)]), min_size=1, max_size=4
        ).map(tuple),
    ),
    "error": st.sampled_from(
        [
            Asked("error", "", operator, value)
            for operator, value in (
                ("", ""),
                ("", ""),
                ("==", "true"),
                ("==", "false"),
                ("!=", "true"),
                ("!=", "false"),
            )
        ]
    ),
    "duration": st.builds(
        Asked, st.just("duration"), st.just(""), st.sampled_from(OPERATORS), st.sampled_from(list(TIMES))
    ),
    **{
        function: st.builds(Asked, st.just(function), st.sampled_from(arguments))
        for function, arguments in {
            "trace": TRACES,
            "tagname": NAMES,
            "tagtype": ["label", "metric", "error", "none"],
            "taggroup": ["", "g", "h'"],
            "text": TEXTS,
            "event": ["TOOL", "AGENT", "agent", "SYSTEM"],
            "conversation": IDS,
            "session": IDS,
            "user": IDS,
            "feedback": ["thumbs", "it's", "no"],
        }.items()
    },
}
# Comparisons have most cases to tell apart.
conditions = st.one_of(*comparisons, *FORMS.values())
expressions: st.SearchStrategy[Any] = st.recursive(
    conditions,
    lambda parts: st.one_of(
        st.builds(
            Joined,
            st.sampled_from(["&&", "||"]),
            st.lists(parts, min_size=2, max_size=3).map(tuple),
            st.booleans(),
        ),
        st.builds(Joined, st.just("!"), st.tuples(parts), st.booleans()),
    ),
    max_leaves=5,
)


@st.composite
def periods(draw: st.DrawFn) -> Period:
    bounds = sorted(draw(st.lists(st.integers(-1, 5), min_size=2, max_size=2, unique=True)))
    since, until = (START + day * DAY if 0 <= day <= 4 else None for day in bounds)
    return Period(since, until)


projects = st.sampled_from([None, "p", "q'"])
joined = st.lists(expressions, min_size=1, max_size=2)
chosen = st.one_of(st.just([]), st.lists(conditions, min_size=2, max_size=3), joined, joined, joined)
# A slice with its scope: whose traces it has is asked.
memberships = st.tuples(chosen, projects, periods())
every_form = st.tuples(
    *[
        st.tuples(form.map(lambda one: [one]), projects, periods())
        for form in FORMS.values()
        for _ in range(2)
    ]
)
# A slice with its scope, `by` and `metrics`: every figure is asked.
questions = st.tuples(
    st.one_of(chosen, st.lists(conditions, min_size=1, max_size=1)),
    projects,
    periods(),
    st.sampled_from([None, *NAMES]),
    st.lists(st.sampled_from(["lat", *NAMES]), max_size=2),
)


def within(lines: set[Line], project: str | None, period: Period) -> set[Line]:
    return {
        line
        for line in lines
        if (project is None or line.project == project)
        and (period.since is None or line.start >= period.since)
        and (period.until is None or line.start < period.until)
    }


def approximately(metric: Metric) -> list[Any]:
    return [
        pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for value in astuple(metric)
    ]


def astuple(metric: Metric) -> list[Any]:
    return [metric.count, metric.not_finite, metric.mean, metric.p50, metric.p95, metric.p99, metric.std]


def check_members(
    client: Any, keys: dict[str | None, dict[int, Any]], lines: set[Line], asked: tuple[Any, ...]
) -> None:
    """The query behind a slice gives each of its traces once, with a start that some line tells."""
    chosen, project, period = asked
    text = slice_of(chosen)
    statement = Explorer(client).sql(text, project=project, period=period)
    rows = client.query(statement.sql, parameters=statement.parameters).result_rows
    seen = within(lines, project, period)
    found = [keys[project][key] for key, _ in rows]
    assert len(found) == len(set(found)), text
    assert set(found) == naive(seen, chosen), text
    for key, start in rows:
        told = {moment(line.start) for line in seen if (line.project, line.trace_id) == keys[project][key]}
        assert start.replace(tzinfo=UTC) in told, text


def figures_of(row: Group) -> tuple[Any, ...]:
    """What a group says of itself: what it says of others depends on how many are shown."""
    return row.value, row.traces, row.errors, row.metrics


def check(
    explorer: Explorer, lines: set[Line], asked: tuple[list[Any], str | None, Period, str | None, list[str]]
) -> None:
    chosen, project, period, by, metrics = asked
    text = slice_of(chosen)
    seen = within(lines, project, period)
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
        few = len(groups) // 2
        if few:
            first = explorer.slice(text, project=project, period=period, by=by, metrics=metrics, limit=few).by
            assert first is not None
            assert first.values == len(groups)
            # Which of those with as many traces are shown is decided by their texts, and told apart to the last.
            assert [figures_of(row) for row in first.rows] == [
                figures_of(row) for row in report.by.rows[:few]
            ], (text, by)
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


@pytest.fixture(scope="module")
def keys(client: Any) -> dict[str | None, dict[int, Any]]:
    """By project that is asked for, which trace a key stands for, as `tailrace sql --help` says."""
    found: dict[str | None, dict[int, Any]] = {None: {}, "p": {}, "q'": {}}
    sql = "SELECT cityHash64({p:String}, cityHash64({t:String})), cityHash64({t:String})"
    for project in ("p", "q'"):
        for trace_id in TRACES:
            ((open, own),) = client.query(sql, parameters={"p": project, "t": trace_id}).result_rows
            found[None][open] = found[project][own] = (project, trace_id)
    return found


def test_every_form_of_the_grammar_has_a_model() -> None:
    """A function that the language gains must be understood by the naive evaluator too."""
    assert set(FORMS) == {"comparison", "~", "in", "error", "duration", *FUNCTIONS}


def compare_with_model(
    client: Any,
    keys: dict[str | None, dict[int, Any]],
    lines: set[Line],
    forms: Any,
    mixed: Any,
    figures: Any,
) -> None:
    """For lines of which some arrive late and most twice, each in inserts of their own, before and after merges."""
    truncate(client)
    stop_merges(client)
    early = {line for line in lines if line.line_hash % 3}
    store(client, early)
    for asked in mixed[:3]:
        check_members(client, keys, early, asked)
    store(client, lines - early)
    store(client, [line for line in lines if line.line_hash % 4])
    explorer = Explorer(client)
    for merged in (False, True):
        if merged:
            merge(client)
        for asked in (*forms, *mixed):
            check_members(client, keys, lines, asked)
        for asked in figures:
            check(explorer, lines, asked)


data: dict[str, Any] = {
    "lines": st.lists(line(), min_size=15, max_size=40, unique_by=lambda line: line.line_hash).map(set),
    "forms": every_form,
    "mixed": st.lists(memberships, min_size=12, max_size=16),
    "figures": st.lists(questions, min_size=2, max_size=3),
}
differential = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


@pytest.mark.timeout(900)  # a failure is shrunk for minutes; cut short, it would look like a flaky one
@settings(differential, max_examples=4)
@given(**data)
def test_a_slice_is_what_a_naive_evaluator_says(
    client: Any, keys: Any, lines: set[Line], forms: Any, mixed: Any, figures: Any
) -> None:
    """For random lines and slices of every form, alone and joined, the traces and every figure are those of a program
    which loops over distinct lines: with lines that arrived late, and twice, and again after all parts are merged."""
    compare_with_model(client, keys, lines, forms, mixed, figures)


def test_a_version_that_is_logged_later_is_found(client: Any) -> None:
    """An explorer remembers which versions it saw, and still counts the traces of one that it did not."""
    truncate(client)
    explorer = Explorer(client)
    for n, version in enumerate(["1.9.0", "1.10.0", "2.0.0", "1.11.0"]):
        tags = (stored_tag("ver", version), stored_tag("x", "1"))
        store(client, [Line("tag_lines", f"t{n}", START + n, n, tags=tags)])
        for _ in range(2):
            assert explorer.slice("ver>=1.10.0 && x==1", project="p").traces == n


def test_distributed_tables_answer_as_the_tables_behind_them(engine: Any) -> None:
    """Through Distributed tables, over two shards that both hold every line, each question about whole days and parts of days has
    the answer that it has without them: what slices know of partitions holds there too."""
    local, spread = engine(), engine.database(migrated=False)
    for (table,) in local.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    ).result_rows:
        # What `remote` makes is the Distributed engine, over a cluster that needs no configuration.
        spread.command(f"CREATE TABLE {table} AS remote('127.0.0.1,localhost', {local.database}, {table})")
    lines = [
        Line(
            "tag_lines",
            f"t{n}",
            START + n * DAY // 5,
            n,
            tags=(
                stored_tag("a", f"v{n % 3}", type="error" if n % 7 == 0 else "label"),
                stored_tag("lat", n),
            ),
        )
        for n in range(20)
    ]
    store(local, lines)
    here, there = Explorer(local), Explorer(spread)
    answered = 0
    for period in (Period(None, START + DAY // 3), Period(START + DAY // 3, START + 3 * DAY)):
        for text in ("a==v1 && lat>=4", "!error && a in (v0, v2)"):
            asked: dict[str, Any] = {"project": "p", "period": period}
            report = here.slice(text, **asked, by="a", over="hour", metrics=["lat"])
            assert there.slice(text, **asked, by="a", over="hour", metrics=["lat"]) == report
            assert there.traces(text, **asked, limit=9) == here.traces(text, **asked, limit=9)
            answered += report.traces
        assert there.tags(project="p", period=period) == here.tags(project="p", period=period)
    assert answered > 5


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(differential, max_examples=500)
@given(**data)
def test_many_slices_are_what_a_naive_evaluator_says(
    client: Any, keys: Any, lines: set[Line], forms: Any, mixed: Any, figures: Any
) -> None:
    """The same for an hour."""
    compare_with_model(client, keys, lines, forms, mixed, figures)
