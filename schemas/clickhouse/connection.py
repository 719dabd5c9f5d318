"""How to reach ClickHouse: data source names, clients, and what a driver's exception means for us."""

from __future__ import annotations

import fcntl
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from tailrace.schemas.errors import (
    ClickHouseRejected,
    ClickHouseUnavailable,
    ConfigError,
    EngineLocked,
    RowsRejected,
    SchemaMismatch,
    TailraceError,
)
from tailrace.schemas.secrets import secret

DEFAULT_DATABASE = "tailrace"
FRONT_FILE = "tailrace-front.json"
"""In an embedded database directory: where the process that holds it serves ClickHouse's HTTP interface."""

ENGINE_OPTIONS = {
    "os_threads_nice_value_merge_mutate": "10",
    "background_merges_mutations_concurrency_ratio": "1",
}
"""Of the embedded engine: merges give way to inserts and questions where the cores are full. They get a tenth of what these get, thread
by thread, so that parts pile up slowly: 12 million lines of one day that kept both cores busy left 86 to 152 of them a table, after 77 seconds;
with a third (nice 5) it was 44 to 108, after 84. From 1,000 on ClickHouse holds inserts up until merges follow. A backlog of 5 million lines was
worked off by 82,000 to 104,000 lines a second, with nice 5 by 75,000 to 86,000. And there are no more merges at a time than cores, not twice
as many, for the memory. With that and migration 0011, `up` needs 890 to 970 MB at most for 12 million lines instead of 1,570."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PERMANENT_NETWORK_CODES = frozenset({516, 497, 192, 193, 194})
"""AUTHENTICATION_FAILED, ACCESS_DENIED, UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD."""
_SCHEMA_CODES = frozenset({16, 47, 60, 81, 8, 53, 10})
"""NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_IDENTIFIER, UNKNOWN_TABLE, UNKNOWN_DATABASE, THERE_IS_NO_COLUMN, TYPE_MISMATCH,
NOT_FOUND_COLUMN_IN_BLOCK."""
_ROW_CODES = frozenset({6, 26, 27, 33, 38, 41, 69, 70, 72, 117, 128, 131, 190, 349, 395, 469, 691})
"""CANNOT_PARSE_…, ARGUMENT_OUT_OF_BOUND, INCORRECT_DATA, TOO_LARGE_ARRAY_SIZE, TOO_LARGE_STRING_SIZE, throwIf,
VIOLATED_CONSTRAINT, UNKNOWN_ELEMENT_OF_ENUM and their like: the fault is in some row."""
_TRANSIENT_CODES = frozenset(
    {
        3,
        159,
        160,
        164,
        202,
        203,
        209,
        210,
        225,
        236,
        241,
        242,
        243,
        252,
        265,
        279,
        285,
        286,
        319,
        341,
        342,
        394,
        425,
    }
    | {439, 473, 574, 722, 999}
)
"""Timeouts, too many queries or parts, memory limit, no free disk, ZooKeeper away, read-only replica, network errors."""
_CODE = re.compile(r"(?:Code:\s*|code\s+)(\d+)")
_NO_SPACE = 243
_NOT_ENOUGH_SPACE = re.compile(r"No space left|NOT_ENOUGH_SPACE|Cannot reserve", re.IGNORECASE)


class Dsn(msgspec.Struct, frozen=True):
    """A data source name, taken apart: `chdb:///dir`, `clickhouse://user:password@host:8123/db?secure=true`.

    Its `str` and `repr` never show the password.
    """

    embedded: bool
    path: str = ""
    host: str = ""
    port: int = 0
    secure: bool = False
    user: str = ""
    password: str = ""
    database: str = DEFAULT_DATABASE
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> Dsn:
        """Read a DSN.

        Args:
            text: The DSN. A password may be left out of it: `TAILRACE_CLICKHOUSE_PASSWORD` or the file that
                `TAILRACE_CLICKHOUSE_PASSWORD_FILE` names is taken instead, which keeps it out of argv.
            environ: Where those are looked up; the process's environment by default.

        Raises:
            ConfigError: It is not a DSN of a kind that we know.
        """
        parts = urlsplit(text)
        query = dict(parse_qsl(parts.query))
        if parts.scheme == "chdb":
            if parts.netloc:
                raise ConfigError(
                    f"{text!r}: an embedded database is a directory, written with three slashes: chdb:///var/lib/tailrace"
                )
            if parts.path in ("", "/"):
                raise ConfigError(f"{text!r} names no directory; write for example chdb:///var/lib/tailrace")
            database = query.pop("database", DEFAULT_DATABASE)
            path = str(Path(unquote(parts.path)).resolve())
            return cls(embedded=True, path=path, database=database, options=tuple(query.items()))
        if parts.scheme not in ("clickhouse", "clickhouses", "http", "https"):
            raise ConfigError(
                f"{_redact(text)!r} is not a ClickHouse DSN; write chdb:///DIRECTORY for an embedded database "
                "or clickhouse://user@host:8123/database?secure=true for a server"
            )
        try:
            port = parts.port
        except ValueError as exc:
            raise ConfigError(f"{_redact(text)!r}: the port must be a number from 1 to 65535") from exc
        secure = query.pop("secure", "").lower() in ("1", "true", "yes", "on")
        secure = secure or parts.scheme in ("https", "clickhouses") or port in (443, 8443)
        return cls(
            embedded=False,
            host=parts.hostname or "localhost",
            port=port or (8443 if secure else 8123),
            secure=secure,
            user=unquote(parts.username or "default"),
            password=unquote(parts.password or "")
            or secret(os.environ if environ is None else environ, "TAILRACE_CLICKHOUSE_PASSWORD"),
            database=unquote(parts.path.strip("/")) or DEFAULT_DATABASE,
            options=tuple(query.items()),
        )

    def __str__(self) -> str:
        if self.embedded:
            return f"chdb://{self.path}"
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{self.user}@{self.host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Dsn({self})"


def _redact(text: str) -> str:
    # Up to the last @: a password that was not percent-encoded may hold any character.
    return re.sub(r"//([^:/@]*):.*@", r"//\1:***@", text, flags=re.DOTALL)


class FrontInfo(msgspec.Struct, frozen=True):
    """What the holder of an embedded database writes beside it, so that others find its HTTP front."""

    host: str
    port: int
    pid: int
    token: str = ""
    version: int = 1

    def __repr__(self) -> str:
        return f"FrontInfo({self.host}:{self.port}, process {self.pid})"  # never the token


def read_front(directory: str) -> FrontInfo | None:
    """The HTTP front of the process that holds `directory`, or `None` when none says so."""
    try:
        return msgspec.json.decode((Path(directory) / FRONT_FILE).read_bytes(), type=FrontInfo)
    except (OSError, msgspec.DecodeError):
        return None


def is_locked(directory: str) -> bool:
    """Whether some process holds the embedded database in `directory` (ClickHouse locks its file `status`)."""
    try:
        descriptor = os.open(Path(directory) / "status", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def connect(dsn: Dsn, *, create_database: bool = False, timeout: float = 300.0) -> Any:
    """A clickhouse-connect client for a DSN.

    An embedded database that another process holds is reached through that process's HTTP front, so a reader
    need not know whether `tailrace up` is running.

    Args:
        dsn: Where to.
        create_database: Create the database when it does not exist (and, embedded, the directory).
        timeout: Seconds that one request may take over HTTP.

    Raises:
        EngineLocked: Another process holds the embedded database and serves no HTTP front.
        ClickHouseUnavailable: Nothing answers.
        ClickHouseRejected: It answers no: credentials, permission, unknown database.
    """
    if not dsn.embedded:
        return _connect_http(dsn, create_database, timeout)
    if is_locked(dsn.path):
        return _connect_http(_front_of(dsn), create_database, timeout)
    return _open_engine(dsn, create_database)


def open_engine(dsn: Dsn) -> Any:
    """A client for the embedded engine itself, in this process, never through another's front.

    Raises:
        EngineLocked: Another process holds the directory.
    """
    if is_locked(dsn.path):
        raise EngineLocked(_locked_message(dsn.path, read_front(dsn.path)))
    return _open_engine(dsn, create_database=True)


def open_another(dsn: Dsn) -> Any:
    """One more client of the embedded engine that this process has open: threads must not share one."""
    return _open_engine(dsn, create_database=False)


def _front_of(dsn: Dsn) -> Dsn:
    front = read_front(dsn.path)
    if front is None:
        raise EngineLocked(_locked_message(dsn.path, None))
    return Dsn(
        embedded=False,
        host=front.host,
        port=front.port,
        user="default",
        password=front.token,
        database=dsn.database,
        options=dsn.options,
    )


def _locked_message(path: str, front: FrontInfo | None) -> str:
    if front is None:
        return (
            f"another process holds the embedded database in {path}: stop it, or wait until it has finished "
            "(chDB allows one process a directory)"
        )
    return (
        f"`tailrace up` (process {front.pid}) already holds {path}: stop it first, give this one another directory, "
        f"or talk to the running one at http://{front.host}:{front.port}"
    )


def _connect_http(dsn: Dsn, create_database: bool, timeout: float) -> Any:
    import clickhouse_connect

    settings = {key.removeprefix("ch_"): value for key, value in dsn.options if key.startswith("ch_")}
    options: dict[str, Any] = {key: value for key, value in dsn.options if not key.startswith("ch_")}
    # Packing and unpacking costs more than handing over the bytes on the same machine. Whoever reaches another one through a tunnel
    # says so in the DSN: `?compress=true`.
    options.setdefault("compress", dsn.host not in _LOOPBACK)
    options.setdefault("connect_timeout", 10)
    options.setdefault("send_receive_timeout", timeout)

    def client(database: str | None) -> Any:
        return clickhouse_connect.get_client(
            host=dsn.host,
            port=dsn.port,
            username=dsn.user,
            password=dsn.password,
            secure=dsn.secure,
            database=database,
            settings=settings,
            autogenerate_session_id=False,
            **options,
        )

    with translated(str(dsn)):
        if create_database:
            bootstrap = client(None)
            _create_database(bootstrap, dsn.database)
            bootstrap.close()
        return client(dsn.database)


def _open_engine(dsn: Dsn, create_database: bool) -> Any:
    import clickhouse_connect

    directory = Path(dsn.path)
    if not create_database and not directory.exists():
        raise ConfigError(f"there is no database in {dsn.path}; `tailrace up` makes one")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as exc:
        raise ConfigError(f"cannot create {dsn.path}: {exc.strerror}") from exc
    try:
        client = clickhouse_connect.get_client(interface="chdb", path=dsn.path, chdb_options=ENGINE_OPTIONS)
    except Exception as exc:
        if is_locked(dsn.path):
            raise EngineLocked(_locked_message(dsn.path, read_front(dsn.path))) from exc
        raise ClickHouseRejected(
            f"cannot open the embedded database in {dsn.path}: {first_line(exc)}"
        ) from exc
    with translated(str(dsn)):
        if create_database:
            _create_database(client, dsn.database)
        client.database = dsn.database
        client.command("SELECT 1")
    return client


def _create_database(client: Any, database: str) -> None:
    exists = client.query(
        "SELECT count() FROM system.databases WHERE name = {name:String}", parameters={"name": database}
    ).result_rows[0][0]
    if not exists:
        client.command("CREATE DATABASE IF NOT EXISTS {name:Identifier}", parameters={"name": database})


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turns what clickhouse-connect, urllib3 and chDB raise into our errors; the one place that knows theirs.

    Args:
        where: Named in the message; must not hold a secret.
    """
    try:
        yield
    except TailraceError:
        raise
    except Exception as exc:
        raise translate(exc, where) from exc


