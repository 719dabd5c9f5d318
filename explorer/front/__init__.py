"""ClickHouse's HTTP interface in front of the embedded engine.

chDB allows one process a directory. The process that holds it serves this front on loopback, so that the other
commands, clickhouse-connect, Grafana and DBeaver can ask it while it runs.

    front = await serve(dsn)
    …
    await front.stop()

A request passes through these files, in this order:

- `server`      accepts it and hands it from step to step
- `access`      whose request it is, and whether a browser was tricked into sending it
- `parameters`  what its URL and headers say
- `body`        receives, decompresses and spools what it carries
- `statement`   what kind of SQL it is, and where an INSERT's data begins (`lexer` makes the tokens)
- `guard`       what a remote caller may not do
- `execute`     runs it on the engine (`engine`, `sessions`), in a thread
- `respond`     the answer, or ClickHouse's kind of error (`refusal`)

Lines that loggers send (`schemas.intake`) go from `access` straight to `intake`: into a file that `tailrace up` tails.

Not offered: ClickHouse's own block compression (`compress=1`, `decompress=1`; use `Content-Encoding`), external data
tables, `INSERT … SELECT … FROM input(…)` with data in the request, several statements in one request, and the
web pages `/play` and `/dashboard`.
"""

from tailrace.explorer.front.server import Front, serve
from tailrace.explorer.front.settings import FrontSettings

__all__ = ["Front", "FrontSettings", "serve"]
