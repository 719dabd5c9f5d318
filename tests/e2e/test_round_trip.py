"""Whatever a service logs comes back from the explorer as it was, or altered as `tailrace.jsonable` documents.

Hypothesis makes many traces; all of them go through one file and one run of the embedded pipeline, and are then looked
at from several sides.
"""

from __future__ import annotations

import json
import math
import re
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.embedded import up_once
from support.engine import Engine
from support.json_model import NON_FINITE, kept, kept_text, same
from tailrace import FileLogger, LoggerStats, Session, Tag, Trace, load
from tailrace.cli.render import print_json
from tailrace.explorer import Explorer, TraceReport
from tailrace.ingestor.insert import InsertStats
from tailrace.oversized import resolved
from tailrace.schemas.stand_in import MARK
from tailrace.sessions import Target

LIMIT = 4096
"""Of objects in the line, so that some are larger."""

TEXTS = st.one_of(
    st.text(st.characters(codec=None)),  # every code point, lone surrogates included
    st.text('\0\r\n\t"\\/{}[],:$ \u2028\u2029\ufeff\x7f\x85\U0001f600\ud800\udfff', max_size=20),
    st.sampled_from(
        ["", " ", "NaN", "Infinity", "null", "true", "0", "-0", "1e5", "0x10", "1_000", "{}", "\\ud800"]
    ),
    st.builds(lambda text, times: text * times, st.text(max_size=5), st.integers(1000, 20_000)),
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**64) - 5, 2**64 + 5),
    st.builds(lambda sign, bits, more: sign * (2**bits + more), st.sampled_from([1, -1]), st.integers(50, 5000), st.integers(-2, 2)),
    st.floats(),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 1e16, 123456789012345680.0, 0.1]),
)  # fmt: skip
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = TEXTS | st.none() | st.booleans() | st.integers()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=8,
) | st.builds(lambda leaf, depth: nested(leaf, depth), LEAVES, st.integers(1, 150))
DICTS = st.dictionaries(TEXTS, VALUES, min_size=1, max_size=2)
SHORT = st.text(st.characters(codec=None), min_size=1, max_size=40)
NAMES = SHORT | st.sampled_from(["x" * 1024, "é" * 1024, "\U0001f600" * 1024])
LEVELS = st.sampled_from(["debug", "info", "warning", "error", "critical"])
KINDS = st.sampled_from(["message", "tool", "agent", "retrieval", "system", "event"])


def nested(leaf: Any, depth: int) -> Any:
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"k": leaf}
    return leaf


@dataclass
class PlannedEvent:
    """An event and those in it."""

    kind: str
    name: str | None
    input: Any
    attributes: dict[str, Any] | None
    output: Any
    status: str
    fails: str | None
    children: list[PlannedEvent] = field(default_factory=list)

    def run(self, place: Any) -> None:
        event = getattr(place, self.kind)(self.input, name=self.name, attributes=self.attributes)
        for child in self.children:
            child.run(event)
        if self.fails is not None:
            event.fail(self.fails, output=self.output)
        else:
            event.end(self.output, status=self.status)


@dataclass
class Plan:
    """One trace: what is logged in it, by every API."""

    texts: list[tuple[str, str]]
    tags: list[Tag]
    objects: dict[str, Any]
    context: dict[str, Any] | None
    events: list[PlannedEvent]
    feedback: list[tuple[str, str | None, float | None]]
    predictions: list[tuple[dict[str, Any], Any, str]]
    truths: list[tuple[Any, Any, list[str], str | None]]
    exceptions: list[tuple[str, Any]]
    trace_id: str = ""

    def log(self, logger: FileLogger, session: Session) -> None:
        trace = Trace(logger=logger)
        self.trace_id = trace.trace_id
        trace.info("begin")
        for level, text in self.texts:
            getattr(trace, level)(text)
        trace.tag(self.tags)
        for ref, data in self.objects.items():
            trace.log(ref, data)
        if self.context is not None:
            trace.context(**self.context)
        for event in self.events:
            event.run(trace)
        for tag, text, score in self.feedback:
            trace.feedback(tag, text, score=score)
        with trace:
            for features, prediction, prediction_id in self.predictions:
                session.log_prediction(features, prediction, prediction_id)
            for label, prediction, segments, known_id in self.truths:
                session.log_ground_truth(label, prediction, segments, known_id)
            for message, extra in self.exceptions:
                session.log_exception(message, extra_info=extra)


