"""`tailrace dead-letters`: lines that could not become records."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import msgspec
import typer

from tailrace.cli.options import ClickHouse, Format, MaxLineBytes, ReportFormat
from tailrace.cli.progress import size
from tailrace.cli.reading import period
from tailrace.cli.render import Column, print_json, print_line, print_table, visible
from tailrace.cli.setting import Setting
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.explorer.dead_letters import DeadLetters, Letter, LetterFilter
    from tailrace.ingestor.edit import EditCommand
    from tailrace.ingestor.replay import LetterLine

app = typer.Typer(
    name="dead-letters",
    no_args_is_help=True,
    help="""Lines that could not become records: look at them, mend them, store them after all.

Start with `tailrace dead-letters list`, then `show` one of the ids, and `replay` what was mended.
""",
)


class StateOption(StrEnum):
    """Which letters are meant."""

    OPEN = "open"
    REPLAYED = "replayed"
    ALL = "all"


class ExportFormat(StrEnum):
    """How letters are written out."""

    JSONL = "jsonl"
    RAW = "raw"


Reason = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="REASON", help="Only this reason, as `list` shows it; may be repeated."),
]
Origin = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Only from here: part of a path, a topic, TOPIC/PARTITION, or a file's id."
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        envvar="TAILRACE_PROJECT",
        metavar="PROJECT",
        help="Only with this project_id in their bytes; what names none is left out.",
    ),
    Setting("read.project"),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Received at or after this: 2026-11-20, 2026-11-20T08:00:00Z, 24h, 7d."
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Received before this; as --since.")]
State = Annotated[StateOption, typer.Option(help="Letters that are still open, or were replayed, or all.")]


@app.command("list")
def list_command(
    clickhouse: ClickHouse = "",
    reason: Reason = None,
    origin: Origin = None,
    since: Since = None,
    until: Until = None,
    project: Project = None,
    state: State = StateOption.OPEN,
    each: Annotated[bool, typer.Option("--each", help="A row a letter instead of a row a group.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 50,
    format: Format = ReportFormat.table,
) -> None:
    """Dead letters by reason and origin, the latest first.

    Examples:

        tailrace dead-letters list --since 24h

        tailrace dead-letters list --reason not_json --origin app.log --each
    """
    wanted = _filter(reason, origin, since, until, project, state)
    with _opened(clickhouse) as (letters, _):
        total = letters.count(wanted)
        singles = letters.letters(wanted, limit) if each else ()
        groups = () if each else letters.groups(wanted, limit)
    if format is ReportFormat.json:
        found: dict[str, Any] = {"each": singles} if each else {"groups": groups}
        print_json({"letters": total, "state": state.value, **found})
        return
    if singles:
        names = ("id", "received (UTC)", "reason", "origin", "detail")
        rows = [[x.id, _time(x.received_at), x.reason, x.origin, x.detail] for x in singles]
        print_table([Column(name) for name in names], rows)
    if groups:
        columns = [Column("letters", right=True), Column("reason"), Column("origin"), Column("last (UTC)")]
        columns += [Column("latest"), Column("detail of the latest")]
        rows = [[f"{x.letters:,}", x.reason, x.origin, _time(x.last), x.latest, x.detail] for x in groups]
        print_table(columns, rows)
    kind = "" if state is StateOption.ALL else f" {state.value}"
    shown = len(singles) + sum(group.letters for group in groups)
    print_line(f"{total:,}{kind} dead letters" + (f", {shown:,} of them shown" if shown < total else ""))


@app.command()
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it; its beginning is enough.")],
    clickhouse: ClickHouse = "",
    whole: Annotated[
        bool, typer.Option("--whole", help="All bytes, not only those around the fault.")
    ] = False,
    format: Format = ReportFormat.table,
) -> None:
    """One dead letter: where it came from, why it is none, and its bytes with a caret under the fault.

    Bytes that a terminal would obey or cannot show are printed as escapes.

    Examples:

        tailrace dead-letters show 9f3c

        tailrace dead-letters show 9f3c --whole
    """
    from tailrace.cli.raw_line import WIDTH, pointed
    from tailrace.explorer.json_position import position_of

    with _opened(clickhouse) as (letters, _):
        found, raw = letters.find(letter)
        tried = letters.attempted(found) or raw
    column = position_of(tried, found.reason, found.detail) if found.column is None else found.column
    if format is ReportFormat.json:
        edited = {} if tried == raw else {"attempted_base64": base64.b64encode(tried).decode()}
        print_json({**_document(found, raw), "column": column, **edited})
        return
    print_line(f"dead letter {found.id}  {found.state}")
    print_line(f"received  {_time(found.received_at)} UTC")
    print_line(f"origin    {found.origin}")
    if found.source == "kafka" and found.file_id:
        print_line(f"          file {found.file_id}, byte {found.byte}")
    kept = f", of which {size(len(raw))} are kept" if found.length > len(raw) else ""
    print_line(f"length    {size(found.length)}{kept}")
    print_line(f"reason    {found.reason}: {found.detail}")
    if found.attempts:
        print_line(f"replayed  {found.attempts} times")
    if found.replayed_at is not None:
        where = f"{found.table}, project {found.project_id}, trace {found.trace_id}"
        print_line(f"stored    {_time(found.replayed_at)} UTC in {where}")
    print_line()
    if tried != raw:
        print_line(pointed(raw, None, len(raw) if whole else WIDTH)[0])
        print_line()
        print_line("replayed as")
    line, mark = pointed(tried, column, len(tried) if whole else WIDTH)
    print_line(line)
    if mark:
        print_line(f"{mark} byte {column}")


@app.command()
def replay(
    clickhouse: ClickHouse = "",
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Only this letter; may be repeated.")
    ] = None,
    reason: Reason = None,
    origin: Origin = None,
    since: Since = None,
    until: Until = None,
    project: Project = None,
    edit_with: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="Mend each letter first: CMD gets the line on stdin and prints the mended one. Run without a shell.",
        ),
    ] = None,
    edit_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long CMD may take for one letter.")
    ] = 10.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become of them; store nothing.")
    ] = False,
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    format: Format = ReportFormat.table,
) -> None:
    """Store open dead letters after all, each exactly once, with the times that they were logged with.

    For letters whose cause was mended: by a newer version of Tailrace, by a larger --max-line-bytes, or by --edit-with.
    What is stored is marked as replayed; what is refused again stays, with the new reason. It may be ended at any time and
    started again. The exit code is 1 when any letter stayed.

    Examples:

        tailrace dead-letters replay --reason unknown_version

        tailrace dead-letters replay --reason not_json --edit-with "sed s/NaN,,/NaN,/" --dry-run
    """
    from tailrace.ingestor.edit import EditCommand

    command = None if edit_with is None else EditCommand.parse(edit_with, edit_seconds)
    wanted = _filter(reason, origin, since, until, project, StateOption.OPEN)
    with _opened(clickhouse) as (letters, client):
        report = asyncio.run(_replay(letters, client, wanted, ids, command, dry_run, max_line_bytes))
    if format is ReportFormat.json:
        print_json(report)
    else:
        _print_replay(report, dry_run)
    if report["rejected"] or report["skipped"]:
        raise typer.Exit(1)


@app.command()
def export(
    clickhouse: ClickHouse = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; stdout when left out.")
    ] = None,
    reason: Reason = None,
    origin: Origin = None,
    since: Since = None,
    until: Until = None,
    project: Project = None,
    state: State = StateOption.OPEN,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format", help="`jsonl`: an object a letter, bytes as base64. `raw`: the lines as they were."
        ),
    ] = ExportFormat.JSONL,
) -> None:
    """Write dead letters out, with their bytes.

    Examples:

        tailrace dead-letters export --reason wrong_shape -o letters.jsonl

        tailrace dead-letters export --format raw -o letters.log
    """
    if format is ExportFormat.RAW and output is None and sys.stdout.isatty():
        raise ConfigError("raw bytes can make a terminal do anything: name a file with -o, or a pipe")
    wanted = _filter(reason, origin, since, until, project, state)
    with _opened(clickhouse) as (letters, _), _writing(output) as file:
        count = 0
        for letter, raw in letters.raws(letters.letters(wanted)):
            count += 1
            if format is ExportFormat.RAW:
                file.write(raw + b"\n")
            else:
                file.write(msgspec.json.encode(_document(letter, raw)) + b"\n")
    if output is not None:
        typer.echo(f"{count:,} dead letters in {visible(str(output))}", err=True)


@contextmanager
def _opened(clickhouse: str) -> Iterator[tuple[DeadLetters, Any]]:
    try:
        from tailrace.cli.defaults import database
        from tailrace.explorer.dead_letters import DeadLetters
        from tailrace.schemas.clickhouse.connection import connect
        from tailrace.schemas.clickhouse.migrate import require_current
    except ModuleNotFoundError as exc:
        raise ConfigError(f"reading needs {exc.name}: pip install 'tailrace[explorer]'") from exc
    client = connect(database(clickhouse))
    try:
        require_current(client)
        yield DeadLetters(client), client
    finally:
        client.close()


def _filter(
    reason: list[str] | None,
    origin: str | None,
    since: str | None,
    until: str | None,
    project: str | None,
    state: StateOption,
) -> LetterFilter:
    from tailrace.explorer.dead_letters import LetterFilter
    from tailrace.schemas.errors import Reason

    known = [each.value for each in Reason]
    for each in reason or ():
        if each not in known:
            raise ConfigError(f"--reason {each}: there are {', '.join(known)}")
    return LetterFilter(tuple(reason or ()), origin, project, period(since, until), state.value)


async def _replay(
    letters: DeadLetters,
    client: Any,
    wanted: LetterFilter,
    ids: list[str] | None,
    command: EditCommand | None,
    dry_run: bool,
    max_line_bytes: int,
) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    from tailrace.ingestor.insert import ClickHouseWriter, Inserter
    from tailrace.ingestor.replay import Replayer
    from tailrace.ingestor.settings import RetryPolicy

    skipped: Counter[str] = Counter()
    with ThreadPoolExecutor(1) as executor:
        inserter = Inserter(ClickHouseWriter(client, "ClickHouse"), executor, RetryPolicy())
        replayer = Replayer(client, inserter, max_line_bytes)
        if not dry_run:
            await replayer.resume()
        chosen = letters.letters(wanted) if ids is None else _by_ids(letters, wanted, ids)
        async for lines in _lines(letters, chosen, command, skipped):
            if dry_run:
                replayer.stats.add(replayer.try_lines(lines))
            else:
                await replayer.replay(lines)
    stats = replayer.stats
    return {
        "dry_run": dry_run,
        "letters": len(chosen) + stats.resumed,
        "stored": stats.stored,
        "rejected": stats.rejected,
        "resumed": stats.resumed,
        "reasons": stats.reasons,
        "skipped": dict(skipped),
    }


def _by_ids(letters: DeadLetters, wanted: LetterFilter, ids: Sequence[str]) -> tuple[Letter, ...]:
    """Those of the letters that are named; one that was replayed already is not open any more, and left out."""
    named = {letters.find(each)[0].id for each in ids}
    return tuple(letter for letter in letters.letters(wanted) if letter.id in named)


async def _lines(
    letters: DeadLetters, chosen: Sequence[Letter], command: EditCommand | None, skipped: Counter[str]
) -> Any:
    """Batches of what is to be stored; letters that have nothing to store are counted in `skipped`, by cause."""
    from tailrace.ingestor.edit import EditFailed, edit_all
    from tailrace.ingestor.replay import BATCH_BYTES, BATCH_LETTERS, LetterLine

    batch: list[tuple[Letter, bytes]] = []
    held = 0

    async def finished() -> list[LetterLine]:
        raws = [raw for _, raw in batch]
        edited = raws if command is None else await edit_all(command, raws)
        lines = []
        for (letter, _), line in zip(batch, edited, strict=True):
            if isinstance(line, EditFailed):
                skipped[str(line)] += 1
            else:
                lines.append(LetterLine(int(letter.id, 16), line, letter.attempts))
        batch.clear()
        return lines

    for letter, raw in letters.raws(chosen):
        if command is None and letter.length > len(raw):
            skipped[
                "only the head of the line is kept: read its file again with a larger --max-line-bytes"
            ] += 1
            continue
        batch.append((letter, raw))
        held += len(raw)
        if len(batch) >= BATCH_LETTERS or held >= BATCH_BYTES:
            held = 0
            yield await finished()
    if batch:
        yield await finished()


def _print_replay(report: dict[str, Any], dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    print_line(
        f"{report['letters']:,} dead letters: {report['stored']:,} {would}stored, {report['rejected']:,} {would}refused again"
    )
    if report["resumed"]:
        print_line(f"  {report['resumed']:,} of them were announced by a replay that was cut short")
    for reason, count in sorted(report["reasons"].items()):
        print_line(f"  refused, {reason}: {count:,}")
    for cause, count in sorted(report["skipped"].items()):
        print_line(f"  left as they are: {count:,}: {cause}")


def _document(letter: Letter, raw: bytes) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(letter),
        "raw_base64": base64.b64encode(raw).decode(),
    }


@contextmanager
def _writing(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with output.open("wb") as file:
            yield file
    except OSError as exc:
        raise ConfigError(f"cannot write {output}: {exc.strerror}") from exc


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
