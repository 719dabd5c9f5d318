"""`tailrace top`: what running shippers and ingestors do, live."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.environment import environment
from tailrace.cli.metrics_address import USUAL, VARIABLE, parse_address
from tailrace.cli.options import Format, ReportFormat
from tailrace.cli.progress import size
from tailrace.cli.render import print_json
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from tailrace.cli.scrape import Process, Scrape

_ROWS = 15
"""Of files and of partitions; more do not help to see what is wrong."""
_STALLED = 5.0
"""Seconds without progress that are worth a word."""


def top(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ADDRESS…]",
            show_default=f"{VARIABLE}, or {USUAL}",
            help="Where processes serve their metrics, HOST:PORT each.",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between looks, which rates are taken over.")
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, one interval apart, print, and exit.")
    ] = False,
    format: Format = ReportFormat.table,
) -> None:
    """Watch shippers and ingestors: files and partitions that are behind, rates, dead letters.

    Reads the /metrics of processes that were started with --metrics-address. With --once the exit code is 1 when
    one of them cannot be reached. `json` prints a document a look.

    Examples:

        tailrace top 127.0.0.1:9464 127.0.0.1:9465

        tailrace top shop-1:9464 --once --format json
    """
    wanted = addresses or [environment().get(VARIABLE) or USUAL]
    for address in wanted:
        parse_address(address)
    watcher = _Watcher(wanted)
    watcher.look()
    if format is ReportFormat.json or once:
        while True:
            time.sleep(interval)
            processes = watcher.look()
            _print(processes, format)
            if once:
                raise typer.Exit(any(process.error for process in processes))
    _live(watcher, interval)


class _Watcher:
    """Asks all addresses at once, and keeps the last answers for rates."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._before: dict[str, Scrape] = {}

    def look(self) -> list[Process]:
        """How it stands at each address."""
        with ThreadPoolExecutor(min(32, len(self._addresses))) as pool:
            return list(pool.map(self._look_at, self._addresses))

    def _look_at(self, address: str) -> Process:
        from tailrace.cli.scrape import Process, fetch, process_of

        try:
            scrape = fetch(address, time.monotonic())
        except (OSError, ValueError) as exc:
            self._before.pop(address, None)
            return Process(address, error=str(exc))
        before = self._before.get(address)
        self._before[address] = scrape
        return process_of(address, scrape, before, time.time())


def _print(processes: Sequence[Process], format: ReportFormat) -> None:
    from rich.console import Console

    if format is ReportFormat.json:
        print_json({"at": round(time.time(), 3), "processes": processes})
        return
    console = Console()
    console.print(view(processes))


def _live(watcher: _Watcher, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal:
        raise ConfigError("top needs a terminal: use --once, or --format json, in scripts")
    with Live(view(watcher.look()), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(view(watcher.look()), refresh=True)


def view(processes: Sequence[Process]) -> Group:
    """The tables of one look: processes, then partitions, files, dead letters and losses where there are any."""
    from rich.console import Group

    tables = [_processes(processes)]
    away = [(process.address, _plain(process.error)) for process in processes if process.error]
    if away:
        tables.append(_table(("away", ""), away))
    partitions = [(process.address, each) for process in processes for each in process.partitions]
    partitions.sort(key=lambda pair: (-pair[1].lag_records, pair[1].topic, pair[1].partition))
    if partitions:
        rows = (
            (f"{each.topic}/{each.partition}", f"{each.lag_records:,}", f"{each.lag_seconds:.1f} s", address)
            for address, each in partitions[:_ROWS]
        )
        tables.append(_table(("partition", "records behind", "seconds behind", "at"), rows))
    files = [(process.address, each) for process in processes for each in process.files]
    files.sort(key=lambda pair: -pair[1].lag_bytes)
    if files:
        shown = ((_plain(each.file), size(each.lag_bytes), address) for address, each in files[:_ROWS])
        tables.append(_table(("file", "to go", "at"), shown))
    bad = [
        (_plain(f"{what}, {name}"), f"{count:,}", process.address)
        for process in processes
        for what, counts in (("dead letters", process.dead_letters), ("bytes lost", process.lost_bytes))
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    if bad:
        tables.append(_table(("", "count", "at"), bad))
    return Group(*tables)


def _processes(processes: Sequence[Process]) -> Table:
    names = ("process", "", "state", "lines/s", "bytes/s", "behind", "fresh", "dead letters/s")
    return _table(names, map(_row, processes))


def _row(process: Process) -> tuple[str, ...]:
    if process.error:
        return (process.address, "", "[red]away[/red]", *("",) * 5)
    state = "[green]ready[/green]" if process.ready else "[red]not ready[/red]"
    if process.stalled_seconds >= _STALLED:
        state += f"\n[red]stalled {process.stalled_seconds:.0f} s[/red]"
    behind = [size(process.lag_bytes)] if process.role in ("ship", "up") else []
    behind += [f"{process.lag_records:,} records"] if process.role == "ingest" else []
    return (
        process.address,
        process.role,
        state,
        _number(process.lines_per_second),
        "" if process.bytes_per_second is None else size(process.bytes_per_second),
        ", ".join(behind),
        "" if process.fresh_seconds is None else f"{process.fresh_seconds:,.1f} s",
        _number(process.dead_letters_per_second),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for name in names:
        numeric = name.endswith("/s") or "behind" in name or name in ("count", "to go", "fresh")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name != "", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
