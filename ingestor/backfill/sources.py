"""Patterns, directories and URLs → sources; a source → streams of uncompressed bytes.

What a file is, is told by its first bytes and not by its name: gzip, zstd, bzip2, xz, and a tar archive inside any of them or
by itself. Each member of an archive is a stream, and may be compressed once more.
"""

from __future__ import annotations

import bz2
import glob
import io
import lzma
import os
import stat
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec
import xxhash

from tailrace.schemas.errors import ConfigError

try:
    from isal import igzip as gzip
except ImportError:  # there is none for this processor
    import gzip  # type: ignore[no-redef]

STDIN = "-"
BLOCK_BYTES = 256 * 1024
"""Read at once. Larger ones fall out of the processor's cache, and are new pages each time: splitting takes twice as long."""
_TAR_MAGIC, _TAR_AT = b"ustar", 257
_PEEK_BYTES = 512
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x50\x2a\x4d\x18": "zstd",  # pzstd begins with a frame that is to be skipped
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x9d": "compress",
}
BOMB_BYTES = 1 << 30
BOMB_RATIO = 1_000
"""What unpacks to more than so many bytes, and to more than so many for each byte that is stored, is a bomb and no log: it would
keep a worker busy for days, and fill the disk with dead letters."""
_UNREAD = frozenset({"zip", "7z", "compress"})
"""Known, so that they are not taken for lines."""
_OWN_ENDINGS = ("checkpoint.json", "checkpoint.json.tmp", "checkpoint.json.lock", "tailrace-front.json")
_SIDE_FOLDERS = (".objects", "-objects", "_objects")
"""Endings of folders in which loggers put payloads beside the log; they hold no lines."""
_DATABASE_FOLDERS = frozenset({"data", "metadata", "store"})
"""Together in one folder they make it a ClickHouse data directory."""


class SourceError(Exception):
    """A source cannot be read, or not further: damaged, cut, away, or not permitted."""


class Source(msgspec.Struct, frozen=True):
    """One file, object or standard input.

    Args:
        path: As people know it; absolute for local files, the URL for others.
        size: Bytes as stored, -1 when nobody knows.
        modified: Nanoseconds since the epoch; for a remote object a hash of what its store says of the version; 0 unknown.
        inode: 0 where there is none.
        remote: Whether fsspec reads it.
    """

    path: str
    size: int = -1
    modified: int = 0
    inode: int = 0
    remote: bool = False

    @property
    def is_stdin(self) -> bool:
        """Whether it can be read once only, and by this process only."""
        return self.path == STDIN

    @property
    def can_be_read_again(self) -> bool:
        """Whether it is a local file, and no pipe."""
        return self.inode > 0 and not self.remote

    @property
    def in_process(self) -> bool:
        """Whether other processes cannot read it."""
        return self.is_stdin or self.path.startswith("memory:")


class Found(NamedTuple):
    """What patterns name.

    Args:
        sources: In the order of path, each file once.
        unreadable: By path, why it is none.
        skipped: By path, why it was passed over in its directory.
    """

    sources: list[Source]
    unreadable: dict[str, str]
    skipped: dict[str, str]


def find(patterns: Sequence[str]) -> Found:
    """Everything that the patterns name now.

    A directory stands for all files below it, save hidden ones, ClickHouse's own and those that are no text and no known
    archive. A file that is named outright is always taken.

    Raises:
        ConfigError: fsspec or a part of it is not installed.
    """
    found = Found([], {}, {})
    for pattern in patterns:
        if pattern == STDIN:
            found.sources.append(Source(STDIN))
        elif "://" in pattern and not pattern.startswith("file://"):
            _find_remote(pattern, found)
        else:
            _find_local(pattern.removeprefix("file://"), found)
    unique = {
        (s.path if s.remote or not s.inode else (s.inode, s.size, s.modified)): s
        for s in reversed(found.sources)
    }
    found.sources[:] = sorted(unique.values(), key=lambda source: source.path)
    return found


def _find_local(pattern: str, found: Found) -> None:
    path = Path(pattern).expanduser()
    if path.is_dir():
        for name in _walk(path, found):
            _add_local(name, found, explicit=False)
        return
    if not path.exists() and glob.has_magic(pattern):
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - pathlib cannot take an absolute pattern
        if not names:
            found.unreadable[pattern] = "no file has such a name"
        for match in map(Path, names):
            if not match.is_dir():
                _add_local(match, found, explicit=True)
        return
    _add_local(path, found, explicit=True)


