"""A front by itself, for tests and for looking at an embedded database by hand; not a command of the contract.

    python -m tailrace.explorer.front --path DIR [--host H] [--port P] [--database D] [--lines DIR] [--setting max_concurrent=2 …]

The token is taken from `TAILRACE_HTTP_TOKEN`. The address stands in the announcement file in DIR once it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec

from tailrace.explorer.front.intake import Intake
from tailrace.explorer.front.server import Front
from tailrace.explorer.front.settings import FrontSettings
from tailrace.schemas.clickhouse.connection import DEFAULT_DATABASE, Dsn, open_engine
from tailrace.schemas.errors import TailraceError


async def _run(dsn: Dsn, settings: FrontSettings, intake: Intake | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Front(dsn, settings, intake):
        await stopped.wait()


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tailrace.explorer.front")
    parser.add_argument(
        "--path", required=True, help="directory of the embedded database; made when it is not there"
    )
    parser.add_argument("--host", default=FrontSettings.__struct_defaults__[0])
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--database", default=DEFAULT_DATABASE)
    parser.add_argument(
        "--lines", default="", help="directory for the lines that loggers send; nobody reads it here"
    )
    parser.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE", help="a field of FrontSettings"
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    fields = dict(pair.split("=", 1) for pair in given.setting)
    fields |= {"host": given.host, "token": os.environ.get("TAILRACE_HTTP_TOKEN", "")}
    try:
        settings = msgspec.convert(
            fields | ({} if given.port is None else {"port": given.port}), FrontSettings, strict=False
        )
        dsn = Dsn(embedded=True, path=os.path.realpath(given.path), database=given.database)
        client = open_engine(dsn)
        asyncio.run(_run(dsn, settings, Intake(Path(given.lines)) if given.lines else None))
        client.close()
    except (TailraceError, msgspec.ValidationError) as exc:
        logging.getLogger(__name__).error("%s", exc)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
