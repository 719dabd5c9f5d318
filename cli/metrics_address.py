"""`--metrics-address` of `ship`, `ingest` and `up`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.logs import say
from tailrace.cli.setting import Setting
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.schemas.health import Observed

VARIABLE = "TAILRACE_METRICS_ADDRESS"
USUAL = "127.0.0.1:9464"

MetricsAddress = Annotated[
    str,
    typer.Option(
        envvar=VARIABLE,
        metavar="HOST:PORT",
        show_default="off",
        help=f"Serve /metrics for Prometheus, /livez, /readyz and /healthz there, for example at {USUAL}. Paths of "
        "files and names of topics can be read by whoever reaches it: beyond loopback only in a trusted network.",
    ),
    Setting("metrics.address"),
]


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[::1]:9464` included.

    Raises:
        ConfigError: It is not of this form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"metrics address {text!r}: write HOST:PORT, for example {USUAL}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def worker_address(text: str, number: int) -> str:
    """The address of the n-th worker, from 0: each takes the next port; port 0 gives each a free one."""
    _, port = parse_address(text)
    if port and port + number > 65535:
        raise ConfigError(
            f"--metrics-address {text}: there is no port {port + number} for worker {number + 1}"
        )
    return f"{text.rpartition(':')[0]}:{port + number if port else 0}"


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[list[Observed]]:
    """While inside, the metrics of whatever is in the list are served; nothing is when `address` is ''.

    Until something is in it, the process is not ready.

    Raises:
        ConfigError: Nobody can listen there.
    """
    observed: list[Observed] = []
    if not address:
        yield observed
        return
    from tailrace.cli.metrics_server import MetricsServer

    host, port = parse_address(address)
    server = MetricsServer(observed)
    try:
        bound = await server.start(host, port)
    except OSError as exc:
        raise ConfigError(
            f"--metrics-address {address}: cannot listen there: {exc.strerror or exc}. Where another process has the "
            "port, choose another one; port 0 is any that is free"
        ) from exc
    say(f"metrics: http://{bound}/metrics")
    try:
        yield observed
    finally:
        await server.stop()
