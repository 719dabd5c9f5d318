"""Model monitoring sessions: what they write, what they never write, and that they never fail."""

from __future__ import annotations

import ast
import base64
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasketches
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tailrace
from tailrace.explorer.features import ColumnFigures
from tailrace.explorer.performance import SegmentFigures
from tailrace.monitoring import Monitoring
from tailrace.schemas.dialects.recognise import LineDecoder
from tailrace.schemas.histogram import ACCURACY, bin_of, quantile, value_of
from tailrace.statistics import MAX_NAMES
from tailrace.testing import MemoryLogger


def monitoring(environ: Mapping[str, str] | None = None, **options: Any) -> tuple[Monitoring, MemoryLogger]:
    """A configuration of its own, apart from that of the process."""
    logger = MemoryLogger("shop")
    made = Monitoring(environ or {})
    made.configure(logger=logger, **options)
    return made, logger


@pytest.fixture
def raw() -> tuple[tailrace.Session, MemoryLogger]:
    made, logger = monitoring()
    return made.session("model"), logger


def decoded(logger: MemoryLogger) -> list[Any]:
    """The lines as the ingestor reads them."""
    decoder = LineDecoder()
    return [decoder.decode(line.rstrip(b"\n")).record for line in logger.raw]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


# ---- raw data


def test_a_prediction_is_one_line_with_everything(raw: tuple[tailrace.Session, MemoryLogger]) -> None:
    """Each prediction is one valid line; its id is given back and no two are alike, so equal predictions stay two."""
    session, logger = raw
    first = session.log_prediction(features={"amount": 1.2, "country": "XX", "gone": None}, prediction=True)
    second = session.log_prediction(features={"amount": 1.2, "country": "XX", "gone": None}, prediction=True)
    own = session.log_prediction({"n": float("nan")}, np.array([0.5, 0.25]), prediction_id="own id ä")
    records = decoded(logger)
    assert [record.prediction_id for record in records] == [first, second, own]
    assert len({first, second, own}) == 3
    assert json.loads(bytes(records[0].features)) == {"amount": 1.2, "country": "XX", "gone": None}
    assert (bytes(records[0].prediction), bytes(records[2].prediction)) == (b"true", b"[0.5,0.25]")
    assert math.isnan(json.loads(bytes(records[2].features))["n"])
    assert {(record.project_id, record.deployment, record.trace_id) for record in records} == {
        ("shop", "model", "")
    }


ROWS = [{"a": 1.5, "b": "x"}, {"a": 2.5, "b": "y"}]
POSITIONS = [{"0": 1.5, "1": 2}, {"0": 2.5, "1": 3}]


@pytest.mark.parametrize(
    ("features", "rows"),
    [
        ([[1.5, 2], [2.5, 3]], POSITIONS),
        (((1.5, 2), (2.5, 3)), POSITIONS),
        (np.array([[1.5, 2], [2.5, 3]]), POSITIONS),
        (np.array([1.5, 2.5]), [[1.5], [2.5]]),
        (ROWS, ROWS),
        ([{"a": 1}, {"b": 2}], [{"a": 1}, {"b": 2}]),
        ({"a": [1.5, 2.5], "b": ("x", "y")}, ROWS),
        ({"a": np.array([1.5, 2.5]), "b": pd.Series(["x", "y"])}, ROWS),
        (pd.DataFrame(ROWS), ROWS),
        (pd.DataFrame([[1.5, 2.0], [2.5, 3.0]]), POSITIONS),
        (None, [None, None]),
    ],
)
@pytest.mark.parametrize(
    ("predictions", "answers"),
    [
        ([True, False], [True, False]),
        ([[0.5], [0.75]], [[0.5], [0.75]]),
        (np.array([0.5, 0.75]), [0.5, 0.75]),
        (pd.Series(["yes", "no"]), ["yes", "no"]),
        (pd.DataFrame({"p": [1, 2]}), [1, 2]),
        (pd.DataFrame({"p": [1, 2], "q": [3, 4]}), [{"p": 1, "q": 3}, {"p": 2, "q": 4}]),
        ({"p": [1, 2], "q": [3, 4]}, [{"p": 1, "q": 3}, {"p": 2, "q": 4}]),
    ],
)
def test_a_batch_is_one_record_a_row(
    features: Any, rows: list[Any], predictions: Any, answers: list[Any]
) -> None:
    """Every form of a batch gives the same records as its rows would; in statistics mode, as many counts."""
    made, logger = monitoring()
    made.session("m").log_prediction_batch(features=features, predictions=predictions)
    records = decoded(logger)
    assert [json.loads(bytes(record.features)) for record in records] == rows
    assert [json.loads(bytes(record.prediction)) for record in records] == answers
    assert len({record.prediction_id for record in records}) == 2
    made, logger = monitoring(statistics_only=True)
    made.session("m").log_prediction_batch(features=features, predictions=predictions)
    made.session("m").flush()
    assert {line["count"] for line in logger.lines if line["name"] == "" or line["subject"] == "feature"} == {
        2
    }
    assert logger.stats().dropped == 0


