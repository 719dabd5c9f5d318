"""Lines into batches: everything is accounted for, and the same bytes give the same batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import corpus
from support import hostile
from tailrace.ingestor import compiled, intents
from tailrace.ingestor.batch import Gathering, is_due, split_full
from tailrace.ingestor.columns import (
    BOOL,
    JSON,
    NULL,
    NUMBER,
    STRING,
    LogColumns,
    RecordColumns,
    tag_value,
)
from tailrace.ingestor.decode import BatchDecoder, DecodedBatch, Message
from tailrace.ingestor.settings import BatchLimits, RetryPolicy
from tailrace.schemas.dialects.recognise import LineDecoder
from tailrace.schemas.errors import Reason
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef, KafkaOffset

LIMIT = 8 * 1024 * 1024


@pytest.fixture(scope="module", params=["compiled", "python"], autouse=True)
def decoder(request: pytest.FixtureRequest) -> Iterator[str]:
    """What is promised of lines holds of both decoders."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setenv("TAILRACE_PURE_PYTHON", "1")
        elif not compiled.is_available():
            assert shutil.which("cargo") is None, "the decoder can be compiled here, and is not"
            pytest.skip("nothing compiles the decoder here")
        yield request.param


SMALL_CASES = [case for case in hostile.CASES if len(case.data) < 3_000]

contents = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([case.data for case in SMALL_CASES])
    | st.just(hostile.neighbour(0)),
    max_size=20,
).map(lambda parts: b"\n".join(parts))


def chunk(data: bytes, start: int = 0) -> FileChunk:
    return FileChunk(FileRef("f", "/f.log"), BytePosition(start), BytePosition(start + len(data)), data)


def decode(*chunks: FileChunk) -> DecodedBatch:
    decoder = BatchDecoder(LIMIT)
    for each in chunks:
        decoder.add_chunk(each)
    return decoder.finish()


def rows(batch: DecodedBatch) -> list[tuple[str, list[dict[str, object]]]]:
    return [(table, columns.to_pylist()) for table, columns in batch.tables]


@given(contents)
def test_lines_are_rows_dead_letters_or_blank(content: bytes) -> None:
    """Whatever the bytes, each line is counted once, and the counts are those of what is there."""
    batch = decode(chunk(content))
    (span,) = batch.spans
    assert span.lines == content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
    assert span.lines == span.rows + span.dead_letters + span.blank
    assert span.rows == sum(table.num_rows for _, table in batch.tables)
    assert span.dead_letters == len(batch.dead_letters)
    for letter in batch.dead_letters:
        assert content[letter.origin.byte :].startswith(letter.raw)


