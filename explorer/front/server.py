"""The front itself: listens, and hands each request from step to step."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import socket
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from aiohttp import BodyPartReader, ClientError, web

from tailrace.explorer.front import codecs, execute, parameters, respond
from tailrace.explorer.front.access import check_credentials, check_origin
from tailrace.explorer.front.announce import announce, withdraw
from tailrace.explorer.front.body import HEAD_BYTES, Upload, receive
from tailrace.explorer.front.engine import Engine, new_mark
from tailrace.explorer.front.guard import Guard
from tailrace.explorer.front.intake import Intake
from tailrace.explorer.front.refusal import Refusal
from tailrace.explorer.front.sessions import Session, Sessions
from tailrace.explorer.front.settings import DEFAULT_HOST, DEFAULT_PORT, FrontSettings, is_loopback
from tailrace.explorer.front.statement import Statement
from tailrace.schemas.clickhouse.connection import Dsn, FrontInfo
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.intake import KEY_HEADER, LINES_PATH

logger = logging.getLogger(__name__)

SPOOL_DIRECTORY = "tailrace-front.tmp"
"""In the engine's directory: results and request bodies on their way. Emptied at start."""
_MAX_URL_BYTES = 1 << 20
_MAX_HEADER_BYTES = 64 << 10
_SWEEP_SECONDS = 5.0
_UNKNOWN_VERSION = "unknown"


async def serve(dsn: Dsn, host: str | None = None, port: int | None = None, token: str = "") -> Front:
    """Start a front and return it; `stop()` it in the end.

    Args:
        dsn: The embedded database.
        host: Address to listen on; loopback by default.
        port: TCP port; by default 8123, or a free one where that is taken.
        token: Password of user `default`; needed for any address but loopback.

    Raises:
        ConfigError: The address cannot be listened on, or not without a token.
        EngineLocked: Another process holds the database.
    """
    settings = (
        FrontSettings(port=port, token=token)
        if host is None
        else FrontSettings(host=host, port=port, token=token)
    )
    front = Front(dsn, settings)
    await front.start()
    return front


