from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.stored import Line, merge, moment, stop_merges, store, stored_tag
from tailrace.explorer import Explorer, Period
from tailrace.explorer.events import MAX_DEPTH, EventLine, assemble
from tailrace.explorer.period import to_micros
from tailrace.explorer.texts import to_json_value, to_preview, to_text
from tailrace.schemas.errors import ConfigError, NotFound, SchemaMismatch

T = 1_795_000_000_000_000
HEX = f"{T // 1000:012x}"
V7 = f"{HEX[:8]}-{HEX[8:]}-7abc-8def-0123456789ab"
NUMPY = b'{"data":"AAAA","shape":[2,3],"x":[NaN,Infinity,-Infinity,"\xed\xa0\x80","caf\xc3\xa9"]}'


def whole_trace(trace_id: str, project: str = "p") -> list[Line]:
    """Every table has something, in an order that is not that of time."""

    def at(table: str, after: int, hash: int, tags: Any = (), **columns: Any) -> Line:
        return Line(table, trace_id, T + after, hash, project, T, tags, columns)

    def event(after: int, hash: int, id: str, phase: str, **columns: Any) -> Line:
        return at("event_lines", after, hash, event_id=id, phase=phase, **columns)

    return [
        at("logs", 3_000, 1, level="warning", message="third \x1b[2J"),
        at("logs", 1_000, 2, level="info", message="first"),
        at(
            "tag_lines",
            2_000,
            3,
            (stored_tag("n", 9007199254740993), stored_tag("x", math.nan), stored_tag("b", True)),
        ),
        at(
            "tag_lines",
            1_500,
            4,
            (stored_tag("s", "text", "label", "g"), stored_tag("none", None), stored_tag("j", {"a": 1})),
        ),
        at("objects", 2_500, 5, ref="array", type="tailrace.Numpy", data=NUMPY),
        at("objects", 2_600, 6, ref="big", type="", data=json.dumps({"x": "é" * 5000}, ensure_ascii=False)),
        at("traces", 900, 7, name="checkout", user_id="u1", user='{"id":"u1"}', metadata=""),
        at("traces", 950, 8, conversation_id="c1", metadata='{"a":NaN}'),
        event(1_100, 9, "root", "start", event_type="AGENT", name="agent", input='{"q":1}'),
        event(
            5_000, 10, "root", "end", output='"done"', status="ok", usage='{"gen_ai.usage.input_tokens":7}'
        ),
        event(1_300, 11, "tool", "start", event_type="TOOL", parent_id="root"),
        event(1_400, 12, "tool", "end", status="error", error="boom"),
        event(1_200, 13, "llm", "start", event_type="GENERATION", parent_id="root"),
        at("feedback", 90_000_000, 14, feedback_tag="thumb", feedback_text="good", score=1.0),
        at("predictions", 2_000, 15, deployment="d", prediction_id="1", features="[1,2]", prediction="0.5"),
        at(
            "ground_truths", 99_000_000, 16, deployment="d", prediction_id="1", label="1", segments=["a", "b"]
        ),
        at(
            "exceptions",
            4_000,
            17,
            deployment="d",
            message="it broke",
            stack_trace="Traceback",
            extra_info="",
        ),
    ]


