"""How the program's own log lines look, on stderr: for people, or one JSON document a line for a log collector."""

from __future__ import annotations

import logging
import sys
import time
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from tailrace.cli.setting import Setting

_CONSOLE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# clickhouse_connect gives urllib3 a level of its own, so its logger is named too.
_LIBRARIES = ("aiokafka", "clickhouse_connect", "urllib3", "urllib3.connectionpool", "asyncio", "aiohttp")
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """How log lines are written."""

    console = "console"
    json = "json"


LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="TAILRACE_LOG_FORMAT",
        help="`json` makes every line on stderr a document with ts, level, logger and message, for log collectors.",
    ),
    Setting("log.format"),
]


class JsonLines(logging.Formatter):
    """A log record as one JSON document: ts, level, logger, message, what the call gave as `extra`, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        whole, milliseconds = time.gmtime(record.created), int(record.msecs)
        document: dict[str, Any] = {
            "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        document |= {name: value for name, value in record.__dict__.items() if name not in _OWN}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return _encode(document)


def _encode(document: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(document, enc_hook=str).decode()
    except (UnicodeEncodeError, TypeError, ValueError):
        # A path that is no UTF-8, or a value that JSON has no place for, is told as Python writes it.
        return msgspec.json.encode({name: ascii(value) for name, value in document.items()}).decode()


def set_up(level: int, format: LogFormat, libraries_too: bool) -> None:
    """Sends the log to stderr.

    Args:
        level: From which level on.
        format: How lines look.
        libraries_too: Let libraries speak. They tell of every reconnect as an error; what matters of it we say
            ourselves, once and with the reason.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if format is LogFormat.json else logging.Formatter(_CONSOLE))
    logging.basicConfig(level=level, handlers=[handler])
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.DEBUG if libraries_too else logging.CRITICAL)
    # It tells of every request with all that is in it, passwords too.
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO if libraries_too else logging.CRITICAL)


def say(text: str, level: int = logging.INFO) -> None:
    """A sentence on stderr, whatever the log level: plain for people, a document where log lines are documents."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonLines):
            handler.handle(logging.LogRecord("tailrace.cli", level, "", 0, text, None, None))
            return
    print(text, file=sys.stderr, flush=True)