def _walk(directory: Path, found: Found) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        found.unreadable[str(error.filename)] = error.strerror or str(error)

    for base, folders, names in os.walk(directory, onerror=failed, followlinks=True):
        if {*folders, *names} >= _DATABASE_FOLDERS:
            found.skipped[base] = "a ClickHouse data directory"
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not f.endswith(_SIDE_FOLDERS))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(_OWN_ENDINGS):
                yield Path(base, name)


def _add_local(path: Path, found: Found, explicit: bool) -> None:
    absolute = str(path.absolute())
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            if explicit:
                # A pipe or a device: read to its end, once.
                found.sources.append(Source(absolute))
            return
        with path.open("rb") as file:
            start = file.read(_PEEK_BYTES)
    except OSError as exc:
        found.unreadable[absolute] = exc.strerror or str(exc)
        return
    if (
        not explicit
        and b"\0" in start
        and _compression(start) is None
        and not _is_tar(start)
        and start.strip(b"\0")
    ):
        found.skipped[absolute] = "no text"
        return
    found.sources.append(Source(absolute, status.st_size, status.st_mtime_ns, status.st_ino))


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError as exc:
        raise ConfigError(f"{url} needs fsspec: pip install 'tailrace[backfill]'") from exc
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as exc:
        raise ConfigError(f"{url}: {exc}") from exc
    except ValueError as exc:
        raise ConfigError(f"{url} cannot be read: {exc}") from exc
    return filesystem, str(path)


def _find_remote(url: str, found: Found) -> None:
    filesystem, path = _filesystem(url)
    try:
        if glob.has_magic(path):
            names = sorted(filesystem.glob(path))
        elif filesystem.isdir(path):
            names = sorted(filesystem.find(path))
        else:
            names = [path]
        if not names:
            found.unreadable[url] = "nothing has such a name"
        for name in names:
            info = filesystem.info(name)
            if info["type"] != "file":
                continue
            version = repr(
                [
                    info.get(key)
                    for key in (
                        "ETag",
                        "etag",
                        "generation",
                        "mtime",
                        "LastModified",
                        "last_modified",
                        "created",
                        "updated",
                    )
                ]
            )
            source = Source(
                str(filesystem.unstrip_protocol(name)),
                int(info.get("size") or 0),
                xxhash.xxh3_64_intdigest(version.encode()) >> 1,
                remote=True,
            )
            found.sources.append(source)
    except Exception as exc:  # each file system has exceptions of its own
        found.unreadable[url] = _text(exc)


class Stream(NamedTuple):
    """One file's lines.

    Args:
        path: Of the source, and behind `!/` the member of an archive.
        file: Its uncompressed bytes, from the start.
    """

    path: str
    file: io.BufferedReader


def is_plain(source: Source) -> bool:
    """Whether a local file is neither compressed nor an archive, so that several workers can share it.

    Raises:
        SourceError: It cannot be opened.
    """
    if source.remote or source.size < 0:
        return False
    try:
        with Path(source.path).open("rb") as file:
            start = file.read(_PEEK_BYTES)
    except OSError as exc:
        raise SourceError(exc.strerror or str(exc)) from exc
    return _compression(start) is None and not _is_tar(start)


class Opened:
    """A source that is open.

    Args:
        source: Which.
        raw: Its bytes as stored.
    """

    def __init__(self, source: Source, raw: IO[bytes]) -> None:
        self._source = source
        self._raw = raw

    def consumed(self) -> int:
        """How many bytes as stored were read so far, more or less."""
        try:
            return self._raw.tell()
        except (OSError, ValueError):
            return 0

    def streams(self) -> Iterator[Stream]:
        """Its streams, one after the other; each is read before the next is asked for.

        Raises:
            SourceError: It is damaged or away.
        """
        with reading():
            file = _uncompressed(self._raw)
            start, file = _peeked(file)
        if not _is_tar(start):
            yield Stream(self._source.path, file)
            return
        with reading():
            # `r|` reads forward only, which is all that a pipe or an object store can do.
            unpacked = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115 - closed with the source
        while True:
            with reading():
                member = unpacked.next()
                if member is None:
                    return
                content = unpacked.extractfile(member) if member.isfile() else None
                if content is None or Path(member.name).name.startswith("."):
                    continue
                stream = _uncompressed(content)
            yield Stream(f"{self._source.path}!/{member.name}", stream)


@contextmanager
def opened_plain(source: Source) -> Iterator[IO[bytes]]:
    """Opens a source for which `is_plain` holds.

    Raises:
        SourceError: It cannot be opened any more.
    """
    with reading():
        file = _open(source)
    with file:
        yield file


