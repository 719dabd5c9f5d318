"""How much CPU goes into making batches small."""

from __future__ import annotations

from typing import NamedTuple


class Levels(NamedTuple):
    """The levels of a codec.

    Args:
        usual: Taken when none is asked for.
        allowed: From fast to small.
    """

    usual: int
    allowed: range


LEVELS = {
    "gzip": Levels(6, range(1, 10)),
    "lz4": Levels(1, range(1, 13)),
    "zstd": Levels(-2, range(-7, 23)),
}
"""By codec; the others have none. CPU-seconds and MB of 1 GB of the benchmark's lines as record batches, 2026-11-27, load 8: zstd -5 1.2 and
173, -1 1.3 and 158, 1 1.5 and 130, 3 2.3 and 94; lz4 1 1.6 and 258; snappy 1.1 and 252; none 0.4. In compiled code, median of 7 at a load of 7: zstd 1 2.4 and 129, -1 2.2 and 156, -2 1.9 and 159, -4 1.9 and 168;
snappy 1.5 and 252."""
