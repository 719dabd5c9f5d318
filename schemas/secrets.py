"""Passwords, keys' passwords and tokens: from a file, as orchestrators mount them, or from the environment; never from argv,
which every user of the machine can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tailrace.schemas.errors import ConfigError


def secret(environ: Mapping[str, str], name: str) -> str:
    """What the file holds that `<name>_FILE` names, or else the variable `<name>`; '' where there is neither.

    White space around it is no part of it: editors end files with a newline.

    Raises:
        ConfigError: The file cannot be read, or holds nothing. The message names the file.
    """
    path = environ.get(f"{name}_FILE", "")
    if not path:
        return environ.get(name, "")
    try:
        found = Path(path).read_text().strip()
    except OSError as exc:
        raise ConfigError(f"{name}_FILE: cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name}_FILE: {path} is no text") from exc
    if not found:
        raise ConfigError(f"{name}_FILE: {path} is empty")
    return found