class Front:
    """ClickHouse's HTTP interface over the embedded engine of this process.

    Statements run in threads, so an event loop that is shared with other work is never held up. The engine may
    already be open in this process; otherwise the front opens it. Use as an async context manager, or `start`
    and `stop`. A front is started once.

    Args:
        dsn: The embedded database; its `database` is where names without one belong.
        settings: Address, token, limits.
        intake: Takes the lines that loggers send; without one the front offers no such path.
    """

    def __init__(self, dsn: Dsn, settings: FrontSettings | None = None, intake: Intake | None = None) -> None:
        if not dsn.embedded:
            raise ConfigError(
                f"{dsn} is a server already; the HTTP front is for an embedded database (chdb:///DIRECTORY)"
            )
        self._dsn = dsn
        self._settings = settings or FrontSettings()
        self._intake = intake
        self._spool = Path(dsn.path) / SPOOL_DIRECTORY
        self._info: FrontInfo | None = None

    @property
    def host(self) -> str:
        """The address that clients on this machine connect to."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._address[1]

    @property
    def url(self) -> str:
        """Where to point a browser, Grafana or clickhouse-connect; without the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._settings.tls_cert else 'http'}://{host}:{self.port}"

    @property
    def _address(self) -> tuple[str, int]:
        if self._info is None:
            raise RuntimeError("the front is not running")
        return self._listens

    async def __aenter__(self) -> Front:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the engine, listen, and announce the address in the engine's directory.

        Raises:
            ConfigError: The address cannot be listened on.
            EngineLocked: Another process holds the database.
        """
        tls = self._settings.tls()
        listener = _listen(self._settings.host, self._settings.port)
        # Our own commands cannot know by which name the certificate goes; what they say does not leave the machine.
        local = _listen(DEFAULT_HOST, 0) if tls is not None else listener
        try:
            self._engine = Engine(self._dsn.path)
            shutil.rmtree(self._spool, ignore_errors=True)  # left by a process that was killed
            self._spool.mkdir(mode=0o700, parents=True)
        except BaseException:
            listener.close()
            local.close()
            raise
        self._guard = Guard(self._engine.table_functions, enabled=not self._settings.allow_external)
        self._threads = ThreadPoolExecutor(self._settings.max_concurrent, thread_name_prefix="tailrace-front")
        self._turns = asyncio.Semaphore(self._settings.max_concurrent)
        self._sessions = Sessions(self._settings.max_sessions)
        self._running: dict[str, asyncio.Future[execute.Result]] = {}
        self._errands: set[asyncio.Future[None]] = set()
        self._runner = web.ServerRunner(
            web.Server(
                self._answer,
                handler_cancellation=True,
                auto_decompress=False,
                access_log=None,
                max_line_size=_MAX_URL_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
            )
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=tls).start()
        if local is not listener:
            await web.SockSite(self._runner, local).start()
        self._sweeper = asyncio.create_task(self._sweep())
        self._listens = _reached(listener)
        host, port = _reached(local)
        self._info = FrontInfo(host=host, port=port, pid=os.getpid(), token=self._settings.token)
        announce(self._dsn.path, self._info)
        if tls is None and not is_loopback(self._settings.host):
            logger.warning(
                "%s can be reached from other machines without TLS: the token and all that is asked travel in the clear "
                "(--http-tls-cert)",
                self.url,
            )
        logger.info("serving ClickHouse's HTTP interface of %s on %s", self._dsn.path, self.url)

    async def stop(self) -> None:
        """Stop listening, let running statements finish for `stop_seconds`, cancel the rest, let go of the engine.

        Does nothing when it is not running.
        """
        if self._info is None:
            return
        info, self._info = self._info, None
        withdraw(self._dsn.path, info)
        self._sweeper.cancel()
        for site in list(self._runner.sites):
            await site.stop()
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=self._settings.stop_seconds)
        for mark in list(self._running):
            await asyncio.to_thread(self._cancel, mark)
        await self._runner.shutdown()
        await self._runner.cleanup()
        await asyncio.gather(*self._running.values(), *self._errands, return_exceptions=True)
        if self._intake is not None:
            await self._intake.settle()
        for session in self._sessions.drain():
            _close(session)
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._engine.close)
        shutil.rmtree(self._spool, ignore_errors=True)

    # ---------------------------------------------------------------- one request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = respond.common_headers(str(uuid.uuid4()), self._engine.timezone)
        try:
            return await self._handle(request, headers)
        except Refusal as refused:
            answer = respond.refusal(refused, self._engine.version, headers, request.method == "HEAD")
            if not request.content.at_eof():
                answer.force_close()  # the rest of the body is not read
            return answer
        except (ConnectionError, ClientError):
            raise  # the client went away: there is nobody to answer
        except Exception:
            logger.exception("a request to the HTTP front failed")
            internal = Refusal(1001, "the HTTP front failed; its log says more", 500)
            return respond.refusal(internal, self._engine.version, headers)

    async def _handle(self, request: web.BaseRequest, headers: dict[str, str]) -> web.StreamResponse:
        path, _, raw_query = request.raw_path.partition("?")
        if path in ("/ping", "/replicas_status") and request.method in ("GET", "HEAD"):
            return web.Response(text="Ok.\n")
        check_origin(request.headers, self._settings)
        if path == LINES_PATH and self._intake is not None:
            return await self._take_lines(request, raw_query, self._intake, headers)
        if path not in ("", "/", "/query"):
            return web.Response(status=404, text=f"There is no handle {path}\n")
        if request.method not in ("GET", "HEAD", "POST"):
            return web.Response(status=405, text="Use GET or POST\n", headers={"Allow": "GET, HEAD, POST"})
        fields = parameters.split_query_string(raw_query)
        check_credentials(request.headers, fields, self._settings)
        if request.content_type == "multipart/form-data":
            fields |= await _form(request, self._settings.max_body_bytes)
        asked = parameters.read(fields, request.headers)
        if asked.query_id:
            headers["X-ClickHouse-Query-Id"] = asked.query_id
        if not asked.query and not request.body_exists:
            return web.Response(text="Ok.\n", headers=headers)
        statement, upload = await self._receive(request, asked)
        result = await self._run(request, asked, statement, upload)
        return await respond.send(request, result, headers)

    async def _take_lines(
        self, request: web.BaseRequest, raw_query: str, intake: Intake, headers: dict[str, str]
    ) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=405, text="Use POST\n", headers={"Allow": "POST"})
        check_credentials(request.headers, parameters.split_query_string(raw_query), self._settings)
        coding, key = request.headers.get("Content-Encoding", ""), request.headers.get(KEY_HEADER, "")
        lines = await intake.take(request.content.iter_any(), coding, key)
        return web.json_response({"lines": lines}, headers=headers)

    async def _receive(
        self, request: web.BaseRequest, asked: parameters.Parameters
    ) -> tuple[Statement, Upload | None]:
        length = request.content_length
        coding = request.headers.get("Content-Encoding", "")
        if length is not None and length > self._settings.max_body_bytes:
            raise codecs.too_large()
        limit = self._settings.max_body_bytes
        return await receive(_pieces(request), coding, asked.query, asked.format, self._spool, limit)

    async def _run(
        self,
        request: web.BaseRequest,
        asked: parameters.Parameters,
        statement: Statement,
        upload: Upload | None,
    ) -> execute.Result:
        """Run a statement when its turn comes. The upload is closed by whoever has it last: here, or in `execute`."""
        loop = asyncio.get_running_loop()
        session: Session | None = None
        try:
            if asked.session_id:
                session = self._sessions.take(asked.session_id, asked.session_check, loop.time())
            async with asyncio.timeout(self._settings.queue_seconds):
                await self._turns.acquire()
        except BaseException as exc:
            self._give_back(session, asked)
            if upload is not None:
                upload.file.close()
            if isinstance(exc, TimeoutError):
                most = self._settings.max_concurrent
                raise Refusal(202, f"Too many simultaneous queries. Maximum: {most}") from None
            raise
        mark = new_mark()
        job = execute.Job(
            statement=statement,
            upload=upload,
            session=session,
            database=asked.database,
            default_database=self._dsn.database,
            default_format=asked.format,
            values=asked.values,
            settings=asked.settings,
            read_only=request.method != "POST",
            coding=codecs.choose(asked.accepted),
            mark=mark,
            max_result_bytes=self._settings.max_result_bytes,
            spool=self._spool,
        )
        work = loop.run_in_executor(self._threads, execute.execute, self._engine, self._guard, job)
        self._running[mark] = work

        def done(_: object) -> None:
            del self._running[mark]
            self._turns.release()
            self._give_back(session, asked)

        work.add_done_callback(done)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The client is gone. A read is of no use to anybody; a write goes on, as it would in ClickHouse.
            work.add_done_callback(_discard)
            if statement.reads_only and not work.done():
                errand = asyncio.ensure_future(asyncio.to_thread(self._cancel, mark))
                self._errands.add(errand)
                errand.add_done_callback(self._errands.discard)
            raise

    def _give_back(self, session: Session | None, asked: parameters.Parameters) -> None:
        if session is None:
            return
        lifetime = (
            asked.session_timeout if asked.session_timeout is not None else self._settings.session_seconds
        )
        now = asyncio.get_running_loop().time()
        self._sessions.give_back(session, 0.0 if asked.close_session else lifetime, now)

    def _cancel(self, mark: str) -> None:
        with contextlib.suppress(Refusal):  # it has ended by itself
            self._engine.cancel(mark)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for session in self._sessions.expired(asyncio.get_running_loop().time()):
                await asyncio.to_thread(_close, session)


def _close(session: Session) -> None:
    if session.handle is not None:
        session.handle.close()


def _discard(work: asyncio.Future[execute.Result]) -> None:
    """Closes the file of a result that nobody waits for."""
    if not work.cancelled() and work.exception() is None and (file := work.result().file) is not None:
        file.close()


async def _pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The body, as it arrives; a form has been read as fields already."""
    if request.content_type != "multipart/form-data":
        async for piece in request.content.iter_any():
            yield piece