@pytest.mark.parametrize("where", ["read", "columns", "arrow"])
def test_a_line_on_which_this_program_fails_is_a_dead_letter(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever on its way a line runs into a fault of ours, it alone is lost for the tables; it keeps its bytes and its place."""
    monkeypatch.setenv("TAILRACE_PURE_PYTHON", "1")
    lines = [hostile.neighbour(number) for number in range(50)]
    bad = lines[20].replace(b'"message"', b'"message": "boom", "was"')
    assert b"boom" in bad
    lines[20] = bad

    class Bug(Exception):
        pass

    def fails(owner: type, name: str, is_bad: Callable[..., bool]) -> None:
        works = getattr(owner, name)

        def failing(self: Any, *arguments: Any) -> Any:
            if is_bad(self, *arguments):
                raise Bug("so it is")
            return works(self, *arguments)

        monkeypatch.setattr(owner, name, failing)

    if where == "read":
        fails(LineDecoder, "decode", lambda _, line: b"boom" in line)
        fails(LineDecoder, "decode_all", lambda _, block: b"boom" in block)
    elif where == "columns":
        fails(RecordColumns, "extend", lambda _, records, *__: any(r.message == "boom" for r in records))
    else:
        fails(LogColumns, "own", lambda self: "boom" in self.message)
    batch = decode(chunk(b"".join(lines)))
    (span,), (letter,) = batch.spans, batch.dead_letters
    assert (span.lines, span.rows, span.dead_letters) == (50, 49, 1)
    assert (letter.reason, letter.raw) == (Reason.FAULT, bad.removesuffix(b"\n"))
    assert letter.origin.byte == sum(map(len, lines[:20]))
    assert "Bug: so it is" in letter.detail


def test_a_fault_of_the_compiled_decoder_costs_no_line(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it fails, all lines of its batch are decoded in Python."""
    if decoder == "python":
        pytest.skip("of the other decoder")

    def fails(*_: object) -> None:
        raise RuntimeError("so it is")

    lines = [hostile.neighbour(number) for number in range(50)]
    before = rows(decode(chunk(b"".join(lines))))
    monkeypatch.setattr(compiled.CompiledColumns, "add", fails)
    batch = decode(chunk(b"".join(lines)))
    assert rows(batch) == before
    assert not batch.dead_letters


def test_what_clients_write_is_decoded_by_compiled_code(decoder: str) -> None:
    """Lines of both clients take the fast way, whatever is in them; and become what Python makes of them."""
    if decoder == "python":
        pytest.skip("of the other decoder")
    data = b"".join(corpus.lines(2_000)) + b"".join(
        case.data for case in hostile.CASES if case.name == "1,000 tags"
    )
    columns = compiled.CompiledColumns(LIMIT)
    assert columns.add(data) == (2_001, 2_001, [])
    fast = rows(decode(chunk(data)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILRACE_PURE_PYTHON", "1")
        assert repr(rows(decode(chunk(data)))) == repr(fast)


def test_text_that_utf8_cannot_hold_joins_others() -> None:
    """Half a surrogate pair in one line makes no dead letter of another whose row goes to the same table."""
    lines = [
        hostile.line(hostile.v1("event_start", event_id="e", event_type="TOOL", name="half \ud800")),
        hostile.line(hostile.v1("event_end", event_id="e", error="none")),
        hostile.line(hostile.v1("event_start", event_id="e", event_type="TOOL", name="whole")),
    ]
    batch = decode(chunk(b"".join(lines)))
    assert not batch.dead_letters
    ((table, events),) = rows(batch)
    assert table == "event_lines"
    assert {event["name"] for event in events} == {b"half \xed\xa0\x80", b"whole", b""}


@given(contents, st.data())
def test_a_batch_does_not_depend_on_how_it_was_cut(content: bytes, data: st.DataObject) -> None:
    """The same range gives the same batch, in one chunk or in many: so inserting it again is harmless."""
    lines = content.split(b"\n")
    pieces = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    cut = data.draw(st.integers(0, len(pieces)))
    first, second = b"".join(pieces[:cut]), b"".join(pieces[cut:])
    whole, parts = decode(chunk(content)), decode(chunk(first), chunk(second, len(first)))
    assert repr(rows(whole)) == repr(rows(parts))  # by text, since NaN equals nothing
    assert list(whole.dead_letters) == list(parts.dead_letters)
    assert [asdict(span) for span in whole.spans] == [asdict(span) for span in parts.spans]


def test_a_kafka_message_may_hold_several_lines() -> None:
    """Each is counted; a dead letter among them says which it was; the origin in the key is carried along."""
    content = hostile.neighbour(0) + b"garbage\n" + hostile.neighbour(1)
    decoder = BatchDecoder(LIMIT)
    decoder.add_messages("t", 3, 10, 12, [Message(10, content, b"file@500"), Message(11, None)])
    batch = decoder.finish()
    (letter,) = batch.dead_letters
    assert (letter.origin.item, letter.origin.offset, letter.origin.partition) == (1, 10, 3)
    assert (letter.origin.file_id, letter.origin.byte) == ("file", 500 + len(hostile.neighbour(0)))
    assert (batch.spans[0].lines, batch.spans[0].rows, batch.spans[0].blank) == (4, 2, 1)


@pytest.mark.parametrize(
    ("value", "tag_type", "expected"),
    [
        ("120", "metric", (NUMBER, "120", 120.0)),
        ("1.50", "metric", (NUMBER, "1.50", 1.5)),
        ("1e3", "metric", (NUMBER, "1e3", 1000.0)),
        ("NaN", "metric", (NUMBER, "NaN", float("nan"))),
        ("-Infinity", "metric", (NUMBER, "-Infinity", float("-inf"))),
        ("nan", "metric", (STRING, "nan", float("nan"))),
        ("1_000", "metric", (STRING, "1_000", float("nan"))),
        ("1e999", "metric", (STRING, "1e999", float("nan"))),
        ("١٢", "metric", (STRING, "١٢", float("nan"))),
        ("fast", "metric", (STRING, "fast", float("nan"))),
        ("120", "label", (STRING, "120", float("nan"))),
        (120, "label", (NUMBER, "120", 120.0)),
        (0.1, "label", (NUMBER, "0.1", 0.1)),
        (10**400, "metric", (NUMBER, "1" + "0" * 400, float("inf"))),
        (True, "label", (BOOL, "true", 1.0)),
        (None, "label", (NULL, "null", float("nan"))),
        ({"a": [1]}, "label", (JSON, '{"a":[1]}', float("nan"))),
    ],
)
def test_what_a_tag_value_is(value: object, tag_type: str, expected: tuple[int, str, float]) -> None:
    """Numbers are numbers, also as text where the type says metric; every value keeps its text."""
    assert repr(tag_value(value, tag_type)) == repr(expected)


messages = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 50)), min_size=1, max_size=30)


