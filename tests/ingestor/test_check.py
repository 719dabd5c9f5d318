"""What `tailrace check` says of lines: the same as an ingestor would, also where it reads many of them at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import corpus
from support import hostile
from tailrace.ingestor import check
from tailrace.ingestor.check import Checker, CheckReport
from tailrace.ingestor.decode import BatchDecoder
from tailrace.schemas.dialects.many import ManyReader
from tailrace.schemas.streams import FileChunk, FileRef

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
LIMIT = 20_000

_small = [case.data for case in hostile.CASES if len(case.data) < 2 * LIMIT]
_raymon = list(corpus.lines(20))
_ours = [hostile.neighbour(n).replace(b'"v": 1, "kind": ', b'"v":1,"kind":') for n in range(20)]
_crooked = [
    _ours[0].replace(b"\n", _ours[1]),  # two values in a line
    _ours[0].replace(b"}\n", b"\n}\n"),  # one value in two
    _raymon[0].replace(b'"jcr": {', b'"jcr":\n{'),
    _ours[0].replace(b"+00:00", b""),
    _ours[0].replace(b"2026-11-20", b"2300-01-01"),
    _ours[0].replace(b"2026-11-20", b"2026-02-30"),
    _ours[0].replace(b'"message"', b'"trace_ts": "never", "message"'),
    _ours[0].replace(b'"message"', b'"jcr": {}, "message"'),
    _raymon[0].replace(b'"jcr"', b'"kind": "text", "jcr"'),
    _raymon[0].replace(b"\n", b"\r\n"),
    _raymon[1].replace(b'"name": "client"', b'"name": ""'),
    b'{"v":1,"kind":"text"}\n',
    # JSON, with more digits than Python reads, beside a word that looks like one of Python's tokens.
    _raymon[4].replace(b'"data": {"type"', b'"data": {"a": "NaN", "b": ' + b"1" * 5000 + b', "type"'),
    b"x" * (LIMIT + 50) + b"\n",
]
_odd = [
    _raymon[0].replace(b'"ref"', b'"reff": 1, "ref"'),
    _raymon[1].replace(b'"group"', b'"unit": "ms", "group"', 1),
    _raymon[1].replace(b'"type": "metric"', b'"type": "metric", "value": NaN', 1),
    _ours[0].replace(b'"message"', b'"mesage": 1, "message"'),
    _ours[0].replace(b"2026-11-20", b"1971-01-01"),
    _ours[0].replace(b'"message": "', b'"message": "\xc3\xa9'),
    _raymon[4].replace(b'"data": {"type"', b'"data": {"\xff": 1, "type"'),
]
_lines = st.one_of(
    st.sampled_from(_raymon), st.sampled_from(_ours), st.sampled_from(_small + _crooked + _odd)
)
_runs = st.lists(st.tuples(_lines, st.integers(1, 30)), max_size=12).map(
    lambda runs: b"".join(line * count for line, count in runs)
)


def checked(path: Path, limit: int = LIMIT) -> CheckReport:
    checker = Checker(limit, 1000, lambda _: None, NOW)
    checker.check(path)
    return checker.report


@contextmanager
def cut_into(
    tmp_path_factory: pytest.TempPathFactory, block: int, data: bytes
) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """A file that is read in blocks of so many bytes, and what may be changed as long as it is."""
    path = tmp_path_factory.getbasetemp() / "check.log"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "_BLOCK_BYTES", block)
        yield path, patch


@settings(max_examples=150)
@given(data=_runs, end=st.binary(max_size=30), block=st.integers(1, 5000))
def test_the_same_as_an_ingestor_would_say(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, end: bytes, block: int
) -> None:
    """Whatever the lines and wherever blocks are cut: lines, rows, dead letters, blank ones, reasons and places agree."""
    with cut_into(tmp_path_factory, block, data + end) as (path, _):
        found = checked(path)
    decoder = BatchDecoder(LIMIT)
    decoder.add_chunk(FileChunk(FileRef("f", "f"), 0, len(data + end), data + end))
    batch = decoder.finish()
    (span,) = batch.spans
    assert (found.lines, found.valid, found.invalid, found.blank, found.bytes) == (
        *(span.lines, span.rows, span.dead_letters, span.blank),
        len(data + end),
    )
    assert sum(found.kinds.values()) == sum(found.dialects.values()) == found.valid
    expected = [(letter.origin.byte, letter.reason.value) for letter in batch.dead_letters]
    assert [(finding.byte, finding.reason) for finding in found.findings] == expected
    for finding in found.findings:
        assert (data + end)[: finding.byte].count(b"\n") == finding.line - 1


@settings(max_examples=100)
@given(data=_runs, end=st.binary(max_size=30), block=st.integers(1, 5000))
def test_many_at_once_and_one_by_one_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, end: bytes, block: int
) -> None:
    """The whole report, suspicions and their places included, is the same when no two lines are read at once."""
    with cut_into(tmp_path_factory, block, data + end) as (path, patch):
        patch.setattr(check, "_LOOKED_AT_EACH", 1)
        quick = checked(path)
        patch.setattr(ManyReader, "read", lambda *_, **__: None)
        assert checked(path) == quick


@settings(max_examples=100)
@given(data=_runs, end=st.binary(max_size=30), block=st.integers(1, 5000))
def test_compiled_code_and_python_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, end: bytes, block: int
) -> None:
    """All that is said of every line is the same; what is said of a sample may be of another one."""

    def said() -> CheckReport:
        report = checked(path)
        exact = [suspicion for suspicion in report.suspicions if not suspicion.sampled]
        return replace(report, sampled=0, suspicions=exact)

    with cut_into(tmp_path_factory, block, data + end) as (path, patch):
        patch.setattr(check, "_LOOKED_AT_FIRST", 0)
        patch.setattr(check, "_LOOKED_AT_EACH", 10**9)
        quick = said()
        patch.setenv("TAILRACE_PURE_PYTHON", "1")
        assert said() == quick


def test_valid_lines_are_read_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What both clients write takes the quick way but for its sample, a line among them that is none notwithstanding."""
    log = tmp_path / "app.log"
    lines = [*corpus.lines(4000), b"garbage\n", *_ours * 200]
    log.write_bytes(b"".join(lines))
    checker = Checker(LIMIT, 10, lambda _: None, NOW)
    one_by_one = []
    monkeypatch.setattr(checker, "_line", lambda *arguments: one_by_one.append(arguments))
    checker.check(log)
    # Besides the garbage, where the one dialect ends and the other begins.
    assert len(one_by_one) < 40
    assert checker.report.valid == len(lines) - len(one_by_one)
    assert 0 < checker.report.sampled < len(lines)