TAGS = st.builds(
    Tag,
    NAMES,
    LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(KEYS, LEAVES, max_size=3),
    st.sampled_from(["label", "metric", "metric", "error", "profile-x"]) | SHORT,
    st.none() | SHORT,
)
LEAF_EVENTS = st.builds(
    PlannedEvent,
    KINDS,
    st.none() | TEXTS,
    VALUES,
    st.none() | DICTS,
    VALUES,
    st.sampled_from(["ok", "error"]) | SHORT,
    st.none() | TEXTS,
)
EVENTS = LEAF_EVENTS | st.builds(
    lambda outer, inner: PlannedEvent(**{**vars(outer), "children": inner}),
    LEAF_EVENTS,
    st.lists(LEAF_EVENTS, max_size=2),
)
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXTS,
        "conversation_id": TEXTS,
        "session_id": TEXTS,
        "user": TEXTS | st.builds(lambda id, more: {"id": id, **more}, TEXTS | st.integers(), st.dictionaries(st.sampled_from("abc"), VALUES, max_size=2)),
        "metadata": VALUES,
    },
)  # fmt: skip
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLANS = st.builds(
    Plan,
    st.lists(st.tuples(LEVELS, TEXTS), max_size=12),
    st.lists(TAGS, max_size=16),
    st.dictionaries(NAMES, VALUES, max_size=8),
    st.none() | CONTEXTS,
    st.lists(EVENTS, max_size=3),
    st.lists(st.tuples(NAMES, st.none() | TEXTS, st.none() | FINITE), max_size=3),
    st.lists(st.tuples(DICTS, VALUES, NAMES), max_size=3),
    st.lists(st.tuples(VALUES, VALUES, st.lists(TEXTS, max_size=2), st.none() | SHORT), max_size=3),
    st.lists(st.tuples(TEXTS, st.none() | DICTS), max_size=3),
)
EXAMPLES = 50
"""Traces. To read one back takes ten times as long as to store it, so each holds a lot."""


