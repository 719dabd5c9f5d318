"""The commands put together, and what their failures look like."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from tailrace.cli import (
    audit,
    backfill,
    check,
    compare,
    dead_letters,
    demo,
    deployments,
    doctor,
    export,
    ingest,
    migrate,
    ship,
    slice,
    sql,
    tags,
    top,
    trace,
    up,
)
from tailrace.cli.logs import LogFormat, LogFormatOption, say, set_up
from tailrace.cli.render import caret
from tailrace.schemas.errors import ConfigError, NotFound, SliceError, TailraceError

OK, ERROR, USAGE, NOT_FOUND, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

app = typer.Typer(
    name="tailrace",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Traces of ML and LLM systems: from log files into ClickHouse, every line exactly once.

Start with `tailrace demo`. On one machine `tailrace up` does everything; at scale `tailrace ship` brings
log files to Kafka and `tailrace ingest` brings them from there into ClickHouse.

Every option can be set in the environment too; `--help` of each command names the variable.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 130 interrupted.
""",
)

app.command("up", rich_help_panel="Run")(up.up)
app.command("ship", rich_help_panel="Run")(ship.ship)
app.command("ingest", rich_help_panel="Run")(ingest.ingest)
app.command("backfill", rich_help_panel="Run")(backfill.backfill)
app.command("migrate", rich_help_panel="Run")(migrate.migrate)
app.command("slice", rich_help_panel="Look")(slice.slice_command)
app.command("compare", rich_help_panel="Look")(compare.compare_command)
app.command("traces", rich_help_panel="Look")(trace.traces_command)
app.command("trace", rich_help_panel="Look")(trace.trace_command)
app.command("object", rich_help_panel="Look")(trace.object_command)
app.command("tags", rich_help_panel="Look")(tags.tags_command)
app.command("export", rich_help_panel="Look")(export.export_command)
app.command("sql", rich_help_panel="Look")(sql.sql_command)
app.command("deployments", rich_help_panel="Look")(deployments.deployments_command)
app.command("deployment", rich_help_panel="Look")(deployments.deployment_command)
app.command("top", rich_help_panel="Something went wrong")(top.top)
app.command("doctor", rich_help_panel="Something went wrong")(doctor.doctor)
app.command("audit", rich_help_panel="Something went wrong")(audit.audit)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel="Something went wrong")
app.command("check", rich_help_panel="Try")(check.check)
app.command("demo", rich_help_panel="Try")(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tailrace {version('tailrace')}")
        raise typer.Exit()


@app.callback()
def options(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more; twice for everything.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
    log_format: LogFormatOption = LogFormat.console,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Sets up logging for every command."""
    level = logging.ERROR if quiet else [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    set_up(level, log_format, libraries_too=verbose >= 2)


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns its exit code. Our own errors become one sentence on stderr."""
    # Until a command has handlers of its own, SIGTERM unwinds like Ctrl-C instead of cutting off.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        result: Any = app(args=list(arguments), standalone_mode=False)
    except TailraceError as error:
        return _report(error)
    except typer.Abort:
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `head` does. Python would complain again while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as exc:
        return _usage_or_raise(exc)
    return result if isinstance(result, int) else OK


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def _usage_or_raise(exc: Exception) -> int:
    """Usage errors of typer's parser print themselves; anything else is a fault of ours and keeps its traceback."""
    show = getattr(exc, "show", None)
    code = getattr(exc, "exit_code", None)
    if show is None or not isinstance(code, int):
        raise exc
    show()
    return code


def _report(error: TailraceError) -> int:
    say(f"tailrace: {error}", logging.ERROR)
    if isinstance(error, SliceError):
        print(caret(error.text, error.column), file=sys.stderr)
    if isinstance(error, NotFound):
        return NOT_FOUND
    return USAGE if isinstance(error, SliceError | ConfigError) else ERROR