@pytest.mark.parametrize("trace_id", [V7, V7.replace("-", ""), "any text, even 'quotes'", "x" * 5000])
def test_everything_of_a_trace_in_order_of_time(database, trace_id: str) -> None:
    """The whole of a trace comes back typed, ordered and nested, alike before and after merges, each line once."""
    client = database()
    stop_merges(client)
    lines = whole_trace(trace_id)
    store(client, lines)
    store(client, lines[::-1])
    store(client, whole_trace("another trace"))
    explorer = Explorer(client)
    report = explorer.trace(trace_id)
    assert (report.project_id, report.trace_id, report.start) == ("p", trace_id, moment(T))
    assert report.duration == 0.005
    assert report.error
    assert [line.message for line in report.texts] == ["first", "third \x1b[2J"]
    assert [(tag.name, tag.value, tag.kind) for tag in report.tags] == [
        ("s", "text", "string"),
        ("none", None, "null"),
        ("j", '{"a": 1}', "json"),
        ("n", 9007199254740993, "number"),
        ("x", "NaN", "number"),
        ("b", True, "bool"),
    ]
    assert report.tags[0].group == "g"
    assert [(item.ref, item.type, item.size) for item in report.objects] == [
        ("array", "tailrace.Numpy", len(NUMPY)),
        ("big", "", 10_009),
    ]
    assert report.objects[1].preview == '{"x": "' + "é" * 124
    assert (report.context.name, report.context.conversation_id, report.context.user) == (
        "checkout",
        "c1",
        {"id": "u1"},
    )
    assert math.isnan(report.context.metadata["a"])
    (root,) = report.events
    assert (root.type, root.input, root.output, root.status) == ("AGENT", {"q": 1}, "done", "ok")
    assert root.duration == pytest.approx(0.0039)
    assert [(child.event_id, child.status, child.error) for child in root.children] == [
        ("llm", "open", ""),
        ("tool", "error", "boom"),
    ]
    assert (report.feedback[0].tag, report.feedback[0].score) == ("thumb", 1.0)
    assert (report.predictions[0].features, report.predictions[0].prediction) == ([1, 2], 0.5)
    assert (report.ground_truths[0].label, report.ground_truths[0].segments) == (1, ("a", "b"))
    assert (report.exceptions[0].message, report.exceptions[0].extra_info) == ("it broke", None)
    assert report.truncated == ()
    (row,) = explorer.traces(f'trace("{trace_id}")')
    assert (row.start, row.duration, row.tags, row.error, row.name) == (
        report.start,
        0.005,
        6,
        True,
        "checkout",
    )
    msgspec.json.encode(report)
    merge(client)
    assert repr(explorer.trace(trace_id)) == repr(report)
    assert explorer.traces(f'trace("{trace_id}")') == (row,)


def test_events_are_those_of_the_view(database) -> None:
    """The events of a trace agree with the view `events`, which dashboards read, in every field they share."""
    client = database()
    store(client, whole_trace(V7))
    rows = client.query(
        "SELECT event_id, event_type, parent_id, name, status, error FROM events ORDER BY event_id"
    ).result_rows
    (root,) = Explorer(client).trace(V7).events
    mine = [(e.event_id, e.type, e.parent_id, e.name, e.status, e.error) for e in (root, *root.children)]
    assert sorted(mine) == rows


def test_an_object_comes_back_byte_for_byte(database) -> None:
    """The payload is what the service logged, NaN, lone surrogates and all; the last one of a name counts."""
    client = database()
    store(client, whole_trace(V7))
    older = Line("objects", V7, T + 10, 99, trace_ts=T, columns={"ref": "array", "type": "old", "data": "1"})
    store(client, [older, older])
    explorer = Explorer(client)
    payload = explorer.object(V7, "array")
    assert (payload.type, payload.data) == ("tailrace.Numpy", NUMPY)
    assert payload.to_json() == b'{"type":"tailrace.Numpy","params":' + NUMPY + b"}"
    values = payload.document()["params"]["x"]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, "\ud800", "café"]
    with pytest.raises(NotFound, match="it has array, big"):
        explorer.object(V7, "nothing")
    with pytest.raises(NotFound):
        explorer.object("nowhere", "array")
    with pytest.raises(NotFound):
        explorer.object(V7, "\ud800")


def test_a_trace_in_two_projects_asks_which(database) -> None:
    """The same id in two projects is two traces; without a project neither is guessed."""
    client = database()
    store(client, [*whole_trace(V7, "one"), *whole_trace(V7, "two")])
    explorer = Explorer(client)
    with pytest.raises(ConfigError, match="one, two"):
        explorer.trace(V7)
    with pytest.raises(ConfigError, match="--project"):
        explorer.object(V7, "big")
    assert explorer.trace(V7, project="two").project_id == "two"
    assert explorer.object(V7, "big", project="one").project_id == "one"
    assert [row.project_id for row in explorer.traces("")] == ["two", "one"]
    assert explorer.slice("s==text").traces == 2
    assert explorer.slice("s==text", project="one").traces == 1


