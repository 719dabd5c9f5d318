"""Where ranges are cut: a function of the content, however it is read."""

from __future__ import annotations

from collections.abc import Iterator

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tailrace.ingestor.backfill.split import Range, Splitter

LIMIT = 64
LINE = st.binary(max_size=90).map(lambda line: line.replace(b"\n", b"."))
CONTENT = st.lists(LINE, max_size=40).map(b"\n".join)


def nothing(_: int) -> dict[int, str]:
    return {}


def blocks(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    at, turn = 0, 0
    while at < len(content):
        size = sizes[turn % len(sizes)]
        yield content[at : at + size]
        at, turn = at + size, turn + 1


def split(
    content: bytes,
    every: int,
    sizes: list[int],
    start: int = 0,
    whole: bool = True,
    known: dict[int, dict[int, str]] | None = None,
) -> list[Range]:
    ends = known or {}
    splitter = Splitter(start, every, LIMIT, lambda at: ends.get(at, {}))
    found = [r for block in blocks(content[start:], sizes) for r in splitter.feed(block)]
    return found + list(splitter.finish(whole))


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@given(CONTENT, st.integers(1, 200), SIZES, SIZES)
def test_cut_alike_however_it_is_read(
    content: bytes, every: int, sizes: list[int], others: list[int]
) -> None:
    """Ranges follow on one another, hold every byte, end at the first line end at or after each multiple of `every`, have
    the digest of their bytes, and do not depend on the blocks."""
    ranges = split(content, every, sizes)
    assert [(r.start, r.end, r.digest) for r in ranges] == [
        (r.start, r.end, r.digest) for r in split(content, every, others)
    ]
    position = 0
    for found in ranges:
        assert found.start == position < found.end
        position = found.end
        assert found.digest == xxhash.xxh3_128_hexdigest(content[found.start : found.end])
        target = (found.start // every + 1) * every
        if found.end < len(content):
            assert found.end == content.index(b"\n", max(target - 1, found.start)) + 1
    assert position == len(content)


@given(CONTENT, st.integers(1, 200), SIZES)
def test_pieces_are_the_lines(content: bytes, every: int, sizes: list[int]) -> None:
    """The pieces of all ranges are the content: whole lines as they are, a line over the limit by its head and its place."""
    lines: list[bytes] = []
    position = 0
    for found in split(content, every, sizes):
        for piece in found.pieces:
            assert piece.start == position
            position = piece.end
            if piece.oversized is not None:
                line = content[piece.start : piece.end]
                assert len(line.rstrip(b"\n")) > LIMIT and line.startswith(piece.oversized)
                lines.append(line)
            else:
                assert piece.data == content[piece.start : piece.end]
                lines += piece.data.splitlines(keepends=True) if b"\r" not in piece.data else [piece.data]
    assert b"".join(lines) == content


@given(CONTENT, st.integers(1, 200), SIZES, st.data())
def test_sections_are_parts_of_the_whole(
    content: bytes, every: int, sizes: list[int], data: st.DataObject
) -> None:
    """A reader that begins at the first line after any multiple of `every` cuts as one that came from the start."""
    ranges = split(content, every, sizes)
    at = data.draw(st.integers(0, len(content) // every + 1)) * every
    start = content.find(b"\n", max(at - 1, 0)) + 1 if at else 0
    if start or not at:
        # The bytes are the same; in how many pieces they come depends on what was read at once.
        found = split(content, every, sizes, start)
        assert [(r.start, r.end, r.digest) for r in found] == [
            (r.start, r.end, r.digest) for r in ranges if r.start >= start
        ]


@given(CONTENT, st.integers(1, 200), SIZES, st.data())
def test_a_grown_file_goes_on(content: bytes, every: int, sizes: list[int], data: st.DataObject) -> None:
    """What an earlier run made of a beginning of the file, its last line included or not, comes again as exactly these
    ranges; then follows the rest. Ranges of other bytes are not taken for known."""
    length = data.draw(st.integers(0, len(content)))
    earlier = split(content[:length], every, sizes, whole=data.draw(st.booleans()))
    known: dict[int, dict[int, str]] = {}
    for found in earlier:
        known.setdefault(found.start, {})[found.end] = found.digest
    wrong = data.draw(st.integers(0, len(content)))
    known.setdefault(wrong, {})[min(wrong + 5, len(content))] = "another digest"
    now = split(content, every, sizes, known=known)
    keys = [(r.start, r.end, r.digest) for r in now]
    assert keys[: len(earlier)] == [(r.start, r.end, r.digest) for r in earlier]
    assert [r.start for r in now] == [0, *(r.end for r in now)][: len(now)]
    assert (now[-1].end if now else 0) == len(content)
    for found in now:
        assert found.digest == xxhash.xxh3_128_hexdigest(content[found.start : found.end])


@given(CONTENT, st.integers(1, 200), SIZES)
def test_an_unfinished_line_is_left(content: bytes, every: int, sizes: list[int]) -> None:
    """A last line without its newline stays for another run when it does not count as complete, and with it nothing else."""
    complete = content[: content.rfind(b"\n") + 1]
    left = split(content, every, sizes, whole=False)
    assert [(r.start, r.end, r.digest) for r in left] == [
        (r.start, r.end, r.digest) for r in split(complete, every, sizes)
    ]
