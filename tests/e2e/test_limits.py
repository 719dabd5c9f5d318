"""What is too much of anything becomes a dead letter or a refusal, and holds nothing else up."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import cramjam
import lz4.frame
import pytest

from support import hostile
from tailrace import Trace
from tailrace.explorer.front.body import receive
from tailrace.explorer.front.codecs import decoder
from tailrace.explorer.front.intake import Intake
from tailrace.explorer.front.refusal import Refusal
from tailrace.ingestor.backfill import sources
from tailrace.ingestor.backfill.sources import Source, SourceError, opened, reading
from tailrace.ingestor.decode import BatchDecoder, DecodedBatch
from tailrace.schemas.limits import MAX_TAGS
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef
from tailrace.testing import MemoryLogger
from tailrace.trace import MAX_TAGS as CLIENT_MAX_TAGS

LIMIT = 100_000
TS = "2026-11-20 08:00:00.000001+00:00"


def decode(data: bytes, max_line_bytes: int = 64 << 20) -> DecodedBatch:
    """A file's lines as a batch."""
    batch = BatchDecoder(max_line_bytes)
    batch.add_chunk(FileChunk(FileRef("f", "/f.log"), BytePosition(0), BytePosition(len(data)), data))
    return batch.finish()


def tags(count: int, name: str = "n") -> list[dict[str, object]]:
    return [{"name": name, "value": 1, "type": "label", "group": None}] * count


def raymon(kind: str, data: object) -> bytes:
    jcr = {"timestamp": TS, "trace_id": "t", "ref": None, "data": data, "project_id": "p"}
    return hostile.line({"type": kind, "jcr": jcr})


def raymon_api(data: object) -> bytes:
    return hostile.line({"dtype": "tags", "timestamp": TS, "trace_id": "t", "project_id": "p", "data": data})


TOO_MUCH = {
    "line": (hostile.line(hostile.v1(message="x" * LIMIT)), "too_long"),
    "line without an end of JSON": (b"y" * (LIMIT + 1) + b"\n", "too_long"),
    "tags": (hostile.line(hostile.v1("tags", tags=tags(MAX_TAGS + 1))), "wrong_shape"),
    "tags of raymon": (raymon("tags", tags(MAX_TAGS + 1)), "wrong_shape"),
    "tags of raymon's API": (raymon_api(tags(MAX_TAGS + 1)), "wrong_shape"),
    "name of a tag": (hostile.line(hostile.v1("tags", tags=tags(1, "n" * 1025))), "wrong_shape"),
    "project": (hostile.line(hostile.v1(message="m", project_id="p" * 1025)), "wrong_shape"),
    "trace id": (hostile.line(hostile.v1(message="m", trace_id="t" * 1025)), "wrong_shape"),
    "depth": (
        hostile.line(hostile.v1("object", ref="r", data="?")).replace(b'"?"', b"[" * 5000 + b"]" * 5000),
        "too_deep",
    ),
    "depth of objects": (
        hostile.line(hostile.v1("object", ref="r", data="?")).replace(
            b'"?"', b'{"a":' * 5000 + b"1" + b"}" * 5000
        ),
        "too_deep",
    ),
    "digits": (
        hostile.line(hostile.v1("tags", tags=tags(1))).replace(b'"value": 1', b'"value": ' + b"9" * 5000),
        "wrong_shape",
    ),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_of_anything_is_a_dead_letter(what: str) -> None:
    """The line is kept with the reason; those before and behind it are rows."""
    line, reason = TOO_MUCH[what]
    limit = LIMIT if reason == "too_long" else 64 << 20
    batch = decode(hostile.neighbour(0) + line + hostile.neighbour(1), limit)
    (letter,) = batch.dead_letters
    assert letter.reason == reason
    assert letter.length == len(line) - 1
    assert batch.rows == 2


def test_just_enough_is_a_row() -> None:
    """At the limit of tags and of a name's length a line is still a record."""
    many = hostile.line(hostile.v1("tags", tags=tags(MAX_TAGS)))
    long = hostile.line(hostile.v1("tags", tags=tags(1, "é" * 1024), trace_id="u"))
    assert decode(many + long).rows == 2


@pytest.mark.parametrize("how", [list, iter])
def test_the_client_writes_no_line_that_is_refused(how: Callable[[object], object]) -> None:
    """More tags than a line may have are written as several lines; all of them arrive."""
    assert CLIENT_MAX_TAGS == MAX_TAGS
    logger = MemoryLogger(project_id="p")
    given = [{"name": "n", "value": number, "type": "label"} for number in range(MAX_TAGS + 5)]
    Trace(logger=logger, trace_id="t").tag(how(given))  # type: ignore[arg-type]
    lines = logger.lines
    assert [len(line["tags"]) for line in lines] == [MAX_TAGS, 5]
    assert [tag["value"] for line in lines for tag in line["tags"]] == list(range(MAX_TAGS + 5))


ZEROS = bytes(70_000_000)
PACKED = {
    "identity": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
    "lz4": lz4.frame.compress,
    "br": lambda data: bytes(cramjam.brotli.compress(data, level=1)),
}


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 16):
        yield data[start : start + (1 << 16)]