async def _form(request: web.BaseRequest, limit: int) -> dict[str, str]:
    """The fields of a form, which mean the same as parameters of the URL."""
    fields: dict[str, str] = {}
    left = min(limit, HEAD_BYTES * 16)
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name:
                raise Refusal(36, "the form holds a part that is not a field")
            if part.filename is not None:
                raise Refusal(48, "external data tables are not offered by this server")
            text = bytearray()
            while piece := await part.read_chunk():
                text += piece
                left -= len(piece)
                if left < 0:
                    raise codecs.too_large()
            fields[part.name] = text.decode("utf-8", "surrogateescape")
    except ValueError as exc:
        raise Refusal(36, f"the form cannot be read: {exc}") from None
    return fields


def _reached(listener: socket.socket) -> tuple[str, int]:
    """Where a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    return "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host, port  # noqa: S104 - compared, not bound


def _listen(host: str, port: int | None) -> socket.socket:
    """A listening socket; the default port gives way to a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host.strip("[]"), candidate))
        except OSError as exc:
            listener.close()
            if exc.errno == errno.EADDRINUSE and port is None and candidate != 0:
                continue
            raise ConfigError(
                f"--http {host}:{candidate}: cannot listen there: {exc.strerror or exc}"
            ) from exc
        listener.setblocking(False)
        return listener
    raise ConfigError(f"--http {host}: no free port")
