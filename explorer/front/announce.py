"""Telling other processes where the front is: a small file in the engine's directory."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tailrace.schemas.clickhouse.connection import FRONT_FILE, FrontInfo, read_front


def announce(directory: str, info: FrontInfo) -> None:
    """Write where the front is. The file holds the token, so only its owner may read it."""
    target = Path(directory) / FRONT_FILE
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # the draft of a killed process may be there with other rights
        file.write(msgspec.json.encode(info))
    # A crash before this leaves the draft and the old announcement, which readers only believe while the engine is locked.
    draft.replace(target)


def withdraw(directory: str, info: FrontInfo) -> None:
    """Remove the announcement, unless another front wrote its own over it."""
    if read_front(directory) == info:
        (Path(directory) / FRONT_FILE).unlink(missing_ok=True)
