"""Where an option stands in the configuration file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """Stands beside a `typer.Option` in `Annotated`.

    An option without one that has an environment variable stands in the table of its command, under its own name. An option
    without either is for one call only, and stands in no file.

    Args:
        key: `table.name`. Options of several commands with one key are one setting.
    """

    key: str