def call(where: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)` under `translated`, for handing to a thread."""
    with translated(where):
        return function(*args, **kwargs)


def translate(exc: Exception, where: str) -> TailraceError:
    """Which of our errors a driver's exception is: retryable, refused for good, or a schema that does not fit."""
    text = first_line(exc)
    code = error_code(exc)
    if (fault := _untrusted(exc)) is not None:
        return ClickHouseRejected(f"{where}: {fault}")
    if code in _PERMANENT_NETWORK_CODES:
        return ClickHouseRejected(f"{where} refuses us: {text}", code)
    if code in _TRANSIENT_CODES or is_out_of_space(code, str(exc)):
        return ClickHouseUnavailable(f"{where} cannot take this now: {text}")
    if code in _SCHEMA_CODES:
        return SchemaMismatch(
            f"{where} has other tables than this program expects: {text}; run `tailrace migrate`", code
        )
    if code in _ROW_CODES:
        return RowsRejected(f"{where} refuses a row: {text}", code)
    if code is not None:
        return ClickHouseRejected(f"{where} refused: {text}", code)
    if _is_network_fault(exc):
        return ClickHouseUnavailable(f"{where} does not answer: {text}")
    return ClickHouseRejected(f"{where}: {text}")


def is_out_of_space(code: int | None, text: str) -> bool:
    """Whether an error of ClickHouse is about a full disk."""
    return code == _NO_SPACE or _NOT_ENOUGH_SPACE.search(text) is not None


def _untrusted(exc: BaseException) -> str | None:
    """What is wrong with the other side's certificate, where that is what failed."""
    found: BaseException | None = exc
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return (
                f"its certificate cannot be trusted ({found.verify_message.rstrip('.')}); name the PEM file of the authority "
                "that signed it in the DSN: …?secure=true&ca_cert=/path/ca.pem"
            )
        # urllib3 keeps the cause of what it raises in `reason`.
        reason = getattr(found, "reason", None)
        found = reason if isinstance(reason, BaseException) else found.__cause__ or found.__context__
    return None


def error_code(exc: BaseException) -> int | None:
    """ClickHouse's error code in a driver's exception; `None` when it holds none."""
    found = _CODE.search(str(exc))
    return int(found.group(1)) if found else None


def _is_network_fault(exc: Exception) -> bool:
    from clickhouse_connect.driver import exceptions as driver

    if isinstance(exc, OSError | EOFError | driver.OperationalError | driver.StreamFailureError):
        return True
    if type(exc).__module__.split(".")[0] in ("urllib3", "http"):
        return True
    # Without an error code the answer did not come from ClickHouse itself but from something before it: a proxy's 502, a cut body.
    return isinstance(exc, driver.DatabaseError)


def first_line(exc: BaseException, limit: int = 300) -> str:
    """The first line of an exception's text, bounded, for a one-sentence message."""
    text = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
    return text if len(text) <= limit else text[: limit - 1] + "…"
