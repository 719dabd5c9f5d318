"""`--metrics-address`: a small HTTP server in the event loop of the work, so that an answer says that the loop turns.

| path       | answers                                                                       |
|------------|-------------------------------------------------------------------------------|
| `/metrics` | what `tailrace.schemas.metrics` lists, for Prometheus                           |
| `/livez`   | 200, always: that it answers is the point                                      |
| `/readyz`  | 200 when the process can do its work, else 503, with a line for each check    |
| `/healthz` | the same as JSON, with what to do                                              |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from importlib.metadata import version
from typing import NamedTuple

import h11
import msgspec

from tailrace.cli.metrics_text import exposition
from tailrace.schemas import metrics
from tailrace.schemas.diagnosis import Check, Status, fail
from tailrace.schemas.health import Observed
from tailrace.schemas.metrics import Reading

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.8
"""A look waits so long for news of a side that was quiet, less than the second after which Kubernetes gives up; after
that it says what is known. The question goes on, and the next look has its answer."""
REQUEST_SECONDS = 10.0
"""A connection lives no longer: one request, one answer."""
MOST_CONNECTIONS = 32
_HEAD_BYTES = 16 * 1024
_TEXT = "text/plain; charset=utf-8"


class _Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


class MetricsServer:
    """Answers from facts in memory; only a side that was quiet is asked first.

    Args:
        observed: The parts of the process; may grow while this runs. Nothing is ready while it is empty.
    """

    def __init__(self, observed: Sequence[Observed]) -> None:
        self._observed = observed
        self._server: asyncio.Server | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> str:
        """Listen, and return where, as `HOST:PORT`.

        Raises:
            OSError: The address cannot be listened on.
        """
        self._server = await asyncio.start_server(self._connected, host, port, limit=_HEAD_BYTES)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        """Listen no more, and end what is under way."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._connections, *([self._refreshing] if self._refreshing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                try:
                    request = await _receive(connection, reader)
                    answer, bodiless = await self._answer(request), request.method == b"HEAD"
                except h11.RemoteProtocolError as exc:
                    answer = _Answer(exc.error_status_hint, _TEXT, b"this is no HTTP request\n")
                    bodiless = False
                writer.write(_encode(connection, answer, bodiless))
                await writer.drain()
        except (OSError, TimeoutError, EOFError):
            return
        except Exception:
            log.exception("a request to the metrics address failed")
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: h11.Request) -> _Answer:
        if request.method not in (b"GET", b"HEAD"):
            return _Answer(405, _TEXT, b"GET or HEAD\n")
        path = request.target.partition(b"?")[0]
        if path == b"/livez":
            return _Answer(200, _TEXT, b"alive\n")
        if path not in (b"/metrics", b"/readyz", b"/healthz"):
            return _Answer(404, _TEXT, b"/metrics /livez /readyz /healthz\n")
        await self._refresh()
        checks = self._checks()
        ready = is_ready(checks)
        if path == b"/metrics":
            accept = b", ".join(value for name, value in request.headers if name == b"accept")
            body, content_type = exposition(
                [*self._readings(), Reading(metrics.READY, ready)], accept.decode("latin-1")
            )
            return _Answer(200, content_type, body)
        status = 200 if ready else 503
        if path == b"/readyz":
            lines = "".join(f"{check.status:4}  {check.name}: {check.detail}\n" for check in checks)
            return _Answer(status, _TEXT, lines.encode())
        document = {"ready": ready, "version": version("tailrace"), "checks": checks}
        return _Answer(status, "application/json", msgspec.json.encode(document) + b"\n")

    def _readings(self) -> Iterable[Reading]:
        return [reading for part in self._observed for reading in part.readings()]

    def _checks(self) -> list[Check]:
        if not self._observed:
            return [fail("start", "still starting", "read the log for what it waits for")]
        return [check for part in self._observed for check in part.checks()]

    async def _refresh(self) -> None:
        """One question at a time, however many look."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._ask())
        await asyncio.wait([self._refreshing], timeout=REFRESH_SECONDS)

    async def _ask(self) -> None:
        for result in await asyncio.gather(
            *(part.refresh() for part in self._observed), return_exceptions=True
        ):
            if isinstance(result, Exception):
                log.warning("cannot look after health: %r", result)


def is_ready(checks: Iterable[Check]) -> bool:
    """Whether the process can do its work: nothing failed."""
    return all(check.status is not Status.FAIL for check in checks)


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request:
    """The head of a request; a body is not waited for, the connection ends with the answer."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            raise EOFError
        connection.receive_data(await reader.read(_HEAD_BYTES))


def _encode(connection: h11.Connection, answer: _Answer, bodiless: bool) -> bytes:
    headers = [
        ("content-type", answer.content_type),
        ("content-length", str(len(answer.body))),
        ("cache-control", "no-store"),
        ("connection", "close"),
    ]
    events: list[h11.Event] = [
        h11.Response(
            status_code=answer.status, reason=HTTPStatus(answer.status).phrase.encode(), headers=headers
        )
    ]
    if not bodiless:
        events.append(h11.Data(data=answer.body))
    return b"".join(connection.send(event) or b"" for event in events)
