"""Running one statement on the engine. Called in a thread: the engine lets go of the GIL while it works.

A result of any size is written to a file by the engine itself, in the format and coding that was asked for, so neither
holds it in memory, and an error that comes late is still an error and not half an answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from tailrace.explorer.front.body import Upload
from tailrace.explorer.front.engine import Engine, Handle
from tailrace.explorer.front.guard import Guard
from tailrace.explorer.front.lexer import lex
from tailrace.explorer.front.refusal import EngineRefusal, Refusal
from tailrace.explorer.front.sessions import Session
from tailrace.explorer.front.statement import DEFAULT_FORMAT, Statement, StatementKind, assignments
from tailrace.schemas.clickhouse.quoting import quote

IN_MEMORY_BYTES = 1 << 20
"""Results up to this size are read back at once."""


class Job(msgspec.Struct, frozen=True):
    """One statement with everything around it.

    Args:
        database: For names without a database; empty leaves a session's as it is.
        default_format: For a statement that names none.
        values: Its `{name:Type}` parameters.
        settings: Set for this statement only.
        read_only: Nothing may be changed, as for GET.
        coding: Content coding of the result; empty for none.
        mark: The `log_comment` under which it can be cancelled.
        max_result_bytes: Largest result, where the settings say nothing.
        spool: Directory for results.
    """

    statement: Statement
    upload: Upload | None
    session: Session | None
    database: str
    default_database: str
    default_format: str
    values: dict[str, str]
    settings: dict[str, str]
    read_only: bool
    coding: str
    mark: str
    max_result_bytes: int
    spool: Path


class Result(msgspec.Struct, frozen=True):
    """What came out.

    Args:
        data: The result, where it is small.
        file: The result, where it is not; whoever has it closes it.
        size: Its length in bytes.
        format: The name of its format; empty for a statement without a result.
        coding: Its content coding; empty for none.
        summary: Rows and bytes, as ClickHouse reports them.
    """

    data: bytes
    file: IO[bytes] | None
    size: int
    format: str
    coding: str
    summary: dict[str, str]


def execute(engine: Engine, guard: Guard, job: Job) -> Result:
    """Run a job to its end.

    Raises:
        Refusal: What is wrong with it, or what the engine said.
    """
    try:
        _check(guard, job)
        if not job.statement.tokens[0].is_word(b"INSERT"):
            return _on_a_handle(engine, job)
        engine.before_insert()
        try:
            return _on_a_handle(engine, job)
        except Refusal as refusal:
            engine.insert_failed(_database(job), refusal)
            raise
    finally:
        if job.upload is not None:
            job.upload.file.close()


def _on_a_handle(engine: Engine, job: Job) -> Result:
    if job.session is not None:
        return _in_session(engine, job, job.session)
    handle = engine.open()
    try:
        return _with_settings(handle, job)
    finally:
        handle.close()


def _database(job: Job) -> str:
    """For names without a database."""
    return job.database or (job.session.database if job.session else "") or job.default_database


def _check(guard: Guard, job: Job) -> None:
    statement = job.statement
    guard.check_settings(job.settings)
    guard.check(statement.tokens, _database(job), job.values)
    if job.upload is not None and statement.format.lower() == "values" and job.upload.small is not None:
        guard.check_values(lex(job.upload.small))
    if (
        job.read_only
        and not statement.reads_only
        and statement.kind not in (StatementKind.SET, StatementKind.USE)
    ):
        raise Refusal(
            164, "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly."
        )


def _with_settings(handle: Handle, job: Job) -> Result:
    handle.use(job.database or job.default_database)
    handle.set(
        _settings(job) | ({"readonly": "2"} if job.read_only and "readonly" not in job.settings else {})
    )
    return _run(handle, job)


def _in_session(engine: Engine, job: Job, session: Session) -> Result:
    """As `_with_settings`, on a handle that must be afterwards as if only the statement itself had run."""
    if (
        "readonly" in job.settings
    ):  # cannot be taken back, so this one statement gets a handle that looks the same
        handle = engine.open()
        try:
            handle.use(session.database or job.default_database)
            handle.restore(tuple(session.assigned), session.assigned)
            return _with_settings(handle, job)
        finally:
            handle.close()
    if session.handle is None:
        session.handle = engine.open()
        session.database = job.database or job.default_database
        session.handle.use(session.database)
    if job.database and job.database != session.database:
        session.handle.use(job.database)
        session.database = job.database
    settings = _settings(job)
    try:
        session.handle.set(settings)
        result = _run(session.handle, job)
    finally:
        _restore(session.handle, settings, session.assigned)
    if job.statement.kind is StatementKind.SET:
        found = assignments(job.statement.tokens)
        session.assigned.update(found)
        session.handle.restore(tuple(found), session.assigned)
    if job.statement.kind is StatementKind.USE:
        session.database = (
            session.handle.run("SELECT currentDatabase()", "TSVRaw").bytes().decode().rstrip("\n")
        )
    return result


def _restore(handle: Handle, names: Iterable[str], assigned: dict[str, bytes]) -> None:
    """Undoes `set`, one by one: a name that the engine does not know was never set."""
    for name in names:
        with suppress(Refusal):
            handle.restore((name,), assigned)


def _settings(job: Job) -> dict[str, str]:
    """Ours first, so that the caller's win."""
    settings = {
        "implicit_select": "0",
        "log_comment": job.mark,
        "max_result_bytes": str(job.max_result_bytes),
    }
    if job.upload is not None and job.upload.small is None and job.statement.format.lower() == "values":
        # Expressions in VALUES could call anything, and this much of it is not looked through.
        settings["input_format_values_interpret_expressions"] = "0"
    return settings | job.settings


