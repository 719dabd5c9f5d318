"""What a trace writes: one contract for every logger."""

from __future__ import annotations

import json
import math
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tailrace import FileLogger, Logger, Tag, Trace, load
from tailrace.ids import is_uuid7, new_trace_id, uuid7
from tailrace.schemas.records import AnyRecord
from tailrace.testing import MemoryLogger

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")

Lines = Callable[[], list[bytes]]


@dataclass
class Case:
    logger: Logger
    raw: Lines

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw()]


@pytest.fixture(params=["file", "memory"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "memory":
        memory = MemoryLogger("shop")
        return Case(memory, lambda: memory.raw)
    path = tmp_path / "new" / "folders" / "trace.log"
    return Case(FileLogger(path, "shop"), lambda: path.read_bytes().splitlines(keepends=True))


def test_text_tags_and_objects_have_the_documented_form(case: Case) -> None:
    """Property: every line is a record of tailrace v1, with `v` and `kind` first and its fields as documented."""
    trace = Trace(logger=case.logger)
    trace.info("hello")
    for level in ("debug", "warning", "error", "critical"):
        getattr(trace, level)(f"at {level}")
    trace.tag([{"name": "client", "value": "x", "type": "label"}, Tag("ms", 1.5, "metric", "g")])
    trace.log("native", {"a": [1, None, "b"]})
    for line in case.raw():
        assert re.match(rb'\{"v":1,"kind":"(text|tags|object)","ts":"20', line)
        assert line.endswith(b"}\n")
        msgspec.json.decode(line, type=AnyRecord)
    lines = case.lines
    assert all((line["project_id"], line["trace_id"]) == ("shop", trace.trace_id) for line in lines)
    assert not any("trace_ts" in line for line in lines)
    assert [(line["level"], line["message"]) for line in lines[:5]] == [
        ("info", "hello"),
        *((level, f"at {level}") for level in ("debug", "warning", "error", "critical")),
    ]
    assert lines[5]["tags"] == [
        {"name": "client", "value": "x", "type": "label"},
        {"name": "ms", "value": 1.5, "type": "metric", "group": "g"},
    ]
    assert (lines[6]["ref"], lines[6]["type"]) == ("native", "tailrace.Native")
    assert load(lines[6]).data == {"a": [1, None, "b"]}
    for line in lines:
        age = datetime.now(UTC) - datetime.fromisoformat(line["ts"])
        assert 0 <= age.total_seconds() < 60
    stats = case.logger.stats()
    assert (stats.lines, stats.dropped, stats.altered, stats.invalid_tags) == (7, 0, 0, 0)


@pytest.mark.parametrize(
    "trace_id", ["request 17", "0af7651916cd43dd8448eb211c80319c", str(uuid.UUID(int=4)), "ü"]
)
def test_a_foreign_trace_id_carries_when_the_trace_began(case: Case, trace_id: str) -> None:
    """Property: an id that does not tell the time is kept as it is, and every line has the same `trace_ts`."""
    before = datetime.now(UTC)
    trace = Trace(logger=case.logger, trace_id=trace_id)
    trace.info("a")
    trace.tag([Tag("a", 1)])
    trace.log("r", 1)
    began = {line["trace_ts"] for line in case.lines}
    assert {line["trace_id"] for line in case.lines} == {trace_id}
    assert len(began) == 1
    assert abs((datetime.fromisoformat(began.pop()) - before).total_seconds()) < 5


def test_new_trace_ids_are_version_7_and_sort_by_time() -> None:
    """Property: ids are valid UUIDv7, tell the time they were made, differ, and sort as the clock went."""
    made = [new_trace_id() for _ in range(2000)]
    assert len(set(made)) == len(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
        assert is_uuid7(text)
    ticks = [
        uuid7(1_700_000_000_000_000_000 + step * 300, b"\xff" * 8 if step % 2 else bytes(8))
        for step in range(5000)
    ]
    assert ticks == sorted(ticks)
    assert uuid.UUID(ticks[0]).int >> 80 == 1_700_000_000_000


@given(st.text(alphabet="0123456789abcdefABCDEF-7gü ", min_size=30, max_size=40))
@example("018f2a3b-4c5d-7e6f-8a9b-0c1d2e3f4a5b")
@example("018f2a3b-4c5d-7e6f-8a9b-0c1d2e3f4a5 ")
@example("018f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b")
def test_only_a_real_uuid7_counts_as_one(text: str) -> None:
    """Property: `is_uuid7` agrees with the parser of the standard library on the 36-character form."""
    try:
        parsed = uuid.UUID(text)
        expected = len(text) == 36 and text.lower() == str(parsed) and parsed.version == 7
    except ValueError:
        expected = False
    assert is_uuid7(text) == expected


class Colour(Enum):
    RED = "red"


class Kind(StrEnum):
    METRIC = "metric"


def test_tags_are_normalised_and_invalid_ones_left_out(case: Case) -> None:
    """Property: valid tags of a call are written whatever stands beside them; each invalid one is counted once."""
    trace = Trace(logger=case.logger)
    valid: list[Any] = [
        {"name": "default type", "value": "x"},
        {"name": "no group", "value": 1, "type": "metric", "group": None},
        {"name": "extra key", "value": 1, "type": "metric", "colour": object()},
        Tag("big", 2**70),
        Tag("nan", float("nan")),
        Tag("inf", float("-inf"), "profile-score", "g"),
        Tag("numpy", np.float64(2.5), Kind.METRIC),
        Tag("numpy nan", np.float32("nan"), "metric"),
        Tag("numpy int", np.int64(3)),
        Tag("enum", Colour.RED),
        Tag("decimal", Decimal("1.10"), "metric"),
        Tag("list", [1, float("nan")]),
        Tag("surrogate", "\udcff"),
        Tag("none", None),
        Tag("bool", True),
    ]
    invalid: list[Any] = [
        {"name": "", "value": 1, "type": "label"},
        {"name": 7, "value": 1, "type": "label"},
        {"value": 1, "type": "label"},
        {"name": "no value"},
        {"name": "type", "value": 1, "type": 3},
        Tag(None, 1),  # type: ignore[arg-type]
        "text",
        None,
    ]
    trace.tag([invalid[0], *valid, *invalid[1:]])
    trace.tag(invalid)
    trace.tag([])
    trace.tag(3)  # type: ignore[arg-type]
    trace.tag(Tag("alone", 1))  # type: ignore[arg-type]
    trace.tag(tag for tag in [Tag("generated", 1)])
    first, alone, generated = case.lines
    values = {tag["name"]: (tag["value"], tag["type"], tag.get("group")) for tag in first["tags"]}
    assert values == {
        "default type": ("x", "label", None),
        "no group": (1, "metric", None),
        "extra key": (1, "metric", None),
        "big": (2**70, "label", None),
        "nan": ("NaN", "metric", None),
        "inf": ("-Infinity", "profile-score", "g"),
        "numpy": (2.5, "metric", None),
        "numpy nan": ("NaN", "metric", None),
        "numpy int": (3, "label", None),
        "enum": ("red", "label", None),
        "decimal": ("1.10", "metric", None),
        "list": ([1, "NaN"], "label", None),
        "surrogate": ("\\udcff", "label", None),
        "none": (None, "label", None),
        "bool": (True, "label", None),
    }
    assert [alone["tags"][0]["name"], generated["tags"][0]["name"]] == ["alone", "generated"]
    for line in case.raw():
        orjson.loads(line)  # no NaN token outside `data`
        msgspec.json.decode(line, type=AnyRecord)
    stats = case.logger.stats()
    assert (stats.invalid_tags, stats.dropped) == (2 * len(invalid), 1)


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no str")

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("no class")


class HostileType:
    def to_dict(self) -> dict[str, Any]:
        raise ValueError("cannot")


@dataclass
class Point:
    x: float
    y: float


def circular() -> list[Any]:
    inside: list[Any] = [1]
    inside.append({"again": inside})
    return inside


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE


@pytest.mark.parametrize(
    ("data", "read", "altered"),
    [
        ({"a": float("nan"), "b": [float("inf"), None]}, {"a": math.nan, "b": [math.inf, None]}, False),
        ({"none": None}, {"none": None}, False),
        ({"huge": 2**200}, {"huge": 2**200}, False),
        ({"digits": 1 << 17_000}, {"digits": hex(1 << 17_000)}, True),
        ({7: "a", None: "b", True: "c", 2.5: "d"}, {"7": "a", "null": "b", "true": "c", "2.5": "d"}, False),
        ({1: "a", "1": "b"}, {"1": "a", "1_": "b"}, True),
        ({(1, 2): "a"}, {"(1, 2)": "a"}, True),
        ("\ud800 lone", "\\ud800 lone", True),
        ({"\udcff": 1}, {"\\udcff": 1}, True),
        (circular(), [1, {"again": "<circular>"}], True),
        (CYCLE, {"self": "<circular>"}, True),
        ((1, {2}), [1, [2]], False),
        ({"np": np.arange(3), "f": np.float32(0.5), "nan": np.float64("nan")}, {"np": [0, 1, 2], "f": 0.5, "nan": math.nan}, False),
        ({"array": np.array([1.0, np.nan])}, {"array": [1.0, math.nan]}, False),
        ({"point": Point(1, math.nan)}, {"point": {"x": 1, "y": math.nan}}, False),
        (Point(1, 2), {"x": 1, "y": 2}, False),
        ({"b": b"ab\xff"}, {"b": "ab\\xff"}, True),
        ({"path": Path("/a"), "dec": Decimal("1.50")}, {"path": "/a", "dec": "1.50"}, False),
        ({"when": datetime(2026, 1, 2, tzinfo=UTC)}, {"when": "2026-01-02T00:00:00+00:00"}, False),
        (["newline \n tab \t \u2028 \x00"], ["newline \n tab \t \u2028 \x00"], False),
        (orjson.Fragment(b'{\n"a":\n1}'), {"a": 1}, False),
        ({"ts": pd.Timestamp("2026-01-02")}, {"ts": "2026-01-02T00:00:00"}, False),
    ],
)  # fmt: skip
def test_odd_data_is_written_readably(case: Case, data: Any, read: Any, altered: bool) -> None:
    """Property: what JSON has no form for is written in the documented one, and counted when it was altered."""
    Trace(logger=case.logger).log("r", data)
    (line,) = case.raw()
    assert line.count(b"\n") == 1
    assert repr(load(line).data) == repr(read)
    assert case.logger.stats().altered == altered


HOSTILE: dict[str, Callable[[], Any]] = {
    "no repr": Hostile,
    "no repr inside": lambda: {"a": [Hostile()]},
    "to_dict fails": HostileType,
    "1,000 levels": lambda: deep(1000),
    "100,000 levels": lambda: deep(100_000),
    "bare object": object,
    "hostile key": lambda: {Hostile(): 1},
    "masked array": lambda: np.ma.masked_array([1], [True]),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_data_never_raises_and_is_counted(case: Case, make: Callable[[], Any]) -> None:
    """Property: whatever is logged, one whole line is written, the service goes on, and the alteration is counted."""
    Trace(logger=case.logger).log("r", make())
    (line,) = case.lines
    assert line["ref"] == "r"
    stats = case.logger.stats()
    assert (stats.lines, stats.altered, stats.dropped) == (1, 1, 0)


def test_what_stands_beside_hostile_data_is_kept(case: Case) -> None:
    """Property: one value that fails in every way does not take the others with it."""
    Trace(logger=case.logger).log("r", {"a": [1, Hostile()], "b": float("nan")})
    loaded = load(case.raw()[0]).data
    assert loaded["a"] == [1, "<Hostile that cannot be printed>"]
    assert math.isnan(loaded["b"])


def test_hostile_arguments_never_raise(case: Case) -> None:
    """Property: texts, ids and references of any class are survived."""
    trace = Trace(logger=case.logger, trace_id=Hostile())  # type: ignore[arg-type]
    trace.info(Hostile())  # type: ignore[arg-type]
    trace.info(17)  # type: ignore[arg-type]
    trace.info("\ud83d")
    trace.log(Hostile(), 1)  # type: ignore[arg-type]
    trace.tag([Hostile(), Tag("a", Hostile()), {"name": Hostile(), "value": 1}])  # type: ignore[list-item]
    assert [line.get("message") for line in case.lines[1:3]] == ["17", "\\ud83d"]
    assert len(case.lines) == 5
    assert is_uuid7(Trace(logger=case.logger, trace_id="").trace_id)


def test_a_data_type_of_ones_own(case: Case) -> None:
    """Property: any object with `to_dict()` is logged under its name and read by the reader given for it."""

    class Polygon:
        def __init__(self, points: list[list[int]]) -> None:
            self.points = points

        def to_dict(self) -> dict[str, Any]:
            return {"type": "shop.Polygon", "params": {"points": self.points}}

    Trace(logger=case.logger).log("p", Polygon([[0, 1], [2, 3]]))
    (line,) = case.lines
    assert load(line, types={"shop.Polygon": lambda params: Polygon(params["points"])}).points == [
        [0, 1],
        [2, 3],
    ]


def test_a_closed_logger_counts_what_comes_later(case: Case) -> None:
    """Property: after `close` lines are dropped and counted as such; closing twice is fine."""
    trace = Trace(logger=case.logger)
    trace.info("before")
    case.logger.flush()
    case.logger.close()
    case.logger.close()
    trace.info("after")
    assert len(case.lines) == 1
    assert case.logger.stats().drop_reasons == {"closed": 1}


def test_a_loss_is_warned_about_once(case: Case, recwarn: pytest.WarningsRecorder) -> None:
    """Property: the first drop, and only the first, is warned about."""
    with pytest.warns(RuntimeWarning, match="dropped") as said:
        case.logger.close()
        for _ in range(5):
            Trace(logger=case.logger).info("x")
    assert len(said) == 1


def test_a_logger_that_breaks_its_promise_does_not_break_the_service() -> None:
    """Property: exceptions of a logger of one's own stay out of the service."""

    class Broken(MemoryLogger):
        def write(self, line: bytes) -> None:
            raise ValueError("broken")

        def count(self, *_: Any, **__: Any) -> None:
            raise ValueError("broken as well")

    trace = Trace(logger=Broken())
    trace.info("x")
    trace.error("x")
    trace.tag([Tag("a", 1)])
    trace.log("r", 1)


def test_threads_share_a_trace(case: Case) -> None:
    """Property: lines of several threads are all there, whole."""
    trace = Trace(logger=case.logger)

    def work(number: int) -> None:
        for step in range(300):
            trace.info(f"{number}:{step}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line["message"] for line in case.lines} == {f"{n}:{s}" for n in range(6) for s in range(300)}
    assert len(case.lines) == case.logger.stats().lines == 1800


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(json_values)
def test_any_json_value_comes_back_equal(value: Any) -> None:
    """Property: what JSON can hold, with NaN, infinities and huge integers, comes back the same through `load`; only
    lone surrogates are spelt out. No line has a newline inside."""
    logger = MemoryLogger()
    Trace(logger=logger).log("r", value)
    (raw,) = logger.raw
    assert raw.count(b"\n") == 1
    raw.decode("utf-8")
    loaded = load(raw).data
    if logger.stats().altered:
        assert any(0xD800 <= ord(char) <= 0xDFFF for char in all_text(value))
    else:
        assert repr(loaded) == repr(value)


def all_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(all_text, value))
    return "".join(key + all_text(item) for key, item in value.items()) if isinstance(value, dict) else ""


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None), min_size=1), json_values)
def test_any_text_and_tag_is_one_valid_line(text: str, name: str, value: Any) -> None:
    """Property: any text and tag makes lines that a strict JSON parser takes."""
    logger = MemoryLogger()
    trace = Trace(logger=logger, trace_id=text)
    trace.info(text)
    trace.tag([Tag(name, value, text, text)])
    assert logger.stats().lines == 2
    for raw in logger.raw:
        assert raw.count(b"\n") == 1
        if not re.search(rb"\d{19}", raw):  # a strict parser may refuse integers over 64 bit
            orjson.loads(raw)
        msgspec.json.decode(raw, type=AnyRecord)
