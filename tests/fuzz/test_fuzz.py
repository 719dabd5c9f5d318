"""Mutated input for everything that reads what strangers write. Each property has a short form here and a long one with `-m soak`."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import random
import time
from collections.abc import Callable, Sequence

import cramjam
import lz4.frame
import pytest

from benchmarks import corpus
from support import hostile
from tailrace.explorer import parse_slice
from tailrace.explorer.front.codecs import decoder
from tailrace.explorer.front.guard import Guard
from tailrace.explorer.front.refusal import Refusal
from tailrace.explorer.front.statement import parse as parse_statement
from tailrace.ingestor.backfill.sources import Opened, Source, SourceError, reading
from tailrace.ingestor.decode import BatchDecoder, LineReader, Message
from tailrace.schemas.dialects.many import ManyReader
from tailrace.schemas.errors import RecordError, SliceError

SOME, LONG_SECONDS = 150, 60.0
LINE_BYTES = 1 << 20
READER, MANY = LineReader(LINE_BYTES), ManyReader()

_TAGS = [
    {"name": "client", "value": "acme", "type": "label", "group": None},
    {"name": "latency_ms", "value": "120.5", "type": "metric", "group": "g"},
    {"name": "odd", "value": {"a": [1, None, True, 1.5e300]}, "type": "error"},
]
_JCR = {"timestamp": hostile.TS, "trace_id": "t", "project_id": "p", "ref": "r"}
_KINDS: dict[str, dict[str, object]] = {
    "text": {"message": "m", "level": "info"},
    "tags": {"tags": _TAGS},
    "object": {"ref": "r", "type": "tailrace.Native", "data": {"foo": ["bar", 1, None]}},
    "trace": {"name": "n", "conversation_id": "c", "user": {"id": 1}, "metadata": {"a": 1}},
    "event_start": {"event_id": "e", "event_type": "TOOL", "input": {"x": 1}, "attributes": {"gen_ai.a": 2}},
    "event_end": {"event_id": "e", "output": [1], "status": "ok", "usage": {"gen_ai.usage.input_tokens": 3}},
    "feedback": {"feedback_tag": "f", "score": 0.5},
    "prediction": {"deployment": "d", "features": {"a": 1}, "prediction": [0.1]},
    "ground_truth": {"deployment": "d", "label": 1, "segments": {"s": "v"}},
    "exception": {"deployment": "d", "message": "m", "stack_trace": "s"},
    "metadata": {"deployment": "d", "entries": {"a": 1}},
}
LINES = [
    *(hostile.line(hostile.v1(kind, **fields)) for kind, fields in _KINDS.items()),
    *(case.data for case in hostile.CASES if len(case.data) < 3_000),
    hostile.line({"type": "tags", "jcr": {**_JCR, "data": _TAGS}}),
    hostile.line({"type": "info", "jcr": {**_JCR, "data": "x"}}),
    hostile.line(
        {"type": "data", "jcr": {**_JCR, "data": {"type": "raymon.types.Native", "params": {"data": 1}}}}
    ),
    hostile.line({"dtype": "tags", **_JCR, "data": _TAGS}),
    hostile.line({"log": hostile.line(hostile.v1(message="in an envelope")).decode()}),
]
_VALUES: list[object] = [
    1,
    -1,
    0,
    -0.0,
    1.5,
    1e-5,
    1e16,
    1e22,
    0.1 + 0.2,
    123456789012345678.0,
    10**18,
    10**19,
    True,
    False,
    None,
]
_VALUES += [
    "12",
    " 12",
    "12 ",
    "\t1",
    "1e5",
    ".5",
    "5.",
    "+1",
    "1_0",
    "0x10",
    "NaN",
    "inf",
    "\u00a012",
    "é",
    'q"b\\s/\n',
    "😀",
]
_TIMES = ["2026-11-20T08:00:00Z", "2024-02-29 23:59:59+00:00", "2023-02-29T00:00:00Z", "2026-11-20T08:00:60Z"]
_TIMES += [
    "1900-01-01T00:00:00Z",
    "2299-12-31T23:59:59.999999Z",
    "2300-01-01T00:00:00Z",
    "2026-11-20T08:00:00.123Z",
]
_IDS = [
    "0199a0b0-1111-7abc-8abc-0123456789ab",
    "019AA0B011117abc8abc0123456789ab",
    "019aa0b01-111-7abc-8abc-0123456789ab",
]
DECODED = [
    *LINES,
    *corpus.lines(10),
    *(
        hostile.line(
            hostile.v1("tags", tags=[{"name": "n", "value": value, "type": kind, "group": "g", "x": [1]}])
        )
        for value in _VALUES
        for kind in ("metric", "label")
    ),
    *(
        hostile.line(hostile.v1("trace", user=user))
        for user in ("u", "ü", 'q"', "a\x7fb", "a\nb", {"id": "5"})
    ),
    *(
        hostile.line(hostile.v1(message="m", trace_id=trace_id, ts=ts, trace_ts=_TIMES[0]))
        for trace_id in _IDS
        for ts in _TIMES
    ),
]
"""What the compiled decoder and the ones in Python have to read alike."""
_BITS = [
    b'"',
    b"\\",
    b"\\u",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xe2\x80",
]
_BITS += [
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-0",
    b"9" * 30,
    b'"kind"',
    b'"jcr"',
    b'"log"',
    b'"ts"',
    b"true",
    b"{}",
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"1.0",
    b"0.10",
    b"01",
    b"\x7f",
    b'"params"',
    b'"ty\\u0070e"',
    b'"v":1,',
    b"[[[[",
    b"2026-11-20T08:00:00Z",
]
SLICES = [
    "client==acme && latency_ms>=120.5",
    'a!="x y" || (b<1.10.0 && !tagtype(error))',
    "taggroup(g) && trace(x-1) && day<=2026-11-20",
    'name=~"^a.*b$" && tagname("é\\u00e9")',
    "error || v>v2-rc1",
]
_SLICE_BITS = [
    "&&",
    "||",
    "!",
    "(",
    ")",
    '"',
    "\\",
    "==",
    "=~",
    ">=",
    "<",
    "tagtype(",
    "1.2.3",
    "-1e5",
    "é",
    "\u2028",
    "\0",
    "'",
]
STATEMENTS = [
    b"SELECT a, count() FROM t WHERE x = {p:String} GROUP BY a FORMAT TSV",
    b'INSERT INTO t (a, b) FORMAT JSONEachRow\n{"a":1}',
    b"INSERT INTO t VALUES (1, 'x'), (2, 'y''z')",
    b"WITH 1 AS x SELECT /* c */ `q``r`.\"s\" FROM file('/etc/passwd') -- end",
    b"CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS index_granularity = 1",
]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
    "lz4": lz4.frame.compress,
    "br": lambda data: bytes(cramjam.brotli.compress(data)),
    "identity": lambda data: data,
}


def mutated(data: bytes, noise: random.Random, bits: Sequence[bytes]) -> bytes:
    """Some bytes changed, cut, doubled, or replaced by something that means something."""
    changed = bytearray(data)
    for _ in range(noise.choice((0, 1, 1, 2, 3, 8))):
        at = noise.randrange(len(changed) + 1)
        end = min(len(changed), at + noise.choice((1, 1, 2, 5, 40)))
        match noise.randrange(5):
            case 0:
                changed[at:end] = noise.randbytes(end - at)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end]
            case 3:
                changed[at:at] = noise.choice(bits)
            case _:
                changed[at:end] = noise.choice(bits)
    return bytes(changed)


def lines_are_records_or_dead_letters(noise: random.Random) -> None:
    """A reader raises nothing but `RecordError`, a batch accounts for every line, and what reads many at once agrees."""
    lines = [mutated(noise.choice(LINES), noise, _BITS) for _ in range(noise.choice((1, 3, 20)))]
    data = b"".join(lines)
    batch = BatchDecoder(LINE_BYTES)
    key = noise.choice((None, b"f@17", b"f@", b"\xff@1", b"@", b"f@99999999999999999999"))
    batch.add_messages("t", 0, 0, 2, [Message(0, data, key), Message(1, None, key, noise.choice((0, 5)))])
    decoded = batch.finish()
    (span,) = decoded.spans
    assert span.lines == span.rows + span.dead_letters + span.blank
    assert span.rows == sum(table.num_rows for _, table in decoded.tables)
    for line in data.split(b"\n"):
        try:
            READER.read(line)
        except RecordError as error:
            assert error.column is None or 0 <= error.column <= len(line)
    whole = [line + b"\n" for line in data.split(b"\n") if line]
    many = MANY.read(whole) if whole else None
    if many is not None:
        assert all(READER.read(line.removesuffix(b"\n")).dialect == many.dialect for line in whole)


def both_decoders_agree(noise: random.Random) -> None:
    """Compiled code and Python make the same rows, dead letters and counts of the same lines."""
    lines = []
    for _ in range(noise.choice((1, 3, 20))):
        line = noise.choice(DECODED)
        if noise.random() < 0.5:
            line = b'{"v":1,"kind":' + line.removeprefix(b'{"v": 1, "kind": ')
        lines.append(mutated(line, noise, _BITS))
    batches = []
    for pure in ("", "1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TAILRACE_PURE_PYTHON", pure)
            decoder = BatchDecoder(LINE_BYTES)
        decoder.add_messages("t", 0, 0, 1, [Message(0, b"".join(lines), b"f@17")])
        batch = decoder.finish()
        rows = sorted((table, sorted(map(repr, found.to_pylist()))) for table, found in batch.tables)
        batches.append((rows, list(batch.dead_letters), list(batch.spans)))
    assert batches[0] == batches[1]


def slices_are_read_or_refused(noise: random.Random) -> None:
    """A slice string is conditions, or an error with a column in it."""
    bits = [bit.encode() for bit in _SLICE_BITS]
    text = mutated(noise.choice(SLICES).encode(), noise, bits).decode(
        "utf-8", noise.choice(("replace", "surrogateescape"))
    )
    try:
        parse_slice(text)
    except SliceError as error:
        assert 0 <= error.column <= len(text)


def old_files_are_read_or_named(noise: random.Random) -> None:
    """A damaged, cut or renamed archive is read as far as it goes, or is a `SourceError`."""
    pack = noise.choice([gzip.compress, bz2.compress, lzma.compress, PACK["zstd"], PACK["lz4"], bytes, _tar])
    data = pack(b"".join(noise.choices(LINES, k=5)))
    if noise.random() < 0.2:
        data = gzip.compress(data)
    source = Opened(
        Source("/x"), io.BytesIO(mutated(data, noise, [b"\x1f\x8b\x08", b"ustar", b"\0" * 600, data[:100]]))
    )
    total = 0
    try:
        for stream in source.streams():
            with reading():
                while block := stream.file.read(1 << 12):
                    total += len(block)
    except SourceError:
        pass
    # What is damaged within a block of bzip2 is noticed at its end, up to 45 MB later.
    assert total < 64 << 20


def _tar(data: bytes) -> bytes:
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("a.log", "d/../b.log", "/c.log"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def bodies_are_taken_or_refused(noise: random.Random) -> None:
    """A body that is damaged or too large is refused, however it was cut on its way."""
    coding = noise.choice(list(PACK))
    plain = b"".join(noise.choices(LINES, k=3))
    packed = PACK[coding](plain)
    sent = mutated(packed, noise, [packed[:9], b"\xff" * 8])
    limit = noise.choice((10, len(plain), 1 << 16))
    unpacker, got, at = decoder(coding), bytearray(), 0
    try:
        while at < len(sent):
            step = noise.choice((1, 7, 1000))
            got += unpacker.decode(sent[at : at + step], limit - len(got))
            at += step
        got += unpacker.finish(limit - len(got))
    except Refusal:
        return
    assert len(got) <= limit
    assert sent != packed or bytes(got) == plain


def statements_are_read_or_refused(noise: random.Random) -> None:
    """SQL of any shape passes the guard or is refused; nothing else happens."""
    bits = [
        b"'",
        b"`",
        b'"',
        b"/*",
        b"*/",
        b"--",
        b"(",
        b")",
        b";",
        b"\\",
        b"\0",
        b"\xff",
        b" FORMAT ",
        b"file('/x')",
        b"$$",
    ]
    text = mutated(noise.choice(STATEMENTS), noise, bits)
    try:
        statement = parse_statement(text, "TSV")
        Guard(("file", "url", "numbers")).check(statement.tokens, "tailrace", {})
    except Refusal:
        return
    assert -1 <= statement.data_at <= len(text)


PROPERTIES = [
    both_decoders_agree,
    lines_are_records_or_dead_letters,
    slices_are_read_or_refused,
    old_files_are_read_or_named,
    bodies_are_taken_or_refused,
    statements_are_read_or_refused,
]


def _hold(check: Callable[[random.Random], None], name: str) -> None:
    try:
        check(random.Random(name))
    except BaseException as exc:
        exc.add_note(f"{check.__name__}(random.Random({name!r}))")
        raise


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
def test_it_holds_for_some(check: Callable[[random.Random], None]) -> None:
    """The same inputs every time; see each property's own sentence."""
    for number in range(SOME):
        _hold(check, f"1.{number}")


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
def test_it_holds_for_many(check: Callable[[random.Random], None]) -> None:
    """Other inputs every time, for a minute; a failure names the seed that brings it back."""
    seed, until = time.time_ns(), time.monotonic() + LONG_SECONDS
    for number in itertools.count():
        _hold(check, f"{seed}.{number}")
        if time.monotonic() > until:
            return
