"""The front with faults: a proxy that breaks HTTP requests on a schedule, the same way every time.

    with FaultyFront(front.host, front.port, [Fault.RESET_AFTER, None, Fault.STATUS_500]) as faulty:
        client = connect(Dsn.parse(f"clickhouse://default@{faulty.host}:{faulty.port}/tailrace"))
        …
    assert faulty.done

Each request that `match` accepts takes the next entry: a fault, or `None` for none; when the schedule is used up, everything
passes. By default everything but `/ping` counts; `inserts` counts only requests that carry data, so that a client's
questions about settings do not use the schedule up. It runs in a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

_HEAD_LIMIT = 4 << 20
_FIRST_BYTES = 200
_ERROR_241 = b"Code: 241. DB::Exception: Memory limit (total) exceeded: would use 1.00 GiB. (MEMORY_LIMIT_EXCEEDED) (version 26.9.2.1)\n"
_ERROR_202 = b"Code: 202. DB::Exception: Too many simultaneous queries. Maximum: 100. (TOO_MANY_SIMULTANEOUS_QUERIES)\n"
_ERROR_516 = b"Code: 516. DB::Exception: default: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)\n"
_BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>\n"


class Fault(Enum):
    """What happens to a request."""

    STATUS_500 = "500 with ClickHouse's body and code 241; the work is not done"
    STATUS_500_BARE = "500 with an empty body and no code; the work is not done"
    STATUS_502 = "502 as from a proxy in between, in HTML; the work is not done"
    STATUS_503 = "503 with ClickHouse's code 202; the work is not done"
    WRONG_AUTH = "403 with ClickHouse's code 516; the work is not done"
    DELAY = "the answer comes `delay` seconds late; the work is done at once"
    HANG = "nothing comes for `delay` seconds, then a reset; the work is not done"
    RESET_BEFORE = "a reset as soon as the request's first bytes are here; the work is not done"
    RESET_MID_REQUEST = (
        "a reset of both sides after half of the body went on to the server; the work is not done"
    )
    RESET_AFTER = "the work is done, then a reset instead of the answer"
    TRUNCATED = "the work is done, then half of the answer and an end"


NOT_DONE = (
    Fault.STATUS_500,
    Fault.STATUS_500_BARE,
    Fault.STATUS_502,
    Fault.STATUS_503,
    Fault.RESET_BEFORE,
    Fault.RESET_MID_REQUEST,
)
"""Transient faults after which the server has done nothing."""
DONE = (Fault.RESET_AFTER, Fault.TRUNCATED)
"""Transient faults after which the server has done the work, and the client does not know."""


@dataclass(frozen=True)
class Seen:
    """One request as it passed.

    Args:
        method: The HTTP method.
        path: The URL's path.
        statement: The first 200 bytes of statement and data, `query` parameter first; packed bodies are not unpacked.
        has_data: It is an INSERT: its statement says so, or its body is packed or binary.
        fault: What happened to it.
    """

    method: str
    path: str
    statement: str
    has_data: bool
    fault: Fault | None


Match = Callable[[Seen], bool]


def everything(request: Seen) -> bool:
    """All requests but health checks."""
    return request.path != "/ping"


def inserts(request: Seen) -> bool:
    """Requests that insert data."""
    return request.has_data


def seeded(
    seed: int, length: int, rate: float, faults: Sequence[Fault] = NOT_DONE + DONE
) -> list[Fault | None]:
    """A schedule of `length` entries of which about `rate` are faults; the same for the same seed."""
    chance = random.Random(seed)
    return [chance.choice(faults) if chance.random() < rate else None for _ in range(length)]


class FaultyFront:
    """A proxy in front of ClickHouse's HTTP interface that breaks requests on a schedule.

    Args:
        upstream_host: Where the real one is.
        upstream_port: Its port; may be changed later (`upstream_port`), for a server that comes back elsewhere.
        schedule: What happens to each request that `match` accepts, in order.
        match: Which requests take an entry.
        delay: Seconds of `DELAY` and `HANG`.
    """

    def __init__(
        self,
        upstream_host: str,
        upstream_port: int,
        schedule: Iterable[Fault | None] = (),
        *,
        match: Match = everything,
        delay: float = 3.0,
    ) -> None:
        self.upstream_host = upstream_host
        self.upstream_port = upstream_port
        self.delay = delay
        self.host = "127.0.0.1"
        self.port = 0
        self._match = match
        self._schedule = deque(schedule)
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._away = False
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="faulty-front", daemon=True)
        self._listening = threading.Event()
        self._stopped = asyncio.Event()

    # ---------------------------------------------------------------- what a test uses

    def __enter__(self) -> FaultyFront:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError("the proxy did not start")

    def stop(self) -> None:
        """Stop listening and drop all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(10)

    def add(self, *faults: Fault | None) -> None:
        """Put entries behind what is left of the schedule."""
        with self._lock:
            self._schedule.extend(faults)

    def away(self, is_away: bool = True) -> None:
        """Reset every connection, as when nothing listens, until `away(False)`."""
        self._away = is_away

    @property
    def seen(self) -> list[Seen]:
        """All requests so far, in order."""
        with self._lock:
            return list(self._seen)

    @property
    def injected(self) -> list[Fault]:
        """The faults that happened so far, in order."""
        return [request.fault for request in self.seen if request.fault is not None]

    @property
    def done(self) -> bool:
        """Whether every entry of the schedule was taken by some request."""
        with self._lock:
            return not self._schedule

    # ---------------------------------------------------------------- the proxy

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, self.host, 0, limit=_HEAD_LIMIT)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopped.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not in a task")
        self._tasks.add(task)
        try:
            while not self._away and await self._request(reader, writer):
                pass
            if self._away:
                _reset(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            _reset(writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection can take another."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        if self._away:
            return False
        incoming = _Body(head, reader)
        fault = self._take(head, await incoming.first())
        if fault is None:
            writer.write(await self._forward(head + await incoming.all()))
            await writer.drain()
            return b"connection: close" not in head.lower()
        await self._break(fault, head, incoming, writer)
        return False

    async def _break(self, fault: Fault, head: bytes, body: _Body, writer: asyncio.StreamWriter) -> None:
        if fault not in (Fault.RESET_BEFORE, Fault.RESET_MID_REQUEST):
            await body.all()
        if fault is Fault.STATUS_500:
            writer.write(_answer("500 Internal Server Error", _ERROR_241, 241))
        elif fault is Fault.STATUS_500_BARE:
            writer.write(_answer("500 Internal Server Error", b"", None))
        elif fault is Fault.STATUS_502:
            writer.write(_answer("502 Bad Gateway", _BAD_GATEWAY, None))
        elif fault is Fault.STATUS_503:
            writer.write(_answer("503 Service Unavailable", _ERROR_202, 202))
        elif fault is Fault.WRONG_AUTH:
            writer.write(_answer("403 Forbidden", _ERROR_516, 516))
        elif fault is Fault.DELAY:
            answer = await self._forward(head + await body.all())
            await asyncio.sleep(self.delay)
            writer.write(answer)
        elif fault is Fault.HANG:
            await asyncio.sleep(self.delay)
            _reset(writer)
        elif fault is Fault.RESET_BEFORE:
            _reset(writer)
        elif fault is Fault.RESET_MID_REQUEST:
            await self._half(head + await body.half())
            _reset(writer)
        elif fault is Fault.RESET_AFTER:
            await self._forward(head + await body.all())
            _reset(writer)
        elif fault is Fault.TRUNCATED:
            answer = await self._forward(head + await body.all())
            # An answer without a body worth cutting (to an INSERT) is cut before its status: clients take a head that
            # breaks off later for a whole one.
            body_at = answer.index(b"\r\n\r\n") + 4
            cut = (body_at + len(answer)) // 2 if len(answer) - body_at > 1 else len(b"HTTP/1.1")
            writer.write(answer[:cut])
        if not writer.is_closing():
            await writer.drain()

    def _take(self, head: bytes, first: bytes) -> Fault | None:
        request = _describe(head, first)
        with self._lock:
            fault = self._schedule.popleft() if self._schedule and self._match(request) else None
            self._seen.append(replace(request, fault=fault))
            return fault

    async def _forward(self, request: bytes) -> bytes:
        """The server's whole answer, with its body in one piece."""
        reader, writer = await asyncio.open_connection(
            self.upstream_host, self.upstream_port, limit=_HEAD_LIMIT
        )
        try:
            writer.write(request)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100"):
                head = await reader.readuntil(b"\r\n\r\n")
            bodyless = request.startswith(b"HEAD ") or head.split(b" ", 2)[1] in (b"204", b"304")
            return head if bodyless else head + await _Body(head, reader).all()
        finally:
            writer.close()

    async def _half(self, request: bytes) -> None:
        """Sends the server half a request and resets that connection too."""
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection(self.upstream_host, self.upstream_port)
            writer.write(request)
            await writer.drain()
            _reset(writer)


class _Body:
    """The body behind a head, as it stands on the wire, read as far as is asked for."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader) -> None:
        headers = _headers(head)
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._length = int(headers.get("content-length", "0"))
        self._reader = reader
        self._read = bytearray()
        self._ended = False

    async def first(self) -> bytes:
        """The first bytes, without the frame of a chunk."""
        if self._chunked:
            await self._chunk()
            return bytes(self._read).partition(b"\r\n")[2]
        await self._until(min(self._length, _FIRST_BYTES))
        return bytes(self._read)

    async def half(self) -> bytes:
        """About half of it; of a chunked body whatever is read already."""
        if not self._chunked:
            await self._until(max(len(self._read), self._length // 2))
            return bytes(self._read[: self._length // 2])
        return bytes(self._read[: len(self._read) // 2])

    async def all(self) -> bytes:
        """All of it."""
        if not self._chunked:
            await self._until(self._length)
        while self._chunked and not self._ended:
            await self._chunk()
        return bytes(self._read)

    async def _until(self, length: int) -> None:
        self._read += await self._reader.readexactly(length - len(self._read))

    async def _chunk(self) -> None:
        line = await self._reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        self._read += line + await self._reader.readexactly(size + 2)
        self._ended = size == 0


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
        if name
    }


def _describe(head: bytes, first: bytes) -> Seen:
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    url = urlsplit(target)
    query = parse_qs(url.query).get("query", [""])[0]
    statement = (query + "\n" + first.decode("latin-1")).strip()[:_FIRST_BYTES]
    packed = _headers(head).get("content-encoding", "identity") not in ("", "identity")
    return Seen(
        method, url.path, statement, bool(first) and (packed or statement[:6].upper() == "INSERT"), None
    )


def _answer(status: str, body: bytes, code: int | None) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; charset=UTF-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if code is not None:
        lines.append(f"X-ClickHouse-Exception-Code: {code}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST, as a crashed or firewalled peer does, and not with a polite FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
