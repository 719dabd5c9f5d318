"""Which files there are, under paths, directories and patterns; called again and again, it keeps nothing."""

# Thousands of paths are looked at every second; as text that takes a third of the time.
# ruff: noqa: PTH100, PTH110, PTH111, PTH112, PTH114, PTH116, PTH118, PTH119, PTH207, PTH208

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tailrace.shipper.identity import Sight

COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".lz4")
"""Made from a file that was read already when it was still plain."""
OWN_FILES = (".checkpoint.json", ".checkpoint.json.tmp", ".checkpoint.json.lock")
SIDE_FOLDERS = (".objects", "-objects", "_objects")
"""Endings of folders in which loggers put the payload of objects beside the log; they hold no lines."""


def sights(patterns: Sequence[str], ignore: Iterable[Path] = ()) -> list[Sight]:
    """Every regular file that the patterns name now, in the order of path.

    A directory stands for the files in it, not in its subdirectories (`dir/**` does). Symbolic links are
    followed, and one file under several paths is given once, under the path that is no link and comes first.
    Compressed files, hidden ones, our own progress files and object folders are left out, unless a pattern
    names such a file outright.

    A file that vanishes while we look is as good as absent, and so is one that may not be read.
    """
    ignored = {os.path.realpath(path) for path in ignore}
    found: dict[tuple[int, int], tuple[bool, Sight]] = {}
    for path, explicit in _candidates(patterns):
        if not explicit and _is_left_out(path):
            continue
        try:
            is_link = os.path.islink(path)
            status = os.stat(path)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode) or os.path.realpath(path) in ignored:
            continue
        key = (status.st_dev, status.st_ino)
        sight = Sight(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime)
        before = found.get(key)
        if before is None or (is_link, path) < (before[0], before[1].path):
            found[key] = (is_link, sight)
    return sorted((sight for _, sight in found.values()), key=lambda sight: sight.path)


def watched_directories(patterns: Sequence[str]) -> dict[str, bool]:
    """The directories in which something may appear, and whether their subdirectories count too.

    For a pattern it is the part before its first wildcard; for a directory itself; for a file its parent.
    Where that does not exist yet, the nearest parent that does.
    """
    wanted: dict[str, bool] = {}
    for pattern in patterns:
        path = _absolute(pattern)
        if glob.has_magic(path):
            parts = Path(path).parts
            first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
            base, deep = Path(*parts[:first]), first < len(parts) - 1 or "**" in parts[first]
        elif os.path.isdir(path):
            base, deep = Path(path), False
        else:
            base, deep = Path(path).parent, False
        while not base.is_dir() and base != base.parent:
            base = base.parent
        wanted[str(base)] = wanted.get(str(base), False) or deep
    return wanted


def _candidates(patterns: Sequence[str]) -> Iterator[tuple[str, bool]]:
    for pattern in patterns:
        path = _absolute(pattern)
        if os.path.isdir(path):
            try:
                names = sorted(os.listdir(path))
            except OSError:
                continue
            for name in names:
                yield os.path.join(path, name), False
        elif glob.has_magic(path) and not os.path.exists(path):
            for name in glob.iglob(path, recursive=True):
                yield name, False
        else:
            yield path, True


def _is_left_out(path: str) -> bool:
    name = os.path.basename(path)
    if name.startswith(".") or name.endswith(COMPRESSED) or name.endswith(OWN_FILES):
        return True
    return any(part.endswith(SIDE_FOLDERS) for part in Path(path).parts[:-1])


def _absolute(pattern: str) -> str:
    return os.path.abspath(os.path.expanduser(pattern))
