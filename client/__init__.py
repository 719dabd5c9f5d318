"""Tailrace: what a service imports to log the trace of a request.

    from tailrace import FileLogger, Trace

    logger = FileLogger("/var/log/shop/trace.log", project_id="shop")
    trace = Trace(logger=logger)
    trace.info("request received")
    trace.tag([{"name": "client", "value": "bigshot_client", "type": "label"}])
    trace.log("features", {"age": 41})

Nothing here raises into the service or waits for a network: what cannot be written is counted
(`logger.stats()`) and warned about once. Names are imported when they are first used, and numpy, pandas and
Pillow only by the wrapper that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace import testing, types
    from tailrace.file_logger import FileLogger
    from tailrace.logger import Logger, LoggerStats
    from tailrace.schemas.errors import ConfigError, DataError, TailraceError
    from tailrace.tag import Tag
    from tailrace.trace import Trace
    from tailrace.types import DataFrame, DataType, Image, Native, Numpy, Series, load

__all__ = [
    "ConfigError",
    "DataError",
    "DataFrame",
    "DataType",
    "FileLogger",
    "Image",
    "Logger",
    "LoggerStats",
    "Native",
    "Numpy",
    "Series",
    "Tag",
    "TailraceError",
    "Trace",
    "load",
    "testing",
    "types",
]

_HOME = {
    "ConfigError": "tailrace.schemas.errors",
    "DataError": "tailrace.schemas.errors",
    "DataFrame": "tailrace.types",
    "DataType": "tailrace.types",
    "FileLogger": "tailrace.file_logger",
    "Image": "tailrace.types",
    "Logger": "tailrace.logger",
    "LoggerStats": "tailrace.logger",
    "Native": "tailrace.types",
    "Numpy": "tailrace.types",
    "Series": "tailrace.types",
    "Tag": "tailrace.tag",
    "TailraceError": "tailrace.schemas.errors",
    "Trace": "tailrace.trace",
    "load": "tailrace.types",
}


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