@contextmanager
def opened(source: Source) -> Iterator[Opened]:
    """Opens a source.

    Raises:
        SourceError: It cannot be opened.
    """
    with reading():
        raw = _open(source)
    try:
        yield Opened(source, raw)
    finally:
        if not source.is_stdin:
            raw.close()


def _open(source: Source) -> IO[bytes]:
    if source.is_stdin:
        return sys.stdin.buffer
    if source.remote:
        filesystem, path = _filesystem(source.path)
        return cast(IO[bytes], filesystem.open(path, "rb"))
    file = Path(source.path).open("rb", buffering=0)  # noqa: SIM115 - closed by whoever asked
    if source.inode and os.fstat(file.fileno()).st_ino != source.inode:
        file.close()
        raise SourceError(
            "it was rotated away or replaced meanwhile; another run finds it under its new name"
        )
    return file


@contextmanager
def reading() -> Iterator[None]:
    """Turns what libraries raise for bytes that are damaged, cut or away into `SourceError`. Only for reading: each library and
    each file system has exceptions of its own."""
    try:
        yield
    except (SourceError, ConfigError):
        raise
    except Exception as exc:
        raise SourceError(_text(exc)) from exc


def _text(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    first = (str(exc).strip().splitlines() or [""])[0]
    return f"{type(exc).__name__}: {first}" if first else type(exc).__name__


def _compression(start: bytes) -> str | None:
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def _is_tar(start: bytes) -> bool:
    return start[_TAR_AT : _TAR_AT + len(_TAR_MAGIC)] == _TAR_MAGIC


def _peeked(file: IO[bytes]) -> tuple[bytes, io.BufferedReader]:
    """The first bytes, and a file that still begins with them. `peek` may give fewer than there are, of a pipe for example."""
    start = b""
    while len(start) < _PEEK_BYTES and (more := file.read(_PEEK_BYTES - len(start))):
        start += more
    return start, io.BufferedReader(_Again(start, file), BLOCK_BYTES)


def _uncompressed(file_as_stored: IO[bytes]) -> io.BufferedReader:
    stored = _Counted(file_as_stored)
    start, file = _peeked(cast(IO[bytes], stored))
    compression = _compression(start)
    if compression is None:
        return file
    if compression in _UNREAD:
        raise SourceError(
            f"{compression} files are not read: unpack it, or compress it with gzip, zstd, bzip2 or xz"
        )
    raw: Any
    if compression == "gzip":
        raw = gzip.GzipFile(fileobj=file, mode="rb")  # type: ignore[no-untyped-call]  # isal has no types for it
    elif compression == "bz2":
        raw = bz2.BZ2File(file, "rb")
    elif compression == "xz":
        raw = lzma.LZMAFile(file, "rb")  # noqa: SIM115 - likewise
    else:
        import pyarrow as pa

        raw = pa.CompressedInputStream(pa.PythonFile(file, "r"), compression)
    return io.BufferedReader(_Bounded(raw, stored), BLOCK_BYTES)


class _Again(io.RawIOBase):
    """Some bytes that were read already, and then the rest of a file.

    Args:
        start: Those bytes.
        rest: Anything with `read`; closed by whoever opened it.
    """

    def __init__(self, start: bytes, rest: Any) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As in `io.RawIOBase`."""
        if self._start:
            data, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        else:
            data = self._rest.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)


class _Counted:
    """Something to read from, and how many bytes were.

    Args:
        file: Closed by whoever opened it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def read(self, size: int) -> bytes:
        """As a file's."""
        data = self._file.read(size)
        self.count += len(data)
        return data


class _Bounded(io.RawIOBase):
    """Unpacked bytes, as long as they are no bomb.

    Args:
        unpacked: Closed by whoever opened it.
        stored: What it unpacks.
    """

    def __init__(self, unpacked: Any, stored: _Counted) -> None:
        self._unpacked = unpacked
        self._stored = stored
        self._count = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As in `io.RawIOBase`.

        Raises:
            SourceError: It is a bomb.
        """
        data = self._unpacked.read(len(buffer)) or b""
        self._count += len(data)
        if self._count > BOMB_BYTES and self._count > BOMB_RATIO * self._stored.count:
            raise SourceError(
                f"{self._stored.count:,} bytes unpack to more than {self._count:,}: this is no log; what came before is stored"
            )
        buffer[: len(data)] = data
        return len(data)
