"""Where things are when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.cli.environment import environment

if TYPE_CHECKING:
    from tailrace.schemas.clickhouse.connection import Dsn


def data_directory() -> Path:
    """The directory of the embedded database: `$XDG_DATA_HOME/tailrace`, else `~/.local/share/tailrace`."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "tailrace"


def default_dsn() -> str:
    """The DSN of the embedded database in `data_directory()`."""
    return f"chdb://{data_directory()}"


def database(dsn: str) -> Dsn:
    """The database that a DSN names, the default one for ''; its password comes from what is set.

    Raises:
        ConfigError: It is no DSN, or the password cannot be read.
    """
    from tailrace.schemas.clickhouse.connection import Dsn

    return Dsn.parse(dsn or default_dsn(), environment())
