"""Which files there are, under paths, directories and patterns; called again and again, it keeps nothing."""

# Thousands of paths are looked at every second; as text that takes a third of the time.
# ruff: noqa: PTH100, PTH110, PTH111, PTH112, PTH114, PTH118, PTH119, PTH207, PTH208

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tailrace.shipper.identity import Sight

COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".lz4")
"""Made from a file that was read already when it was still plain."""
OWN_FILES = (".checkpoint.json", ".checkpoint.json.tmp", ".checkpoint.json.lock")
SIDE_FOLDERS = (".objects", "-objects", "_objects")
"""Endings of folders in which loggers put the payload of objects beside the log; they hold no lines."""


class Outside(NamedTuple):
    """A path that leads out of the directory in which it was found.

    Args:
        path: Of the symbolic link, or of something below one.
        target: Where it leads.
    """

    path: str
    target: str


class Looked(NamedTuple):
    """What there is.

    Args:
        sights: Every regular file, in the order of path.
        outside: What was left out because it leads elsewhere.
    """

    sights: list[Sight]
    outside: list[Outside]


def sights(patterns: Sequence[str], ignore: Iterable[Path] = (), follow_links: bool = False) -> list[Sight]:
    """The files of `look`."""
    return look(patterns, ignore, follow_links).sights


def look(patterns: Sequence[str], ignore: Iterable[Path] = (), follow_links: bool = False) -> Looked:
    """Every regular file that the patterns name now.

    A directory stands for the files in it, not in its subdirectories (`dir/**` does). Symbolic links are followed within
    the directory, or the part of a pattern before its first wildcard; whoever may write there must not be able to have
    other files of this machine shipped. One file under several paths is given once, under the path that is no link and
    comes first. Compressed files, hidden ones, our own progress files and object folders are left out. A path that is
    named outright is always taken, wherever it leads.

    A file that vanishes while we look is as good as absent, and so is one that may not be read.

    Args:
        patterns: Files, directories or patterns.
        ignore: Files that are never taken.
        follow_links: Follow symbolic links wherever they lead.
    """
    ignored = {os.path.realpath(path) for path in ignore}
    found: dict[tuple[int, int], tuple[bool, Sight]] = {}
    outside: dict[Outside, tuple[int, int]] = {}
    directories: dict[str, str] = {}
    for path, root in _candidates(patterns):
        if root is not None and _is_left_out(path):
            continue
        is_link = os.path.islink(path)
        if is_link or root is None:
            target = os.path.realpath(path)
        else:
            # Thousands of files share a directory: its links are resolved once.
            base, name = os.path.split(path)
            if base not in directories:
                directories[base] = os.path.realpath(base)
            target = os.path.join(directories[base], name)
        if target in ignored:
            continue
        try:
            # What the path led to is looked at, not the path again: it may lead elsewhere by now.
            status = os.lstat(target)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        if root is not None and not follow_links and not _is_inside(target, root):
            outside[Outside(path, target)] = status.st_dev, status.st_ino
            continue
        key = (status.st_dev, status.st_ino)
        sight = Sight(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime)
        before = found.get(key)
        if before is None or (is_link, path) < (before[0], before[1].path):
            found[key] = (is_link, sight)
    return Looked(
        sorted((sight for _, sight in found.values()), key=lambda sight: sight.path),
        [each for each, key in outside.items() if key not in found],
    )


def _is_inside(target: str, root: str) -> bool:
    return target.startswith(root if root.endswith("/") else f"{root}/")


def watched_directories(patterns: Sequence[str]) -> dict[str, bool]:
    """The directories in which something may appear, and whether their subdirectories count too.

    For a pattern it is the part before its first wildcard; for a directory itself; for a file its parent.
    Where that does not exist yet, the nearest parent that does.
    """
    wanted: dict[str, bool] = {}
    for pattern in patterns:
        path = _absolute(pattern)
        if glob.has_magic(path):
            base = _before_wildcard(path)
            rest = Path(path).relative_to(base).parts
            deep = len(rest) > 1 or "**" in rest[0]
        elif os.path.isdir(path):
            base, deep = Path(path), False
        else:
            base, deep = Path(path).parent, False
        while not base.is_dir() and base != base.parent:
            base = base.parent
        wanted[str(base)] = wanted.get(str(base), False) or deep
    return wanted


def _candidates(patterns: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Paths, each with the directory that it must not lead out of; `None` where it was named outright."""
    for pattern in patterns:
        path = _absolute(pattern)
        if os.path.isdir(path):
            try:
                names = sorted(os.listdir(path))
            except OSError:
                continue
            root = os.path.realpath(path)
            for name in names:
                yield os.path.join(path, name), root
        elif glob.has_magic(path) and not os.path.exists(path):
            root = os.path.realpath(_before_wildcard(path))
            for name in glob.iglob(path, recursive=True):
                yield name, root
        else:
            yield path, None


def _before_wildcard(pattern: str) -> Path:
    parts = Path(pattern).parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _is_left_out(path: str) -> bool:
    name = os.path.basename(path)
    if name.startswith(".") or name.endswith(COMPRESSED) or name.endswith(OWN_FILES):
        return True
    return any(part.endswith(SIDE_FOLDERS) for part in Path(path).parts[:-1])


def _absolute(pattern: str) -> str:
    return os.path.abspath(os.path.expanduser(pattern))
