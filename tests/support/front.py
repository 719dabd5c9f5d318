"""The front in a process of its own, as `tailrace up` serves it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage
from pathlib import Path
from types import TracebackType
from typing import Any

import clickhouse_connect

from tailrace.schemas.clickhouse.connection import read_front

START_SECONDS = 60.0


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: HTTPMessage

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> str | None:
        """ClickHouse's error code."""
        return self.headers.get("X-ClickHouse-Exception-Code")


@dataclass
class FrontProcess:
    """`python -m tailrace.explorer.front` over a directory.

    Args:
        path: The embedded database; made when it is not there.
        token: The password of user `default`.
        settings: Fields of `FrontSettings`, as text.
        port: 0 takes a free one.
        lines: Where to put the lines that loggers send; None offers no such path.
    """

    path: Path
    token: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    database: str = "tailrace"
    lines: Path | None = None

    def __enter__(self) -> FrontProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [
            sys.executable,
            "-m",
            "tailrace.explorer.front",
            "--path",
            str(self.path),
            "--port",
            str(self.port),
        ]
        command += ["--database", self.database]
        command += ["--lines", str(self.lines)] if self.lines is not None else []
        for name, value in self.settings.items():
            command += ["--setting", f"{name}={value}"]
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"TAILRACE_HTTP_TOKEN": self.token},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while (info := read_front(str(self.path))) is None or info.pid != self.process.pid:
            if self.process.poll() is not None:
                raise RuntimeError(f"the front ended: {self.process.communicate()[0]}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError("the front does not start")
            time.sleep(0.02)
        self.host, self.port = info.host, info.port

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def client(self, **options: Any) -> Any:
        """A clickhouse-connect client over HTTP."""
        options = {"password": self.token, "database": self.database} | options
        return clickhouse_connect.get_client(host=self.host, port=self.port, username="default", **options)

    def request(
        self,
        body: bytes | str | None = None,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        path: str = "/",
    ) -> Reply:
        """One plain HTTP request, as Grafana and curl send them."""
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        data = body.encode() if isinstance(body, str) else body
        url = f"http://{self.host}:{self.port}{path}{query}"
        request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method)
        if data is not None and not request.has_header("Content-type"):
            request.add_header("Content-Type", "text/plain")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Reply(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(), error.headers)
