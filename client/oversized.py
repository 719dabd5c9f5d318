"""Objects over the size limit of a logger's policy: kept out of the line, never silently.

Spilled, an object is written once under the hash of its content, in a folder beside the log:

    app.log
    app.log.objects/9f/9f86d081….json

The line then holds a stand-in (`tailrace.schemas.stand_in`) that names the file; `tailrace.load` and `tailrace object`
follow it and check the hash. A message, a tag and any other text is kept out in the same way; its beginning and the name
of the file stand in its place, as text. Truncated, the stand-in's preview is all that is left. A logger without a file
(`MemoryLogger`, `APILogger`) truncates, and so does one that cannot write the folder.

An object is in memory as its JSON when it is found to be too large, and is written from there: no second copy is made.
An array of N bytes thus takes about 2.6 N more at the peak, its base64 and that in JSON. The service waits for the write
(100 MB: 1.6 s, of which the hash takes 0.7 s).
Nothing ever deletes spilled objects: remove them with the logs that name them.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from tailrace.logger import Event, Logger
from tailrace.policy import SMALL, Oversized, Policy
from tailrace.schemas.errors import DataError, NotFound
from tailrace.schemas.stand_in import FOLDER_SUFFIX, StandIn, place, preview_of

DEFAULT_POLICY = Policy()
"""For loggers that say nothing of one."""


def fitted(logger: Logger, name: bytes, encoded: bytes) -> bytes:
    """The JSON of an object if it is within the limit, else that of its stand-in. Counts what it does.

    Args:
        logger: Its `policy` has the limit; its `path`, if it has one, is the log that the object is put beside.
        name: The object's, as JSON, for the logger's report of problems.
        encoded: The JSON of the object.
    """
    if len(encoded) <= SMALL or len(encoded) <= (policy := _policy_of(logger)).max_object_bytes:
        return encoded
    return _kept_out(logger, policy, name, encoded).to_json()


def fitted_text(logger: Logger, name: bytes, encoded: bytes, share: int = 1) -> bytes:
    """The JSON of a text if it is within the limit, else that of its beginning and of where the whole is.

    What stands in its place ends with `… [104,857,602 bytes; all of it: web-1:/var/log/shop/app.log.objects/9f/9f86….json]`
    or, truncated, with `… [104,857,602 bytes, truncated]`. Counts what it does.

    Args:
        logger: As for `fitted`.
        name: What the text is, for the logger's report of problems.
        encoded: The JSON of the text.
        share: How many values share the limit.
    """
    if len(encoded) <= SMALL:
        return encoded
    policy = _policy_of(logger)
    limit = max(policy.max_object_bytes // share, SMALL)
    if len(encoded) <= limit:
        return encoded
    stand_in = _kept_out(logger, policy, name, encoded)
    rest = f"; all of it: {stand_in.where}" if stand_in.kept == "spilled" else ", truncated"
    end = f"… [{len(encoded):,} bytes{rest}]".encode("utf-8", "backslashreplace").decode()
    text: str = orjson.loads(encoded)
    kept = limit // 2
    while len(beginning := orjson.dumps(text[:kept])) > limit:
        kept //= 2
    return beginning[:-1] + orjson.dumps(end)[1:]


def fitted_tags(logger: Logger, encoded: bytes) -> bytes:
    """The JSON of a list of tags if it is within the limit, else that of the list with its largest texts cut.

    A value over its share of the limit becomes a text that begins like its JSON and ends as `fitted_text` says.
    """
    if len(encoded) <= SMALL or len(encoded) <= _policy_of(logger).max_object_bytes:
        return encoded
    tags = json.loads(encoded, parse_int=_as_written, parse_float=_as_written)
    for tag in tags:
        for key, value in tag.items():
            if len(raw := orjson.dumps(value)) > SMALL and key != "name":  # which is bounded
                text = raw if raw[:1] == b'"' else orjson.dumps(raw.decode())
                tag[key] = orjson.Fragment(fitted_text(logger, b'"%b"' % key.encode(), text, 2 * len(tags)))
    return orjson.dumps(tags)


def _as_written(number: str) -> orjson.Fragment:
    return orjson.Fragment(number.encode())


def _kept_out(logger: Logger, policy: Policy, name: bytes, encoded: bytes) -> StandIn:
    logger.count(Event.OVERSIZED, 1)
    why = ""
    log = _log_of(logger) if policy.oversized is Oversized.SPILL else None
    if log is not None:
        try:
            return _spilled(encoded, log)
        except OSError as exc:
            why = f", because it could not be written beside the log: {exc}"
    elif policy.oversized is Oversized.SPILL:
        why = ", because this logger has no file to put it beside"
    logger.count(
        Event.ALTERED, detail=f"the object {name.decode():.100} of {len(encoded):,} bytes was truncated{why}"
    )
    return StandIn("truncated", len(encoded), preview_of(encoded))


def _policy_of(logger: Logger) -> Policy:
    return getattr(logger, "policy", None) or DEFAULT_POLICY


def _log_of(logger: Logger) -> Path | None:
    path = getattr(logger, "path", None)
    return path if isinstance(path, Path) else None


def _spilled(encoded: bytes, log: Path) -> StandIn:
    digest = sha256(encoded).hexdigest()
    folder = f"{log.name}{FOLDER_SUFFIX}"
    _write_once(encoded, log.parent / folder / place(digest))
    return StandIn(
        "spilled",
        len(encoded),
        preview_of(encoded),
        sha256=digest,
        path=f"{folder}/{place(digest)}",
        directory=str(log.parent),
        host=os.uname().nodename,
    )


def _write_once(encoded: bytes, path: Path) -> None:
    """Put the content at its place; nothing is done when it is there.

    Any number of threads and processes may do so at once: each writes a file of its own and renames it. A crash
    leaves a hidden `.tmp` file. Nothing is synced: after a power failure a file may be short, which its size says
    here and its hash says to readers.
    """
    with suppress(FileNotFoundError):
        if path.stat().st_size == len(encoded):
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:16]}.{os.getpid()}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        try:
            rest = memoryview(encoded)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_spilled(stand_in: StandIn, directories: Sequence[str | os.PathLike[str]] = ()) -> bytes:
    """The JSON of a spilled object, checked against its hash.

    Args:
        stand_in: What the line holds.
        directories: Where to look: directories of logs, or folders of objects that were copied from there. The
            place that the service wrote to is tried last.

    Raises:
        NotFound: It is in none of them; the message says on which machine it lies, and where.
        DataError: The object was truncated, or what lies at its place is something else.
    """
    if stand_in.kept == "truncated":
        raise DataError(
            f"this object had {stand_in.size:,} bytes, over its logger's limit, and was truncated; "
            f"it began with {stand_in.preview[:60]}…"
        )
    wrong: Path | None = None
    for path in _candidates(stand_in, directories):
        content = _content(path, stand_in.size)
        if content is None:
            continue
        if sha256(content).hexdigest() == stand_in.sha256:
            return content
        wrong = path
    if wrong is not None:
        raise DataError(f"{wrong} is damaged: its content is not what its name says")
    raise NotFound(
        f"the object was too large for the log ({stand_in.size:,} bytes) and lies at {stand_in.where}; bring that file, "
        "or its folder, here and say where (tailrace object --objects-dir DIR, or load(…, objects=DIR))"
    )


def _candidates(stand_in: StandIn, directories: Sequence[str | os.PathLike[str]]) -> list[Path]:
    found = []
    for directory in map(Path, directories):
        inside = place(stand_in.sha256)
        found += [directory / stand_in.path, directory / inside, directory / Path(inside).name]
    if stand_in.directory:
        found.append(Path(stand_in.directory) / stand_in.path)
    return found


def _content(path: Path, size: int) -> bytes | None:
    """What a regular file of exactly this size holds; `None` for anything else."""
    try:
        # A line may name any place: a pipe there must not keep us waiting.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return None
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read()
    except OSError:
        return None
    finally:
        os.close(fd)


def resolved(params: Any, directories: Sequence[str | os.PathLike[str]] = ()) -> Any:
    """The params of an object: as they are, or read from the file that they stand in for; see `read_spilled`."""
    stand_in = StandIn.from_params(params)
    if stand_in is None:
        return params
    return json.loads(read_spilled(stand_in, directories))