@given(messages, st.integers(1, 10), st.integers(1, 200))
def test_splitting_a_batch_keeps_every_message_in_one_range(
    steps: list[tuple[int, int]], most: int, most_bytes: int
) -> None:
    """Cut over and over, ranges follow on each other, hold their messages, know when the first of them came, and respect the limits."""
    offset, gathered = 100, []
    for step, size in steps:
        offset += step
        gathered.append(Message(offset, b"x\n" * (size // 2)))
    end = KafkaOffset(offset + 7)
    rest = Gathering(KafkaOffset(100), KafkaOffset(100))
    for number, message in enumerate(gathered):
        rest.add([message], KafkaOffset(message.offset + 1), now=float(number))
    rest.add([], end, now=-1.0)
    seen: list[Message] = []
    position = KafkaOffset(100)
    limits = BatchLimits(rows=most, bytes=most_bytes, seconds=1)
    while rest.messages:
        batch, rest = split_full(rest, limits)
        assert batch.start == position
        assert batch.since == gathered.index(batch.messages[0])
        assert all(batch.start <= message.offset < batch.end for message in batch.messages)
        assert batch.lines == sum(1 + (m.value or b"").count(b"\n") for m in batch.messages)
        assert batch.bytes == sum(len(m.value or b"") for m in batch.messages)
        assert len(batch.messages) == 1 or (batch.lines <= most and batch.bytes <= most_bytes)
        position = batch.end
        seen += batch.messages
    assert (seen, position) == (gathered, end)


def test_when_a_batch_is_due() -> None:
    """By age, lines or bytes; never when it is empty."""
    limits = BatchLimits(rows=2, bytes=10, seconds=1.0)
    gathering = Gathering(KafkaOffset(0), KafkaOffset(0))
    assert not is_due(gathering, limits, now=100.0)
    gathering.add([Message(0, b"x")], KafkaOffset(1), now=100.0)
    assert not is_due(gathering, limits, now=100.9)
    assert is_due(gathering, limits, now=101.0)
    gathering.add([Message(1, b"x")], KafkaOffset(2), now=100.5)
    assert is_due(gathering, limits, now=100.5)


@given(st.integers(0, 2**62), st.integers(1, 2**20), st.floats(0, 4e9))
def test_an_intent_comes_back_from_the_metadata(start: int, length: int, at: float) -> None:
    """What is committed is what the next owner reads; anything else in that field is no intent."""
    found = intents.decode(start, intents.encode(KafkaOffset(start + length), at))
    assert (found.start, found.end) == (start, start + length)
    for foreign in ("", "hello", "{}", '{"end":"x"}', intents.encode(KafkaOffset(start), at)):
        assert intents.decode(start, foreign).end is None


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_retries_wait_longer_and_longer_up_to_a_limit(attempt: int, random: float) -> None:
    """A delay never exceeds the longest, nor falls below half of what doubling gives."""
    policy = RetryPolicy(first=0.2, longest=15.0)
    delay = policy.delay(attempt, random)
    assert min(15.0, 0.2 * 2.0 ** min(attempt - 1, 30)) / 2 <= delay <= 15.0


@pytest.mark.parametrize(
    "odd",
    [
        {"count": -1},
        {"count": 2**63},
        {"count": 1.5},
        {"sequence": 10**30},
        {"bins": [2**31]},
        {"bins": [None]},
        {"bin_counts": [-1]},
        {"seconds": -1.0},
        {"subject": "weather"},
        {"instance": ""},
        {"deployment": ""},
    ],
)
def test_statistics_that_no_column_can_hold_are_dead_letters(odd: dict[str, object]) -> None:
    """A number out of its column's range is found where the line is read, never when the batch is put together."""
    fields = {"deployment": "d", "seconds": 1.0, "instance": "i", "sequence": 1, "subject": "feature"}
    good, bad = (
        json.dumps(hostile.v1("statistics", **each)).encode() for each in (fields, {**fields, **odd})
    )
    batch = decode(chunk(good + b"\n" + bad + b"\n"))
    assert [(table, len(columns)) for table, columns in batch.tables] == [("statistics", 1)]
    assert [letter.raw for letter in batch.dead_letters] == [bad]
