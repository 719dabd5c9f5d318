"""Where things are when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def data_directory() -> Path:
    """The directory of the embedded database: `$XDG_DATA_HOME/tailrace`, else `~/.local/share/tailrace`."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "tailrace"


def default_dsn() -> str:
    """The DSN of the embedded database in `data_directory()`."""
    return f"chdb://{data_directory()}"
