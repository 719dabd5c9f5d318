"""What is set for this call: the environment over the configuration file. Flags come on top, as typer reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.cli.config_file import ConfigFile
    from tailrace.cli.config_keys import Keys


@dataclass(frozen=True)
class Configuration:
    """The configuration file of this call, and what it says."""

    file: ConfigFile
    keys: Keys

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The file's settings by environment variable, without those that `environ` sets.

        A secret and the file that holds it are one: where the environment gives either, the file gives neither.
        """
        found: dict[str, str] = {}
        for place, value in self.file.values.items():
            variable = self.keys[place].variable
            if any(environ.get(name) for name in _group(variable)):
                continue
            text = _text(value, environ)
            if text:
                found[variable] = text
        return found

    def defaults(self) -> dict[str, Any]:
        """What click calls a default map: values by parameter, below the words of the command."""
        found: dict[str, Any] = {}
        for place, value in self.file.values.items():
            for use in self.keys[place].uses:
                below = found
                for word in use.command:
                    below = below.setdefault(word, {})
                below[use.parameter] = value
        return found


_CURRENT: ContextVar[Configuration | None] = ContextVar("tailrace_configuration", default=None)


def use(configuration: Configuration) -> None:
    """From here on, in this context, this is the configuration."""
    _CURRENT.set(configuration)


def current() -> Configuration | None:
    """The configuration, if there is a file."""
    return _CURRENT.get()


def environment() -> Mapping[str, str]:
    """The environment's variables, and those of the file that it does not set."""
    configuration = current()
    return {**(configuration.variables(os.environ) if configuration else {}), **_not_empty(os.environ)}


def _not_empty(environ: Mapping[str, str]) -> dict[str, str]:
    # An empty variable is none, as it is for options: a line `TAILRACE_KAFKA=` of an environment file hides nothing.
    return {name: text for name, text in environ.items() if text or not name.startswith("TAILRACE_")}


def _group(variable: str) -> tuple[str, str]:
    bare = variable.removesuffix("_FILE")
    return bare, f"{bare}_FILE"


def _text(value: Any, environ: Mapping[str, str]) -> str:
    from tailrace.cli.config_file import reference

    if variable := reference(value):
        return environ.get(variable, "")
    if isinstance(value, list):
        return " ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