@pytest.mark.parametrize(
    ("features", "predictions"),
    [
        ([[1], [2]], [1]),
        ({"a": [1, 2], "b": [1]}, [1, 2]),
        (5, [1]),
        ("ab", [1, 2]),
        (None, 3),
        ([[1]], {"p": [1], "q": []}),
    ],
)
def test_a_batch_that_does_not_fit_together_is_counted(features: Any, predictions: Any) -> None:
    """Nothing is guessed: the batch is dropped as a whole, and counted, in both modes."""
    for options in ({}, {"statistics_only": True}):
        made, logger = monitoring(**options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.session("m").log_prediction_batch(features=features, predictions=predictions)
        made.session("m").flush()
        assert logger.lines == []
        assert logger.stats().drop_reasons == {"invalid batch": 1}


def test_a_batch_reaches_a_file_in_joined_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand rows are ten thousand whole lines, in far fewer writes."""
    writes: list[int] = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: writes.append(len(data)) or real(fd, data))
    made = Monitoring({})
    made.configure(project_id="shop", path=tmp_path / "m.log")
    made.session("m").log_prediction_batch(features=np.ones((10_000, 3)), predictions=np.arange(10_000))
    lines = (tmp_path / "m.log").read_bytes().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == list(range(10_000))
    assert len(writes) < 100


def test_exceptions_in_every_form(raw: tuple[tailrace.Session, MemoryLogger]) -> None:
    """A message, the current exception, an exception at hand, a tuple; the stack trace where there is one."""
    session, logger = raw
    session.log_exception(message="wrong format", extra_info={"feature": "F1"})
    try:
        raise KeyError("lost")
    except KeyError as exc:
        session.log_exception(exc_info=True)
        session.log_exception("look", exc_info=exc)
        session.log_exception(exc_info=sys.exc_info())
    session.log_exception(exc_info=True)
    session.log_exception()
    records = decoded(logger)
    described = "KeyError: 'lost'"
    assert [record.message for record in records] == [
        "wrong format",
        described,
        "look",
        described,
        "unknown",
        "unknown",
    ]
    assert json.loads(bytes(records[0].extra_info)) == {"feature": "F1"}
    assert ["test_monitoring.py" in (record.stack_trace or "") for record in records] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_ground_truths_and_metadata(raw: tuple[tailrace.Session, MemoryLogger]) -> None:
    """What was logged is what is read; two equal ground truths are two different lines."""
    session, logger = raw
    session.log_metadata("model version", "1.0")
    for _ in range(2):
        session.log_ground_truth(label=True, prediction=False, segments=["seg1", "seg2"])
    session.log_ground_truth(label=[1, None], prediction_id="id")
    metadata, first, _, last = decoded(logger)
    assert json.loads(bytes(metadata.entries)) == {"model version": "1.0"}
    assert (bytes(first.label), bytes(first.prediction), first.segments) == (
        b"true",
        b"false",
        ["seg1", "seg2"],
    )
    assert (bytes(last.label), bytes(last.prediction), last.prediction_id) == (b"[1,null]", b"", "id")
    assert len({line["id"] for line in logger.of_kind("ground_truth")}) == 3


def test_inside_of_a_trace_lines_belong_to_it(raw: tuple[tailrace.Session, MemoryLogger]) -> None:
    """What a session logs while a trace is current is found with that trace."""
    session, logger = raw
    with tailrace.Trace(logger=logger) as trace:
        session.log_prediction({"a": 1}, 1)
        session.log_prediction_batch([[1]], [1])
        session.log_ground_truth(1, 2)
    session.log_prediction({"a": 1}, 1)
    assert [record.trace_id for record in decoded(logger)] == [trace.trace_id] * 3 + [""]


# ---- never raises


class Nasty:
    def __repr__(self) -> str:
        raise ValueError

    def __str__(self) -> str:
        raise ValueError

    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __hash__(self) -> int:
        raise ValueError


def nasty_values() -> list[Any]:
    circular: list[Any] = []
    circular.append(circular)
    return [
        Nasty(), circular, 10**400, -(10**5000), float("nan"), float("inf"), "\ud800", b"\xff", {1: {2: 3}}, {Nasty: 1},
        [Nasty()], {"a": Nasty()}, (x for x in [1]), 5, "text", None, np.float32(1), np.array(3), np.array([None, "x"]),
        pd.NA, pd.NaT, pd.Timestamp("2026-01-01"), 1e308, -1e308, 5e-324, True, object(), {"a": [1, {"b": circular}]},
    ]  # fmt: skip


@pytest.mark.parametrize("statistics_only", [False, True])
def test_nothing_that_is_logged_can_raise(statistics_only: bool) -> None:
    """Whatever is given as anything, no call raises, later calls are counted right, and every line is valid."""
    made, logger = monitoring(statistics_only=statistics_only)
    session: Any = made.session("m")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in nasty_values():
            session.log_prediction(features={"a": value}, prediction=value)
            session.log_prediction(features=value, prediction=1)
            session.log_prediction({"a": 1}, 1, prediction_id=value)
            session.log_prediction_batch(features=value, predictions=value)
            session.log_prediction_batch(features=[[value]], predictions=[value])
            session.log_ground_truth(label=value, prediction=value, segments=value)
            session.log_ground_truth(label=value, prediction=1, segments=[value], prediction_id=value)
            session.log_exception(message=value, exc_info=value, extra_info=value)
            session.log_metadata(value, value)
            session.flush()
        session.log_prediction({"good": 1.0}, True)
        session.flush()
    records = decoded(logger)
    assert records
    if statistics_only:
        (good,) = [line for line in logger.lines if line.get("name") == "good"]
        assert (good["count"], good["missing"], good["numbers"]) == (1, 0, 1)
    else:
        assert bytes(records[-1].features) == b'{"good":1.0}'


def test_without_configuration_losses_are_counted_and_told_once() -> None:
    """A service that forgot to configure runs on; it is warned once and every loss is in the counts."""
    made = Monitoring({})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            made.session("a").log_prediction({"x": 1}, 1)
            made.session("b").log_ground_truth(True, False)
    assert [str(warning.message) for warning in told if "not configured" in str(warning.message)] != []
    assert len(told) == 1
    assert made.session("a").stats().drop_reasons == {"not configured": 6}


def test_a_session_of_before_logs_to_what_is_configured_later(tmp_path: Path) -> None:
    """The same name is the same session, for ever; `configure` moves all sessions, and writes what the old one held."""
    made = Monitoring({})
    session = made.session("m")
    assert made.session("m") is session
    assert made.session("n") is not session
    first, second = MemoryLogger("one"), MemoryLogger("two")
    made.configure(logger=first, statistics_only=True)
    session.log_prediction({"x": 1}, 1)
    made.configure(logger=second)
    session.log_prediction({"x": 1}, 1)
    assert {line["kind"] for line in first.lines} == {"statistics"}
    assert [(line["kind"], line["project_id"]) for line in second.lines] == [("prediction", "two")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "project_id"),
        ({"project_id": "p"}, "TAILRACE_LOG"),
        ({"path": "x.log"}, "TAILRACE_PROJECT_ID"),
        ({"logger": MemoryLogger("q"), "path": "x.log"}, "not both"),
        ({"logger": MemoryLogger("q"), "project_id": "p"}, "leave it out"),
        ({"logger": MemoryLogger("q"), "window_seconds": 0}, "window_seconds"),
    ],
)
def test_settings_that_contradict_are_refused(options: dict[str, Any], words: str) -> None:
    """A mistake in the configuration is told at start, in one sentence."""
    with pytest.raises(tailrace.ConfigError, match=words):
        Monitoring({}).configure(**options)


def test_redaction_comes_before_everything() -> None:
    """What the hook returns is all that is seen, in both modes; where it fails, not even that."""

    def redact(what: str, value: Any) -> Any:
        if what == "label":
            raise ValueError(f"cannot redact {value}")
        return {"amount": 1.0} if what == "features" else "gone"

    for statistics_only in (False, True):
        made, logger = monitoring(statistics_only=statistics_only, redact=redact)
        session = made.session("m")
        with pytest.warns(RuntimeWarning, match="redact"):
            session.log_prediction({"card": "SECRET"}, "SECRET")
            session.log_exception("SECRET", extra_info={"a": "SECRET"}, exc_info=ValueError("SECRET"))
            session.log_metadata("k", "SECRET")
            session.log_ground_truth("SECRET", "SECRET")
            session.flush()
        assert b"SECRET" not in b"".join(logger.raw)
        assert b"card" not in b"".join(logger.raw)
        assert logger.stats().altered >= 1


# ---- statistics only


def figures_of(loggers: list[MemoryLogger], subject: str, name: str) -> Any:
    """Merged over windows and processes as the explorer does."""
    column = ColumnFigures()
    for logger in loggers:
        for line in logger.of_kind("statistics"):
            if (line["subject"], line["name"]) == (subject, name):
                column.add_record(
                    line["type"],
                    *(line.get(key, 0) for key in ("count", "missing", "not_finite", "numbers")),
                    *(line.get(key) for key in ("mean", "m2", "mean_abs")),
                    line.get("bins", []),
                    line.get("bin_counts", []),
                    line.get("distinct", "").encode(),
                )
    return column.answer(name, column.count)


numbers = st.one_of(
    st.floats(-1e6, 1e6),
    st.floats(allow_nan=True, allow_infinity=True, min_value=None),
    st.integers(-1000, 1000).map(float),
).filter(lambda x: not math.isfinite(x) or 1e-50 < abs(x) < 1e50 or x == 0)


@settings(max_examples=60)
@given(
    data=st.lists(
        st.tuples(numbers, st.integers(-1000, 1000), st.sampled_from(["a", "b", "ü", None])),
        min_size=1,
        max_size=120,
    ),
    cuts=st.lists(st.integers(0, 119), max_size=5),
    processes=st.integers(1, 3),
)
def test_merged_statistics_are_those_of_all_the_data(
    data: list[tuple[float, int, str | None]], cuts: list[int], processes: int
) -> None:
    """Split over windows and processes in any way, merged figures equal numpy's over everything, within one per cent;
    exactly, where every window was rich enough; and do not depend on the split."""
    made = [monitoring(statistics_only=True) for _ in range(processes)]
    for index, (number, integer, text) in enumerate(data):
        session = made[index % processes][0].session("m")
        session.log_prediction({"f": number, "i": integer, "t": text}, number > 0)
        if index in cuts:
            session.flush()
    for each, _ in made:
        each.session("m").flush()
    loggers = [logger for _, logger in made]
    values = np.array([number for number, _, _ in data])
    finite = values[np.isfinite(values)]
    found = figures_of(loggers, "feature", "f")
    assert (found.count, found.missing) == (len(data), int(np.isnan(values).sum()))
    assert found.not_finite == int(np.isinf(values).sum())
    if len(finite):
        close = {"rel": ACCURACY * 1.001, "abs": 1e-90}
        assert found.min == pytest.approx(finite.min(), **close)
        assert found.max == pytest.approx(finite.max(), **close)
        assert found.p50 == pytest.approx(np.quantile(finite, 0.5, method="lower"), **close)
        assert found.p95 == pytest.approx(np.quantile(finite, 0.95, method="lower"), **close)
        assert abs(found.mean - finite.mean()) <= ACCURACY * 1.001 * np.abs(finite).mean() + 1e-90
        assert found.distinct == pytest.approx(len(np.unique(finite)), rel=0.05)
    integers = np.array([integer for _, integer, _ in data], float)
    found = figures_of(loggers, "feature", "i")
    assert found.type == "integer"
    assert abs(found.max - integers.max()) <= ACCURACY * 1.001 * abs(integers.max()) + 0.5
    texts = [text for _, _, text in data if text is not None]
    found = figures_of(loggers, "feature", "t")
    assert (found.missing, found.distinct) == (len(data) - len(texts), len(set(texts)))
    found = figures_of(loggers, "prediction", "")
    assert (found.type, found.mean) == ("boolean", pytest.approx(float(np.mean(values > 0))))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([1e-3, 1.0, 1e9]))
def test_rich_windows_have_exact_moments(seed: int, windows: int, offset: float) -> None:
    """Mean and deviation lose nothing where every window has five different values, however far from zero they are."""
    values = np.random.default_rng(seed).normal(offset, 1.0, 40 * windows)
    made, logger = monitoring(statistics_only=True)
    for part in np.split(values, windows):
        made.session("m").log_prediction_batch(features={"f": part}, predictions=[0] * len(part))
        made.session("m").flush()
    found = figures_of([logger], "feature", "f")
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(), rel=1e-6)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.floats(0, 1))
def test_bins_keep_their_accuracy(values: list[float], share: float) -> None:
    """A value read from its bin is within one per cent, bins sort as values do, and quantiles are order statistics."""
    for value in values:
        if abs(value) >= 1e-100 and abs(value) < 1.7e308:
            assert value_of(bin_of(value)) == pytest.approx(value, rel=ACCURACY * 1.0001)
    order = sorted(values)
    assert sorted(map(bin_of, values)) == [bin_of(value) for value in order]
    bins: dict[int, int] = {}
    for value in values:
        bins[bin_of(value)] = bins.get(bin_of(value), 0) + 1
    assert quantile(bins, share) == value_of(bin_of(order[math.floor(share * (len(order) - 1))]))


LABELS = {
    "binary": st.booleans(),
    "text": st.sampled_from(["cat", "dog", "cow"]),
    "number": st.floats(-100, 100),
}


@pytest.mark.parametrize("kind", list(LABELS))
@settings(max_examples=25)
@given(data=st.data())
def test_performance_is_that_of_all_ground_truths(kind: str, data: st.DataObject) -> None:
    """Accuracy, precision, recall and F1 are exact after any split; errors are within their accuracy; by segment too."""
    pairs = data.draw(st.lists(st.tuples(LABELS[kind], LABELS[kind], st.booleans()), min_size=1, max_size=60))
    loggers = []
    for part in (pairs[::2], pairs[1::2]):
        made, logger = monitoring(statistics_only=True)
        for index, (label, prediction, segment) in enumerate(part):
            made.session("m").log_ground_truth(label, prediction, segments=["s"] if segment else None)
            if index % 7 == 0:
                made.session("m").flush()
        made.session("m").flush()
        loggers.append(logger)
    for segment in ("", "s"):
        chosen = [(label, prediction) for label, prediction, inside in pairs if inside or not segment]
        expected, found = SegmentFigures(), SegmentFigures()
        for label, prediction in chosen:
            expected.add_pair(kind, label, prediction)
        for logger in loggers:
            for line in logger.lines:
                if line["name"] == segment:
                    assert line["type"] == kind
                    found.add_record(
                        *(line.get(key, 0) for key in ("count", "missing", "not_finite", "numbers")),
                        *(line.get(key) for key in ("mean", "m2", "mean_abs")),
                        [],
                        [],
                        line.get("matches", 0),
                        line.get("confusion"),
                    )
        one, two = expected.answer(segment, kind), found.answer(segment, kind)
        if kind == "number" and chosen:
            size = float(np.mean([abs(prediction - label) for label, prediction in chosen]))
            assert two.count == one.count
            assert two.mae == pytest.approx(one.mae, rel=0.0101, abs=1e-90)
            assert two.mse == pytest.approx(one.mse, rel=0.0203, abs=1e-90)
            assert abs((two.bias or 0) - (one.bias or 0)) <= 0.0101 * size + 1e-90
        elif chosen:
            assert two == one


def test_no_raw_data_reaches_the_file(tmp_path: Path) -> None:
    """Unique values planted in every place are nowhere in the file: not as text, not as numbers, not inside of sketches."""
    made = Monitoring({})
    log = tmp_path / "m.log"
    made.configure(project_id="shop", path=log, statistics_only=True, hash_key="key")
    session = made.session("m")
    secrets = [f"secret-{n:04}" for n in range(30)]
    amounts = [4111111111111111 + n for n in range(3)]
    for n, secret in enumerate(secrets):
        session.log_prediction(
            {"name": secret, "list": [secret], "amount": amounts[n % 3], "f": 8391.25}, secret
        )
        session.log_prediction(
            {"once": 7717.125, "minus": -7717.125}, [7717.125, secret], prediction_id=secret
        )
        session.log_ground_truth(secret, secrets[0], prediction_id=secret)
        session.log_ground_truth(7717.125, 0)
        session.log_exception(message=secret, extra_info={secret: secret})
        session.log_exception(exc_info=ValueError(secret), message=secret)
        if n % 10 == 0:
            session.flush()
    session.log_prediction_batch(pd.DataFrame({"name": secrets}), [{"p": secret} for secret in secrets])
    session.log_prediction_batch(features=[[7717.125]], predictions=[7717.125])
    session.flush()
    written = log.read_bytes()
    lines = [json.loads(line) for line in written.splitlines()]
    assert len(lines) > 20
    sketches = b"".join(base64.b64decode(line.get("distinct", "")) for line in lines)
    forbidden = [*secrets, *amounts, 8391.25, 7717.125, -7717.125]
    for secret in forbidden:
        assert str(secret).encode() not in written
        assert str(secret).encode() not in sketches
        if isinstance(secret, float | int):
            assert np.float64(secret).tobytes() not in sketches
    assert not {value for value in leaves(lines) if isinstance(value, int | float)} & set(forbidden[30:])
    top = [line["top"] for line in lines if line.get("top")]
    assert top
    assert all(len(name) == 16 for each in top for name in each)


def test_hashes_agree_where_the_key_does() -> None:
    """Distinct values and frequent texts merge over processes with the same key; without one nothing frequent is told."""

    def lines(**options: Any) -> dict[str, Any]:
        made, logger = monitoring(statistics_only=True, **options)
        for text in ("a", "a", "b"):
            made.session("m").log_prediction({"t": text}, 1)
        made.session("m").flush()
        return next(line for line in logger.lines if line["name"] == "t")

    same = [lines(hash_key="k"), lines(api_key="k"), lines(hash_key=b"k")]
    assert same[0]["top"] == same[1]["top"] == same[2]["top"]
    assert sorted(same[0]["top"].values()) == [1, 2]
    assert lines(hash_key="other")["top"].keys().isdisjoint(same[0]["top"])
    assert "top" not in lines()
    assert lines()["distinct"] == lines()["distinct"] != same[0]["distinct"]
    union = datasketches.hll_union(11)
    for line in same:
        union.update(datasketches.hll_sketch.deserialize(base64.b64decode(line["distinct"])))
    assert round(union.get_estimate()) == 2


def test_memory_is_bounded_and_what_is_left_out_is_counted() -> None:
    """Features beyond the limit are left out and counted; a feature with endless categories stays small."""
    made, logger = monitoring(statistics_only=True, hash_key="k")
    session = made.session("m")
    with pytest.warns(RuntimeWarning, match="features or segments over the limit"):
        session.log_prediction({f"f{n}": 1.0 for n in range(MAX_NAMES + 50)}, 1)
        session.flush()
    assert sum(line["subject"] == "feature" for line in logger.lines) == MAX_NAMES
    assert logger.stats().drop_reasons == {"too many names": 50}
    logger.clear()
    session.log_prediction_batch({"t": [f"category {n}" for n in range(20_000)]}, [1] * 20_000)
    session.flush()
    assert max(len(line) for line in logger.raw) < 4000
    (line,) = [line for line in logger.lines if line["name"] == "t"]
    sketch = datasketches.hll_sketch.deserialize(base64.b64decode(line["distinct"]))
    assert sketch.get_estimate() == pytest.approx(20_000, rel=0.1)


def test_calls_faster_than_counting_lose_nothing() -> None:
    """Threads that log as fast as they can: every row is in some window, or counted as left out."""
    made, logger = monitoring(statistics_only=True, window_seconds=0.2)
    session = made.session("m")

    def log() -> None:
        for n in range(8000):
            session.log_prediction({"a": n, "b": "x", "c": n / 3}, True)

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.flush()
    counted = [line for line in logger.lines if (line["subject"], line["name"]) == ("prediction", "")]
    left_out = logger.stats().dropped
    assert sum(line["count"] for line in counted) + left_out == 32_000
    assert left_out == sum(line.get("uncounted", 0) for line in logger.lines)


def test_what_the_service_changes_afterwards_is_not_counted() -> None:
    """Rows are counted as they were when they were logged."""
    made, logger = monitoring(statistics_only=True)
    row, answer = {"a": 1}, [5]
    for n in range(10):
        row["a"], answer[0] = n, n
        made.session("m").log_prediction(row, answer)
    made.session("m").flush()
    assert figures_of([logger], "feature", "a").distinct == 10
    assert figures_of([logger], "prediction", "0").distinct == 10


def test_debug_mode_tells_each_call(caplog: pytest.LogCaptureFixture) -> None:
    """In debug mode the standard logger `tailrace.monitoring` hears of each call and each window."""
    for statistics_only in (False, True):
        made, _ = monitoring(debug_mode=True, statistics_only=statistics_only)
        with caplog.at_level("DEBUG", "tailrace.monitoring"):
            made.session("m").log_prediction({"a": 1}, 1)
            made.session("m").flush()
        assert "m" in caplog.messages[-1]
        caplog.clear()


# ---- processes


def run(code: str, log: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TAILRACE_PROJECT_ID": "shop", "TAILRACE_LOG": str(log), **environment},
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
    )


def rows_by_instance(log: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        if (line["subject"], line["name"]) == ("prediction", ""):
            found[line["instance"]] = found.get(line["instance"], 0) + line["count"]
    return found


LOG = "import tailrace\nsession = tailrace.session(deployment_name='m')\nlog = lambda n: [session.log_prediction({'a': i}, True) for i in range(n)]\n"
STATISTICS = {"TAILRACE_STATISTICS_ONLY": "1"}


def test_a_process_that_exits_writes_its_last_window(tmp_path: Path) -> None:
    """Configured by the environment only: what was logged is written at exit, also by SystemExit from a signal handler."""
    run(LOG + "log(10)", tmp_path / "a.log", **STATISTICS)
    assert list(rows_by_instance(tmp_path / "a.log").values()) == [10]
    code = "import os, signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
    done = run(
        code + LOG + "log(7); os.kill(os.getpid(), signal.SIGTERM)",
        tmp_path / "b.log",
        check=False,
        **STATISTICS,
    )
    assert done.returncode == 3
    assert list(rows_by_instance(tmp_path / "b.log").values()) == [7]
    early = "import atexit\natexit.register(lambda: log(2))\n"  # hence run after the windows were closed
    run(early + LOG + "log(1)", tmp_path / "d.log", **STATISTICS)
    assert sum(rows_by_instance(tmp_path / "d.log").values()) == 3
    run(LOG + "log(3)", tmp_path / "c.log")
    assert len((tmp_path / "c.log").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "fork",
    [
        "import os, sys\npid = os.fork()\nif not pid:\n    log(5); sys.exit()\nos.waitpid(pid, 0)\nlog(2)\n",
        "import multiprocessing as m\nc = m.get_context('fork').Process(target=log, args=[5]); c.start(); c.join()\nlog(2)\n",
    ],
)
def test_a_forked_child_counts_for_itself(fork: str, tmp_path: Path) -> None:
    """Nothing of the parent's window is written twice, nothing of the child's is lost, and each has its own instance."""
    log = tmp_path / "m.log"
    run(LOG + "log(10)\n" + fork, log, **STATISTICS)
    assert sorted(rows_by_instance(log).values()) == [5, 12]


def test_windows_are_written_while_the_process_runs(tmp_path: Path) -> None:
    """A window ends by time: its records are in the file before the process does anything more, and SIGKILL takes only
    the open one."""
    log = tmp_path / "m.log"
    code = LOG.replace(
        "session =",
        f"tailrace.configure(project_id='p', path={str(log)!r}, statistics_only=True, window_seconds=0.2)\nsession =",
    )
    process = subprocess.Popen([sys.executable, "-c", code + "import time\nlog(4)\ntime.sleep(60)"])
    try:
        wait_until(lambda: log.exists() and log.stat().st_size > 0)
        assert list(rows_by_instance(log).values()) == [4]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_raw_mode_imports_nothing_heavy(tmp_path: Path) -> None:
    """Who logs raw data never pays for numpy or the sketches; nor for `logging`, but in debug mode."""
    code = LOG + "log(1); session.log_ground_truth(True, False); session.log_exception('x')\n"
    code += "session.log_prediction_batch([[1]], [1]); import sys\n"
    code += "print(sorted({'numpy', 'datasketches', 'pandas', 'logging', 'msgspec', 'tailrace.statistics'} & set(sys.modules)))"
    assert ast.literal_eval(run(code, tmp_path / "m.log").stdout) == []