def planned(count: int) -> list[Plan]:
    """Plans that hypothesis makes; there is nothing to shrink, since they are run together."""
    made: list[Plan] = []

    @settings(
        max_examples=count,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(PLANS)
    def collect(plan: Plan) -> None:
        made.append(plan)

    collect()
    return made


@dataclass
class Stored:
    """The plans after their way through the pipeline."""

    plans: list[Plan]
    reports: dict[str, TraceReport]
    explorer: Explorer
    logged: LoggerStats
    ingested: InsertStats


@pytest.fixture(scope="module")
def stored(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    log = tmp_path_factory.mktemp("round-trip") / "trace.log"
    logger = FileLogger(log, "p", max_object_bytes=LIMIT)
    session = Session("deployed", Target(logger))
    plans = planned(EXAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for plan in plans:
            plan.log(logger, session)
    client = engine.database()
    ingested = up_once(client, log)
    explorer = Explorer(client)
    reports = {plan.trace_id: explorer.trace(plan.trace_id) for plan in plans}
    return Stored(plans, reports, explorer, logger.stats(), ingested)


def as_kept(value: Any, logged: Any, *, tokens: bool = True) -> None:
    """A JSON value of the report is what was logged; spilled, or as text when it nests too deep for an answer."""
    value, expected = resolved(value), kept(logged, tokens=tokens)
    if isinstance(value, str) and isinstance(expected, list | dict):
        value = json.loads(value)
    assert same(value, expected)


def whole(text: str) -> str:
    """A text of the report; one that was cut is read from the file that it names."""
    cut = re.search(r"… \[[\d,]+ bytes; all of it: [^:]*:(\S+)\]$", text)
    if cut is None:
        return text
    assert len(text.encode()) <= LIMIT + 300
    found: str = json.loads(Path(cut[1]).read_bytes())
    assert found.startswith(text[: cut.start()])
    return found


def paired(
    found: Iterable[Any], logged: Iterable[Any], key: Callable[[Any], Any], name: Callable[[Any], Any]
) -> Any:
    """Each of the one with its own of the other, told apart by a name; several of a name in the order of a sort."""
    one, other = sorted(found, key=key), sorted(logged, key=name)
    assert [key(item) for item in one] == [name(item) for item in other]
    return zip(one, other, strict=True)


def test_every_line_is_stored(stored: Stored) -> None:
    """Property: nothing that any API takes is dropped, refused, or becomes a dead letter."""
    assert (stored.ingested.rows, stored.ingested.dead_letters) == (stored.logged.lines, 0)
    assert (stored.logged.dropped, stored.logged.invalid_tags) == (0, 0)
    assert stored.logged.oversized > 0
    assert stored.logged.lines > 5 * len(stored.plans)


def test_texts_come_back(stored: Stored) -> None:
    """Property: every level and text, whatever characters it has and however long it is."""
    for plan in stored.plans:
        logged = [("info", "begin"), *((level, kept_text(text)) for level, text in plan.texts)]
        found = [(line.level, whole(line.message)) for line in stored.reports[plan.trace_id].texts]
        assert sorted(found) == sorted(logged)


def test_tags_come_back(stored: Stored) -> None:
    """Property: in their order, with type, group and text; a metric's text that reads as a number is that number."""
    for plan in stored.plans:
        for back, tag in zip(stored.reports[plan.trace_id].tags, plan.tags, strict=True):
            name, type_, group, text, value = expected_tag(tag)
            assert (back.name, whole(back.type), whole(back.group)) == (name, type_, group)
            assert whole(back.text) == text
            if back.text != text:
                assert whole(back.value) == text
            elif type_ == "metric" and isinstance(value, str) and reads_as_number(value):
                assert back.kind == "number"
                assert back.value == (value if value in NON_FINITE.values() else float(value))
            else:
                assert same(back.value, value)


def expected_tag(tag: Tag) -> tuple[Any, ...]:
    """Name, type, group, text, and value as `TagValue` has them."""
    value, type_ = tag.value, tag.type
    if isinstance(value, float) and not math.isfinite(value):
        value, type_ = NON_FINITE[repr(value)], "metric" if type_ == "label" else type_
    value = kept(value, tokens=False)
    if isinstance(value, list | dict):
        text = value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    elif isinstance(value, str):
        text = value
    else:
        text = repr(value) if isinstance(value, float) else json.dumps(value)
    return kept_text(tag.name), kept_text(type_), kept_text(tag.group or ""), text, value


def reads_as_number(text: str) -> bool:
    """Whether a metric that came as text is stored as a number."""
    if text in NON_FINITE.values():
        return True
    try:
        return math.isfinite(float(text)) and text.isascii() and "_" not in text and not text[-1].isspace()
    except ValueError:
        return False


def test_objects_come_back(stored: Stored) -> None:
    """Property: each is loaded as it was logged, in its line or beside it, and listed with the size that the service saw."""
    for plan in stored.plans:
        listed = {line.ref: line for line in stored.reports[plan.trace_id].objects}
        assert set(listed) == {name_of(ref) for ref in plan.objects}
        for ref, data in plan.objects.items():
            line, payload = listed[name_of(ref)], stored.explorer.object(plan.trace_id, name_of(ref))
            assert payload.type == line.type == "tailrace.Native"
            assert same(load(payload.document()).data, kept(data))
            assert line.kept == ("spilled" if line.size > LIMIT else "")
            assert line.kept or line.size == len(payload.data)


def name_of(text: str) -> str:
    """As the client writes a name: bounded, also after escapes have made it longer."""
    text = kept_text(text)
    return text if len(text) <= 1024 else text[:1023] + "…"


def test_contexts_come_back(stored: Stored) -> None:
    """Property: names and ids as text, user and metadata as JSON."""
    for plan in stored.plans:
        logged, found = plan.context or {}, stored.reports[plan.trace_id].context
        for key in ("name", "conversation_id", "session_id"):
            assert whole(getattr(found, key)) == kept_text(logged.get(key) or "")
        user = logged.get("user")
        if isinstance(user, dict):
            identity = name_of(str(user["id"]))
            assert found.user_id == identity
            if isinstance(found.user, dict) and MARK in found.user:
                assert found.user.pop("id") == identity
            as_kept(found.user, {**user, "id": identity}, tokens=False)
        else:
            assert found.user_id == (name_of(user) if user is not None else "")
            as_kept(found.user, user if user is None else name_of(user))
        as_kept(found.metadata, logged.get("metadata"))


def test_events_come_back(stored: Stored) -> None:
    """Property: the tree, and of each event its type, name, input, attributes, output, status and error."""
    for plan in stored.plans:
        same_events(stored.reports[plan.trace_id].events, plan.events)


def same_events(found: Iterable[Any], logged: list[PlannedEvent]) -> None:
    # Siblings stand in the order of their start, of which two may share a microsecond.
    def key(event: Any) -> Any:
        return (
            event.type,
            whole(event.name),
            event.status,
            whole(event.error),
            len(event.children),
            repr(event.input),
        )

    def name(event: PlannedEvent) -> Any:
        status = "error" if event.fails is not None else name_of(event.status)
        return (
            "CUSTOM" if event.kind == "event" else event.kind.upper(),
            kept_text(event.name or ""),
            status,
            kept_text(event.fails or ""),
            len(event.children),
        )

    one = sorted(found, key=key)
    other = sorted(logged, key=lambda event: (*name(event), repr(kept(event.input))))
    assert [key(event)[:5] for event in one] == [name(event) for event in other]
    if len({key(event)[:5] for event in one}) < len(one):
        return  # alike but for their inputs, which sort otherwise when they are spilled
    for event, planned_event in zip(one, other, strict=True):
        as_kept(event.input, planned_event.input)
        as_kept(event.output, planned_event.output)
        as_kept(event.attributes, planned_event.attributes)
        same_events(event.children, planned_event.children)


def test_feedback_comes_back(stored: Stored) -> None:
    """Property: tag, text, and every bit of the score."""
    for plan in stored.plans:
        found = [
            (given.tag, whole(given.text), repr(given.score))
            for given in stored.reports[plan.trace_id].feedback
        ]
        logged = [(name_of(tag), kept_text(text or ""), repr(score)) for tag, text, score in plan.feedback]
        assert sorted(found) == sorted(logged)


def test_what_sessions_log_comes_back(stored: Stored) -> None:
    """Property: predictions, ground truths and exceptions that were logged inside a trace are found in it."""
    for plan in stored.plans:
        report = stored.reports[plan.trace_id]
        if len({row[2] for row in plan.predictions}) == len(plan.predictions):
            for made, (features, prediction, _) in paired(
                report.predictions,
                plan.predictions,
                lambda made: made.prediction_id,
                lambda row: name_of(row[2]),
            ):
                as_kept(made.features, features)
                as_kept(made.prediction, prediction)
                assert made.deployment == "deployed"
        assert sorted(repr((json_of(t.label), json_of(t.prediction), t.prediction_id, t.segments)) for t in report.ground_truths) == sorted(
            repr((kept(label), kept(prediction), name_of(known_id) if known_id else "", tuple(map(name_of, segments))))
            for label, prediction, segments, known_id in plan.truths
        )  # fmt: skip
        assert sorted(repr((whole(e.message), json_of(e.extra_info))) for e in report.exceptions) == sorted(
            repr((kept_text(message), kept(extra))) for message, extra in plan.exceptions
        )


def json_of(value: Any) -> Any:
    """A value of the report; one that was too deep for an answer is read from its text."""
    value = resolved(value)
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def test_a_stack_trace_comes_back(database: Callable[[], Any], tmp_path: Path) -> None:
    """Property: the exception that is being handled, with its trace to the letter."""
    log = tmp_path / "trace.log"
    logger = FileLogger(log, "p")
    trace, session = Trace(logger), Session("deployed", Target(logger))
    with trace:
        try:
            raise ValueError("naïve\n\t\0")
        except ValueError as exc:
            session.log_exception(exc_info=True)
            trace.exception("failed")
            stack = "".join(traceback.format_exception(exc))
    client = database()
    up_once(client, log)
    report = Explorer(client).trace(trace.trace_id)
    (raised,), (text,) = report.exceptions, report.texts
    assert (raised.message, raised.stack_trace) == ("ValueError: naïve\n\t\0", stack)
    assert text.message == f"failed\n{stack.rstrip()}"
    assert report.error


def test_the_json_of_a_trace_is_the_trace(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    """Property: what `tailrace trace --format json` prints is the report, with null for what JSON has no number for."""
    for plan in stored.plans:
        report = stored.reports[plan.trace_id]
        capsys.readouterr()
        print_json(report)
        printed = json.loads(capsys.readouterr().out)
        assert same(printed, without_non_finite(msgspec.to_builtins(report)))


def without_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