def _tags(**tag: object) -> bytes:
    return hostile.line(hostile.v1("tags", tags=[{"name": "n", "type": "label", "value": "v", **tag}]))


def _at(moment: datetime) -> bytes:
    return hostile.line(hostile.v1(message="m", ts=moment.isoformat())).replace(
        b'"v": 1, "kind": ', b'"v":1,"kind":'
    )


SUSPICIOUS = {
    "future_time": (_at(NOW + timedelta(hours=1)), "2026-11-20T10"),
    "old_time": (_at(datetime(1970, 1, 20, tzinfo=UTC)), "1970"),
    "time_goes_back": (_at(NOW) + _at(NOW - timedelta(hours=3)), "2026-11-20T06"),
    "huge_line": (hostile.line(hostile.v1("object", ref="r", data="z" * 2_000_000)), "MiB"),
    "not_a_number": (_tags(value=float("nan"), type="metric"), "n=NaN"),
    "metric_is_text": (_tags(value="fast", type="metric"), "n=fast"),
    "unknown_field": (hostile.line(hostile.v1(message="m", mesage="m")), "text.mesage"),
    "unknown_field of a tag": (_tags(unit="ms"), "tag.unit"),
    "unknown_field of raymon": (_raymon[0].replace(b'"ref"', b'"reff": 1, "ref"'), "jcr.reff"),
    "many_values": (b"".join(_tags(value=f"request {n}") for n in range(600)), "600 values"),
    "many_names": (b"".join(_tags(name=f"tag{n}") for n in range(1100)), "1,100 names"),
}


@pytest.mark.parametrize("what", SUSPICIOUS)
def test_what_is_suspicious_is_named(what: str, tmp_path: Path) -> None:
    """Each odd thing is named with its first line, and nothing else is; the lines are valid all the same."""
    log = tmp_path / "app.log"
    odd, says = SUSPICIOUS[what]
    log.write_bytes(b"".join(_ours) + odd)
    report = checked(log, 8 << 20)
    assert report.invalid == 0
    (found,) = report.suspicions
    assert found.what == what.split()[0]
    assert says in found.detail
    line = 22 if what == "time_goes_back" else 21
    assert found.first == f"{log}:{line}"


def test_nothing_is_suspicious_of_usual_lines(tmp_path: Path) -> None:
    """The benchmark's lines and ours are fine, and so are two files of which one is older than the other."""
    checker = Checker(LIMIT, 10, lambda _: None, NOW)
    for name, lines in (("new.log", list(corpus.lines(300))), ("old.log", [_at(NOW - timedelta(days=30))])):
        (tmp_path / name).write_bytes(b"".join(lines))
        checker.check(tmp_path / name)
    assert checker.report.suspicions == []
    assert json.dumps(checker.report.kinds)
