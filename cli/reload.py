"""SIGHUP: the watched paths are read anew from the configuration file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import typer

from tailrace.cli.config_file import read
from tailrace.cli.config_keys import used_by
from tailrace.cli.environment import Configuration, current
from tailrace.cli.logs import say
from tailrace.schemas.errors import ConfigError

Follow = Callable[[tuple[str, ...]], None]


@contextlib.asynccontextmanager
async def reloaded_by_hangup(ctx: typer.Context, follow: Follow, *, once: bool) -> AsyncIterator[None]:
    """While this is open, SIGHUP reads the configuration file and calls `follow` with the paths in it.

    A file in which anything is wrong changes nothing, and one error says what. Without a configuration file, and for a run
    that ends by itself, SIGHUP ends the process, as when a terminal is closed.

    Args:
        ctx: Of a command that takes paths.
        follow: Called in the loop.
        once: Whether the run ends by itself.
    """
    configuration = current()
    if configuration is None or once:
        yield
        return
    reload = _Reload(ctx, configuration, follow)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload.now)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        # What comes while the last batch lands is not a reason to be cut off.
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hold_hangup(*, once: bool) -> None:
    """From here on a SIGHUP waits for `reloaded_by_hangup`: to open a database takes longer than to edit a file."""
    if current() is not None and not once:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


class _Reload:
    def __init__(self, ctx: typer.Context, configuration: Configuration, follow: Follow) -> None:
        self._command = (str(ctx.info_name),)
        self._place = f"{ctx.info_name}.paths"
        self._from_file = getattr(ctx.get_parameter_source("paths"), "name", "") == "DEFAULT_MAP"
        self._configuration = configuration
        self._follow = follow

    def now(self) -> None:
        """Reads the file, and takes over what can be taken over."""
        before = self._configuration.file
        try:
            file = read(before.path, self._configuration.keys)
            if self._from_file and self._place not in file.values:
                raise ConfigError(
                    f"{file.path}: [{self._command[0]}] paths is not there any more: name one path at least"
                )
        except ConfigError as error:
            say(f"tailrace: SIGHUP: the configuration stays as it was: {error}", logging.ERROR)
            return
        self._configuration = replace(self._configuration, file=file)
        said = [*self._paths(before.values, file.values), *self._others(before.values, file.values)]
        say(f"tailrace: SIGHUP: {file.path} was read: {'; '.join(said) or 'nothing changed'}")

    def _paths(self, before: Any, after: Any) -> list[str]:
        old, new = before.get(self._place, ()), after.get(self._place, ())
        if old == new:
            return []
        if not self._from_file:
            return ["its paths do not count, as they were given by flags or TAILRACE_PATHS"]
        self._follow(tuple(new))
        return [f"follows {path}" for path in new if path not in old] + [
            f"leaves {path}" for path in old if path not in new
        ]

    def _others(self, before: Any, after: Any) -> list[str]:
        changed = [
            place
            for place, key in self._configuration.keys.items()
            if place != self._place
            and used_by(key) & {self._command, ()}
            and before.get(place) != after.get(place)
        ]
        return [f"{', '.join(changed)} changed and need a restart"] if changed else []
