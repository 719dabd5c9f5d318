"""Tailrace: what a service imports to log the trace of a request.

    >>> from tailrace import FileLogger, Trace
    >>> logger = FileLogger("logs/trace.log", project_id="shop")
    >>> trace = Trace(logger=logger)
    >>> trace.info("request received")
    >>> trace.tag([{"name": "client", "value": "bigshot_client", "type": "label"}])
    >>> trace.log("features", {"age": 41})
    >>> logger.stats().lines
    3

Nothing here raises into the service or waits for a network (but `APILogger`, for development): what cannot be
written is counted (`logger.stats()`) and warned about once. Names are imported when they are first used, and numpy,
pandas and Pillow only by the wrapper that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace import testing, types
    from tailrace.api_logger import APILogger
    from tailrace.client import Client, Metadata, User
    from tailrace.context import current_event, current_trace
    from tailrace.events import Generation, TraceEvent
    from tailrace.explorer.notebook import Connection
    from tailrace.file_logger import FileLogger
    from tailrace.handler import TailraceHandler
    from tailrace.logger import Logger, LoggerStats
    from tailrace.monitoring import configure, session
    from tailrace.schemas.errors import ConfigError, DataError, DeliveryError, NotFound, TailraceError
    from tailrace.sessions import Session
    from tailrace.tag import Tag
    from tailrace.trace import Trace
    from tailrace.traced import traced
    from tailrace.types import Arrow, DataFrame, DataType, Image, Native, Numpy, Polars, Series, load

__all__ = [
    "APILogger",
    "Arrow",
    "Client",
    "ConfigError",
    "DataError",
    "DataFrame",
    "DataType",
    "DeliveryError",
    "FileLogger",
    "Generation",
    "Image",
    "Logger",
    "LoggerStats",
    "Metadata",
    "Native",
    "NotFound",
    "Numpy",
    "Polars",
    "Series",
    "Session",
    "Tag",
    "TailraceError",
    "TailraceHandler",
    "Trace",
    "TraceEvent",
    "User",
    "configure",
    "connect",
    "current_event",
    "current_trace",
    "load",
    "session",
    "testing",
    "traced",
    "types",
]

_HOME = {
    "APILogger": "tailrace.api_logger",
    "Arrow": "tailrace.types",
    "Client": "tailrace.client",
    "ConfigError": "tailrace.schemas.errors",
    "DataError": "tailrace.schemas.errors",
    "DataFrame": "tailrace.types",
    "DataType": "tailrace.types",
    "DeliveryError": "tailrace.schemas.errors",
    "FileLogger": "tailrace.file_logger",
    "Generation": "tailrace.events",
    "Image": "tailrace.types",
    "Logger": "tailrace.logger",
    "LoggerStats": "tailrace.logger",
    "Metadata": "tailrace.client",
    "Native": "tailrace.types",
    "NotFound": "tailrace.schemas.errors",
    "Numpy": "tailrace.types",
    "Polars": "tailrace.types",
    "Series": "tailrace.types",
    "Session": "tailrace.sessions",
    "Tag": "tailrace.tag",
    "TailraceError": "tailrace.schemas.errors",
    "TailraceHandler": "tailrace.handler",
    "Trace": "tailrace.trace",
    "TraceEvent": "tailrace.events",
    "User": "tailrace.client",
    "configure": "tailrace.monitoring",
    "current_event": "tailrace.context",
    "current_trace": "tailrace.context",
    "load": "tailrace.types",
    "session": "tailrace.monitoring",
    "traced": "tailrace.traced",
}


def connect(dsn: str, *, max_seconds: float = 60) -> Connection:
    """Open a Tailrace database for reading, as in a notebook; see `tailrace.explorer.notebook`.

        tailrace.connect("chdb:///var/lib/tailrace").slice("client==acme").by("sdk_version").metrics("latency_ms").to_pandas()

    Args:
        dsn: `chdb:///DIRECTORY` or `clickhouse://user@host:8123/database`.
        max_seconds: ClickHouse stops a question that takes longer.

    Raises:
        ConfigError: The DSN is none, or what reading needs is not installed.
        TailraceError: The database cannot be read.
    """
    try:
        notebook = import_module("tailrace.explorer.notebook")
    except ModuleNotFoundError as exc:
        from tailrace.schemas.errors import ConfigError

        raise ConfigError(f"reading needs {exc.name}: pip install 'tailrace[explorer]'") from exc
    connection: Connection = notebook.connect(dsn, max_seconds=max_seconds)
    return connection


def __getattr__(name: str) -> Any:
    if name in ("testing", "types"):
        return import_module(f"tailrace.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'tailrace' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
