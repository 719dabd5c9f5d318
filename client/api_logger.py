"""A logger for development: each line by HTTP to a running `tailrace up`, and answered when it is on a disk there."""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import monotonic
from urllib.parse import urlsplit

from tailrace.file_logger import checked_project, policy
from tailrace.ids import new_trace_id
from tailrace.logger import Counters, Event, LoggerStats
from tailrace.policy import Oversized, Policy, Redact
from tailrace.schemas.errors import ConfigError, DeliveryError
from tailrace.schemas.intake import CONTENT_TYPE, KEY_HEADER, LINES_PATH

_SILENT_SECONDS = 1.0
"""After a server did not answer, so long no further line is tried: a service that logs a lot would stand still."""
_MAX_ANSWER_BYTES = 64 * 1024
_REPEAT = (500, 502, 503, 504)


class APILogger:
    """Sends lines to `tailrace up`, one request a line. For development: it makes the service wait for the network.

    When `write` returns, the line is on the server's disk, or was counted as dropped. A request that got no answer, or
    the answer that the server is not well, is repeated once under the same key, within the same `timeout`; the server
    stores it once (and equal lines are one row in any case). After a server was out of reach, lines are dropped for a
    second without trying.

    Args:
        url: Of the server, such as `http://127.0.0.1:8123`. Certificates of `https` are verified.
        project_id: The project that every line names.
        token: What the server calls TAILRACE_HTTP_TOKEN. By default the environment's TAILRACE_TOKEN, else none. Over
            plain `http` whoever is on the way can read it.
        timeout: Seconds that one line may take in all.
        raise_errors: Raise `DeliveryError` for a line that is not taken, through `Trace` too, and try every line: for
            who wants to see what is wrong. Otherwise nothing raises.
        ca_file: Certificates to trust instead of the system's, as PEM.
        sample_rate: As for `Policy`.
        redact: As for `Policy`.
        max_object_bytes: As for `Policy`.
        oversized: As for `Policy`. There is no file to put an object beside, so it is truncated in any case.

    Raises:
        ConfigError: The URL is none, or holds a password; the token cannot be sent; a number is out of its range.
    """

    def __init__(
        self,
        url: str,
        project_id: str,
        token: str | None = None,
        timeout: float = 5.0,
        *,
        raise_errors: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
        sample_rate: float = 1.0,
        redact: Redact | None = None,
        max_object_bytes: int = 1024 * 1024,
        oversized: Oversized | str = Oversized.SPILL,
    ) -> None:
        self._project_id = checked_project(project_id)
        self._policy = policy(sample_rate, redact, max_object_bytes, oversized)
        if not timeout > 0:
            raise ConfigError(f"timeout must be more than 0 seconds, not {timeout!r}")
        self._url, self._path, self._connect = _server(url, ca_file)
        self._token = os.environ.get("TAILRACE_TOKEN", "") if token is None else token
        if not self._token.isascii() or not (self._token.isprintable() and " " not in self._token):
            raise ConfigError("the token holds a character that an HTTP header cannot carry")
        self._timeout = timeout
        self._raise_errors = raise_errors
        self._counters = Counters()
        self._lines = 0
        self._closed = False
        self._silent_until = 0.0
        self._why_silent = ""
        # Idle connections. Whoever sends takes one out, so neither threads nor signal handlers can meet in one.
        self._idle: deque[tuple[int, HTTPConnection]] = deque(maxlen=8)

    @property
    def project_id(self) -> str:
        """The project that every line names."""
        return self._project_id

    @property
    def policy(self) -> Policy:
        """What traces ask before they put a line together."""
        return self._policy

    @property
    def url(self) -> str:
        """Where lines go."""
        return self._url

    def write(self, line: bytes) -> None:
        """Send one line, which ends in its only newline. A line that is not taken is counted.

        Raises:
            DeliveryError: With `raise_errors` only: it was not taken.
        """
        if self._closed:
            self._failed("closed", "the logger was closed before the line came")
            return
        if not self._raise_errors and monotonic() < self._silent_until:
            self._failed(self._why_silent, f"{self._url} was out of reach a moment ago")
            return
        try:
            status, text = self._deliver(line)
        except Exception as exc:
            # Not OSError alone: an answer that is no HTTP, or an interpreter that is shutting down, raise others.
            self._why_silent = _reason(exc)
            self._silent_until = monotonic() + _SILENT_SECONDS
            self._failed(self._why_silent, f"{self._url}: {exc or type(exc).__name__}")
            return
        if status != 200:
            self._failed(
                f"HTTP {status}", f"{self._url} refuses lines with HTTP {status}: {text.strip()[:300]}"
            )
        elif _taken(text) != 1:
            self._failed("not a Tailrace", f"{self._url} answers, but not as a running `tailrace up` does")
        else:
            self._lines += 1

    def count(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        """Count what the caller of `write` had to drop, alter or leave out."""
        self._counters.add(event, number, reason, detail)

    def stats(self) -> LoggerStats:
        """What was taken by the server and what was not, so far, in this process."""
        return self._counters.snapshot(self._lines)

    def flush(self) -> None:
        """Nothing to do: every line was answered when `write` returns."""

    def close(self) -> None:
        """Close the connections; lines that come later are counted as dropped. May be called twice."""
        self._closed = True
        while self._idle:
            with suppress(Exception):  # another thread took the last one, or it does not close
                self._idle.pop()[1].close()

    def _failed(self, reason: str, detail: str) -> None:
        if self._token:
            detail = detail.replace(self._token, "***")  # should anybody repeat it to us
        self._counters.add(Event.DROPPED, 1, reason, detail)
        if self._raise_errors:
            raise DeliveryError(detail) from None

    def _deliver(self, line: bytes) -> tuple[int, str]:
        """Status and text of the answer; raises what kept it from coming."""
        deadline = monotonic() + self._timeout
        headers = {"Content-Type": CONTENT_TYPE, KEY_HEADER: new_trace_id()}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            status, text = self._ask(line, headers, deadline, fresh=False)
            if status not in _REPEAT:
                return status, text
        except (OSError, HTTPException):
            # Perhaps only a connection that the server had closed while it was idle.
            if monotonic() >= deadline:
                raise
        return self._ask(line, headers, deadline, fresh=True)

    def _ask(self, line: bytes, headers: dict[str, str], deadline: float, *, fresh: bool) -> tuple[int, str]:
        connection = None if fresh else self._taken_from_idle()
        left = max(0.001, deadline - monotonic())
        if connection is None:
            connection = self._connect(left)
        elif connection.sock is not None:
            connection.sock.settimeout(left)
        try:
            connection.request("POST", self._path, line, headers)
            answer: HTTPResponse = connection.getresponse()
            text = answer.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
            reusable = answer.isclosed() and not answer.will_close
        except BaseException:
            connection.close()
            raise
        if reusable and not self._closed:
            self._idle.append((os.getpid(), connection))
        else:
            connection.close()
        return answer.status, text

    def _taken_from_idle(self) -> HTTPConnection | None:
        try:
            while True:
                pid, connection = self._idle.pop()
                if pid == os.getpid():
                    return connection
                # The parent's: this process must not say a word in it.
        except IndexError:
            return None

    def __repr__(self) -> str:
        return f"APILogger({self._url!r}, {self._project_id!r})"


def _server(
    url: str, ca_file: str | os.PathLike[str] | None
) -> tuple[str, str, Callable[[float], HTTPConnection]]:
    """The URL without what does not belong in it, the path of requests, and how to connect within so many seconds."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"the url cannot be read: {exc}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the url must not hold a password: give it as token, or in TAILRACE_TOKEN")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(f"url must be like http://127.0.0.1:8123, not {url!r}")
    plain = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    path = f"{parts.path.rstrip('/')}{LINES_PATH}"
    if parts.scheme == "http":
        return plain, path, lambda seconds: HTTPConnection(host, port, timeout=seconds)
    import ssl

    try:
        context = ssl.create_default_context(cafile=os.fspath(ca_file) if ca_file is not None else None)
    except OSError as exc:
        raise ConfigError(f"ca_file {os.fspath(ca_file or '')}: {exc}") from exc
    return plain, path, lambda seconds: HTTPSConnection(host, port, timeout=seconds, context=context)


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "timeout"
    # The numbers of TLS errors are others.
    code = exc.errno if isinstance(exc, OSError) and type(exc).__module__ != "ssl" else None
    return errno.errorcode.get(code or 0, type(exc).__name__)


def _taken(answer: str) -> object:
    """How many lines the server says it took; None if it says something else."""
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    return found.get("lines") if isinstance(found, dict) else None