@pytest.mark.parametrize("coding", PACKED)
def test_a_body_that_unpacks_to_too_much_is_refused(tmp_path: Path, coding: str) -> None:
    """Statement and lines alike get 413, whatever packs them and however little it is; what fits is taken afterwards."""
    body = PACKED[coding](b"INSERT INTO t FORMAT LineAsString\n" + ZEROS[: 4 << 20])

    async def send() -> None:
        with pytest.raises(Refusal) as refused:
            await receive(pieces(body), coding, b"", "TSV", tmp_path, 1_000_000)
        assert refused.value.status == 413
        intake = Intake(tmp_path / "lines", max_body_bytes=1_000_000)
        with pytest.raises(Refusal) as refused:
            await intake.take(pieces(body), coding, "")
        assert refused.value.status == 413
        assert await intake.take(pieces(PACKED[coding](b"{}\n{}\n")), coding, "") == 2

    asyncio.run(send())


def test_brotli_never_has_more_room_than_it_is_given() -> None:
    """It is unpacked as a whole: a body over its own limit is refused also where the server's is larger."""
    unpacker = decoder("br")
    assert unpacker.decode(PACKED["br"](ZEROS), 1 << 40) == b""
    with pytest.raises(Refusal) as refused:
        unpacker.finish(1 << 40)
    assert refused.value.status == 413


ARCHIVED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": PACKED["zstd"],
}


def unpacked(path: Path) -> int:
    """How many bytes a source holds; reads them as a backfill does."""
    total = 0
    with opened(Source(str(path))) as source:
        for stream in source.streams():
            with reading():
                while block := stream.file.read(1 << 16):
                    total += len(block)
    return total


@pytest.mark.parametrize("ending", ARCHIVED)
def test_an_old_file_that_is_a_bomb_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """It is named as an error after so many bytes; a log that packs well is no bomb, and a bomb in a bomb is one."""
    monkeypatch.setattr(sources, "BOMB_BYTES", 1 << 20)
    bomb = tmp_path / f"bomb.{ending}"
    bomb.write_bytes(ARCHIVED[ending](bytes(4 << 20)))
    with pytest.raises(SourceError, match="this is no log"):
        unpacked(bomb)
    noise = random.Random(1)
    log = b"".join(hostile.neighbour(noise.randrange(1000)) for _ in range(10_000))
    (tmp_path / f"log.{ending}").write_bytes(ARCHIVED[ending](log))
    assert unpacked(tmp_path / f"log.{ending}") == len(log)


def test_reading_of_a_bomb_stops_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it has been unpacked, but when it is known to be one."""
    monkeypatch.setattr(sources, "BOMB_BYTES", 1 << 20)
    file = sources._uncompressed(io.BytesIO(PACKED["zstd"](ZEROS)))
    read = 0
    with pytest.raises(SourceError):
        while block := file.read(1 << 16):
            read += len(block)
    assert read <= 1 << 22