@pytest.mark.parametrize(
    "trace_id", ["nothing", V7, "8a1d2c0e-6f3b-4c1e-9d53-0b7e2f4a6c11", "", "\ud800", "x'y\\"]
)
def test_what_is_not_there_is_not_found(database, trace_id: str) -> None:
    """Any id that no line has ends in NotFound."""
    explorer = Explorer(database())
    with pytest.raises(NotFound):
        explorer.trace(trace_id)
    assert explorer.traces("") == ()
    assert explorer.slice("", by="x", metrics=["y"]).error_rate is None


def test_lines_far_from_the_time_in_the_id_are_found(database) -> None:
    """An id that only looks like a UUIDv7 of another year does not hide its lines."""
    client = database()
    store(client, [Line("logs", V7, T - 900 * 86_400_000_000, 1, columns={"level": "info", "message": "m"})])
    assert Explorer(client).trace(V7).texts[0].message == "m"


def test_feedback_does_not_make_a_trace_longer(database) -> None:
    """Feedback days later leaves the duration alone, also where it lies under its own time because no id tells the start."""
    client = database()
    store(
        client,
        [Line("logs", "t", T + n, n, columns={"level": "info", "message": "m"}) for n in (0, 2_000_000)],
    )
    store(client, [Line("feedback", "t", T + 3 * 86_400_000_000, 9, columns={"feedback_tag": "thumb"})])
    store(client, [Line("feedback", "only", T, 10, columns={"feedback_tag": "thumb"})])
    explorer = Explorer(client)
    assert {row.trace_id: row.duration for row in explorer.traces("")} == {"t": 2.0, "only": 0.0}
    assert explorer.trace("t").duration == 2.0


def test_a_huge_trace_is_cut_and_says_so(database) -> None:
    """A trace of more lines than an answer takes gives the first of them and names the list that is cut."""
    client = database()
    client.command(
        "INSERT INTO logs (project_id, trace_id, trace_ts, ts, line_hash, level, message) "
        "SELECT 'p', 't', toDateTime64(1795000000, 6, 'UTC'), toDateTime64(1795000000 + number, 6, 'UTC'), number, 'info', "
        "toString(number) FROM numbers(10_001)"
    )
    report = Explorer(client).trace("t")
    assert report.truncated == ("texts",)
    assert [report.texts[0].message, report.texts[-1].message, len(report.texts)] == ["0", "9999", 10_000]


def test_times_before_1970_and_far_ahead(database) -> None:
    """Traces of 1902, 1969 and 2250 have their times, are found by range, and in their order."""
    client = database()
    years = {year: to_micros(datetime(year, 6, 1, 12, 30, 0, 5, UTC)) for year in (1902, 1969, 2026, 2250)}
    for year, micros in years.items():
        store(client, [Line("tag_lines", f"t{year}", micros, year, tags=(stored_tag("y", year),))])
    explorer = Explorer(client)
    assert [row.start.year for row in explorer.traces("y>0")] == [2250, 2026, 1969, 1902]
    assert explorer.traces("", limit=1)[0].trace_id == "t2250"
    for year, micros in years.items():
        assert [row.trace_id for row in explorer.traces("", period=Period(micros, micros + 1))] == [
            f"t{year}"
        ]
        assert explorer.trace(f"t{year}").start == moment(micros)


def test_tables_that_are_missing_say_what_to_do(engine) -> None:
    """Reading a database that was never migrated is a SchemaMismatch, not a driver's exception."""
    client = engine.database(migrated=False)
    with pytest.raises(SchemaMismatch, match="tailrace migrate"):
        Explorer(client).slice("a==b")
    engine.drop(client.database)


