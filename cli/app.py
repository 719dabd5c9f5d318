"""The commands put together, and what their failures look like."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from contextvars import copy_context
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tailrace.cli import environment
from tailrace.cli.config_file import find, read
from tailrace.cli.config_keys import keys
from tailrace.cli.environment import Configuration
from tailrace.cli.logs import LogFormat, LogFormatOption, say, set_up
from tailrace.cli.setting import Setting
from tailrace.schemas.errors import ConfigError, NotFound, SliceError, TailraceError

OK, ERROR, USAGE, NOT_FOUND, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

_PANELS = {
    "Run": {
        "up": "up:up",
        "ship": "ship:ship",
        "ingest": "ingest:ingest",
        "backfill": "backfill:backfill",
        "migrate": "migrate:migrate",
        "config": "config:app",
    },
    "Look": {
        "slice": "slice:slice_command",
        "compare": "compare:compare_command",
        "traces": "trace:traces_command",
        "trace": "trace:trace_command",
        "object": "trace:object_command",
        "tags": "tags:tags_command",
        "export": "export:export_command",
        "sql": "sql:sql_command",
        "deployments": "deployments:deployments_command",
        "deployment": "deployments:deployment_command",
    },
    "Something went wrong": {
        "top": "top:top",
        "doctor": "doctor:doctor",
        "audit": "audit:audit",
        "dead-letters": "dead_letters:app",
    },
    "Try": {"check": "check:check", "demo": "demo:demo"},
}
"""All commands: `module:function`, or a group of commands."""
_NAMES = frozenset(name for commands in _PANELS.values() for name in commands)


def _made(names: Collection[str]) -> typer.Typer:
    """The command line with some of its commands; importing and preparing the others takes a quarter of a second."""
    made = typer.Typer(
        name="tailrace",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="""Traces of ML and LLM systems: from log files into ClickHouse, every line exactly once.

Start with `tailrace demo`. On one machine `tailrace up` does everything; at scale `tailrace ship` brings
log files to Kafka and `tailrace ingest` brings them from there into ClickHouse.

What a service needs can be set in the environment and in a file too: `tailrace config show` lists it.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 130 interrupted.
""",
    )
    made.callback()(options)
    for panel, commands in _PANELS.items():
        for name, place in commands.items():
            if name in names:
                module, _, attribute = place.partition(":")
                found = getattr(import_module(f"tailrace.cli.{module}"), attribute)
                if isinstance(found, typer.Typer):
                    made.add_typer(found, name=name, rich_help_panel=panel)
                else:
                    made.command(name, rich_help_panel=panel)(found)
    return made


@cache
def whole() -> typer.Typer:
    """The command line with all of its commands."""
    return _made(_NAMES)


def __getattr__(name: str) -> typer.Typer:
    """`app` is `whole()`, made once it is asked for."""
    if name != "app":
        raise AttributeError(name)
    return whole()


def _for(arguments: Sequence[str], environ: Mapping[str, str]) -> typer.Typer:
    """The command line that understands these arguments: of one command where they begin with its name, else all of it."""
    name = arguments[0] if arguments else ""
    # A shell that asks for completions says what was typed in the environment.
    return _made({name}) if name in _NAMES and "_TAILRACE_COMPLETE" not in environ else whole()


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tailrace {version('tailrace')}")
        raise typer.Exit()


class _Call:
    """One call of the command line, and what is wrong with its configuration file."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.asks_for_help = not {"-h", "--help"}.isdisjoint(arguments)
        self.fault: ConfigError | None = None


def _configure(ctx: typer.Context, given: Path | None) -> Path | None:
    """Makes what the configuration file says the defaults of all options.

    What is wrong with it is told by the command: help, and the commands that are there to tell it, work all the same.
    """
    call = ctx.obj if isinstance(ctx.obj, _Call) else _Call(())
    if call.asks_for_help:
        return given
    ctx.obj = call
    try:
        path = find(str(given) if given else None, os.environ)
        if path is not None:
            known = keys(whole())
            configuration = Configuration(read(path, known), known)
            environment.use(configuration)
            ctx.default_map = configuration.defaults()
    except ConfigError as fault:
        call.fault = fault
    return given


def options(
    ctx: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="TAILRACE_CONFIG",
            metavar="FILE",
            is_eager=True,  # what it says are the defaults of all other options
            callback=_configure,
            help="The configuration file.",
            show_default="./tailrace.toml, ~/.config/tailrace/tailrace.toml or /etc/tailrace/tailrace.toml",
        ),
    ] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            min=0,
            envvar="TAILRACE_VERBOSE",
            help="Say more; twice for everything.",
        ),
        Setting("log.verbose"),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
    log_format: LogFormatOption = LogFormat.console,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Sets up logging for every command."""
    if isinstance(ctx.obj, _Call) and ctx.obj.fault is not None and ctx.invoked_subcommand != "config":
        raise ctx.obj.fault
    level = logging.ERROR if quiet else [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    set_up(level, log_format, libraries_too=verbose >= 2)


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns its exit code. Our own errors become one sentence on stderr."""
    # Until a command has handlers of its own, SIGTERM unwinds like Ctrl-C instead of cutting off.
    signal.signal(signal.SIGTERM, _terminated)
    context = copy_context()
    if any(re.search(r"\w+://[^/\s:@]*:\S+@", argument) for argument in arguments):
        say(
            "tailrace: a password stands in the command line, where every user of this machine can read it: "
            "put it into a file and name that in TAILRACE_CLICKHOUSE_PASSWORD_FILE",
            logging.WARNING,
        )
    try:
        command = _for(arguments, os.environ)
        if not gc.isenabled():  # `main` sees to that
            gc.freeze()
            gc.enable()
        result: Any = context.run(
            command,
            args=_config_first(arguments),
            standalone_mode=False,
            obj=_Call(arguments),
        )
    except TailraceError as error:
        return _report(error, context.run(environment.current))
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


def _config_first(arguments: Sequence[str]) -> list[str]:
    """`--config` is read before the command, wherever it was written."""
    rest = list(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    for at, word in enumerate(rest[:end]):
        words = 2 if word == "--config" else 1 if word.startswith("--config=") else 0
        if words:
            return rest[at : at + words] + rest[:at] + rest[at + words :]
    return rest


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


def _report(error: TailraceError, configuration: Configuration | None) -> int:
    say(f"tailrace: {error}", logging.ERROR)
    if isinstance(error, ConfigError) and configuration is not None:
        say(f"tailrace: settings of {configuration.file.path} are in use; `tailrace config show` says which")
    if isinstance(error, SliceError):
        from tailrace.cli.render import caret

        print(caret(error.text, error.column), file=sys.stderr)
    if isinstance(error, NotFound):
        return NOT_FOUND
    return USAGE if isinstance(error, SliceError | ConfigError) else ERROR