def _run(handle: Handle, job: Job) -> Result:
    if job.statement.kind is StatementKind.SELECT:
        return _select(handle, job)
    if job.statement.kind is StatementKind.INSERT_DATA and job.upload is not None:
        return _insert(handle, job, job.upload)
    form = job.statement.format or job.default_format or DEFAULT_FORMAT
    answer = handle.run(job.statement.head, form, job.values)
    data = bytes(answer.bytes() or b"")
    named = form if data or job.statement.kind is StatementKind.SHOW else ""
    return Result(data, None, len(data), named, "", _summary(answer))


def _select(handle: Handle, job: Job) -> Result:
    statement = job.statement
    form = statement.format or job.default_format or DEFAULT_FORMAT
    path = job.spool / f"{uuid.uuid4().hex}.result"
    # The name of a format may come from a header: backticks make it a name and nothing else.
    where = (
        f"\nINTO OUTFILE {quote(str(path))} COMPRESSION '{job.coding or 'none'}' FORMAT {_format_name(form)}"
    )
    settings = b" SETTINGS " + statement.settings if statement.settings else b""
    try:
        answer = handle.run(statement.head + where.encode() + settings, form, job.values)
        file = path.open("rb")
    except EngineRefusal as refused:
        # Syntax errors quote the statement; what was put behind it is no business of the caller's.
        raise EngineRefusal(refused.code, refused.text.replace(where.strip(), "").rstrip()) from None
    except FileNotFoundError:  # a statement without a result, such as one in the format Null
        return Result(b"", None, 0, form, "", _summary(answer))
    finally:
        path.unlink(missing_ok=True)  # an open file stays readable
    size = file.seek(0, 2)
    file.seek(0)
    if size > IN_MEMORY_BYTES:
        return Result(b"", file, size, form, job.coding, _summary(answer))
    with file:
        return Result(file.read(size), None, size, form, job.coding, _summary(answer))


def _insert(handle: Handle, job: Job, upload: Upload) -> Result:
    statement = job.statement
    where = f" FROM INFILE {quote(upload.path)} COMPRESSION 'none' ".encode()
    settings = b"SETTINGS " + statement.settings if statement.settings else b""
    sql = statement.head + where + settings + f" FORMAT {_format_name(statement.format)}".encode()
    answer = handle.run(sql, DEFAULT_FORMAT, job.values)
    return Result(b"", None, 0, "", "", _summary(answer))


def _format_name(name: str) -> str:
    if not name.isascii() or not name.isidentifier():
        raise Refusal(73, f"Unknown format {name}")
    return name


def _summary(answer: Any) -> dict[str, str]:
    return {
        "read_rows": str(answer.storage_rows_read()),
        "read_bytes": str(answer.storage_bytes_read()),
        "written_rows": str(answer.rows_written()),
        "written_bytes": str(answer.bytes_written()),
        "total_rows_to_read": "0",
        "result_rows": str(answer.rows_read()),
        "result_bytes": str(answer.bytes_read()),
        "elapsed_ns": str(int(answer.elapsed() * 1e9)),
    }