ids = st.sampled_from(["a", "b", "c", "d", "e"])
event_lines = st.builds(
    EventLine,
    ts=st.integers(0, 20).map(lambda s: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    line_hash=st.integers(0, 2**64 - 1),
    event_id=ids,
    phase=st.sampled_from(["start", "end"]),
    parent_id=st.one_of(ids, st.sampled_from(["", "unknown"])),
    event_type=st.just("TOOL"),
    name=st.just(""),
    input=st.none(),
    output=st.none(),
    status=st.sampled_from(["ok", "error"]),
    error=st.just(""),
    usage=st.none(),
)


def flat(events: Any) -> list[Any]:
    return [inner for event in events for inner in (event, *flat(event.children))]


@given(st.lists(event_lines, max_size=20))
def test_every_event_is_in_the_tree_once(lines: list[EventLine]) -> None:
    """Whatever parents events claim, themselves and circles included, each stands in the forest exactly once, below its
    parent unless that is unknown or would close a circle, and siblings are in order of their start."""
    forest = assemble(lines)
    everything = flat(forest)
    assert sorted(event.event_id for event in everything) == sorted({line.event_id for line in lines})
    for event in everything:
        assert all(child.parent_id == event.event_id for child in event.children)
        begins = [child.started or child.ended for child in event.children]
        assert begins == sorted(begins)
    known = {event.event_id: event for event in everything}
    for event in forest:
        above, seen = event.parent_id, set()
        while above in known and above not in seen:
            seen.add(above)
            above = known[above].parent_id
        assert event.parent_id not in known or event.event_id in seen


def test_a_chain_of_thousands_is_no_deeper_than_the_limit() -> None:
    """Ten thousand events inside each other neither exhaust the stack nor get lost."""
    base = EventLine(
        datetime(2026, 1, 1, tzinfo=UTC), 0, "0", "start", "", "TOOL", "", None, None, "", "", None
    )
    chain = [
        msgspec.structs.replace(
            base, event_id=str(n), parent_id=str(n - 1), ts=base.ts + timedelta(seconds=n)
        )
        for n in range(10_000)
    ]
    forest = assemble(chain)
    assert len(flat(forest)) == 10_000
    depth, level = 0, forest
    while level:
        depth, level = depth + 1, tuple(child for event in level for child in event.children)
    assert depth == MAX_DEPTH
    msgspec.json.encode(forest)


@given(st.binary(max_size=300))
def test_any_bytes_become_text_that_prints(data: bytes) -> None:
    """Stored bytes, UTF-8 or not, cut anywhere or JSON of any depth, give text that can be encoded."""
    to_text(data).encode()
    to_preview(data).encode()
    to_json_value(data)


def test_deep_json_stays_text() -> None:
    """JSON nested deeper than readers can follow is given as its text."""
    for depth in (101, 2_000, 100_000):
        text = b"[" * depth + b"]" * depth
        assert to_json_value(text) == text.decode()
    assert to_json_value(b"[[1]]") == [[1]]


NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", NOW - timedelta(hours=24)),
        ("7d", NOW - timedelta(days=7)),
        ("90s", NOW - timedelta(seconds=90)),
        ("1.5h", NOW - timedelta(minutes=90)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-19", datetime(2026, 11, 19, tzinfo=UTC)),
        ("2026-11-19T08:00:00+01:00", datetime(2026, 11, 19, 7, tzinfo=UTC)),
        ("2026-11-19 08:00", datetime(2026, 11, 19, 8, tzinfo=UTC)),
    ],
)
def test_ends_of_a_period(text: str, expected: datetime) -> None:
    """Instants and times before now are read as documented."""
    assert Period.parse(text, None, NOW).since == to_micros(expected)


@pytest.mark.parametrize(
    ("since", "until"), [("yesterday", None), (None, "7x"), ("1h", "2h"), ("", None), ("2026-13-01", None)]
)
def test_periods_that_cannot_be(since: str | None, until: str | None) -> None:
    """What is no time, or leaves no time between, is a ConfigError that names the option."""
    with pytest.raises(ConfigError, match="--"):
        Period.parse(since, until, NOW)
