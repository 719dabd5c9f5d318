from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tailrace.shipper.lines import Joined, Overlong, Unfinished, Whole, count, cut, last_line

LIMIT = 32


@given(
    st.lists(st.binary(max_size=80).map(lambda line: line.replace(b"\n", b"."))),
    st.binary(max_size=50).map(lambda line: line.replace(b"\n", b".")),
    st.integers(1, LIMIT),
)
def test_blocks_of_any_size_give_the_lines_of_the_file(lines: list[bytes], last: bytes, block: int) -> None:
    """However a file is cut into blocks, its whole lines come out once, in order, with those over the limit
    told apart, and the unterminated last line stays behind until it is asked for."""
    data = b"".join(line + b"\n" for line in lines) + last
    position = scanned = 0
    found: list[tuple[bytes, bool]] = []
    while position + scanned < len(data):
        start = position + scanned
        match cut(data[start : start + block], scanned, LIMIT):
            case Unfinished(more):
                assert more > scanned
                scanned = more
            case Whole(size) | Joined(size):
                found += [(line, True) for line in data[position : position + size - 1].split(b"\n")]
                position, scanned = position + size, 0
            case Overlong(size):
                found.append((data[position : position + size - 1], False))
                position, scanned = position + size, 0
    assert found == [(line, len(line) <= LIMIT) for line in lines]
    assert data[position:] == last
    assert scanned == len(last)
    if last:
        assert isinstance(last_line(scanned, LIMIT), Joined) == (len(last) <= LIMIT)


def test_bytes_that_were_read_along_are_no_part_of_the_block() -> None:
    """A newline in the skipped beginning of a block ends nothing."""
    assert cut(b"ab\ncd", 0, LIMIT, skip=3) == Unfinished(2)
    assert cut(b"ab\ncd\ne", 0, LIMIT, skip=3) == Whole(3)


@given(
    st.lists(
        st.sampled_from([b"", b"\r", b"short", b"\x0b\x0c\x1c", b"x" * 300, b"\xff" * 5000]), max_size=60
    ),
    st.sampled_from([b"", b"an end without its newline"]),
)
def test_lines_are_counted(lines: list[bytes], last: bytes) -> None:
    """Only newlines end them, whether they are long or short, and the last one counts also without."""
    assert count(b"".join(line + b"\n" for line in lines) + last) == len(lines) + bool(last)
