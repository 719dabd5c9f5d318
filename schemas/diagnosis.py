"""What `tailrace doctor` says: one line a check. Each room examines what is its own."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How a check came out. The values are part of the JSON output."""

    OK = "ok"
    WARN = "warn"
    """It works, and may lose or delay something one day."""
    FAIL = "fail"
    """It does not work."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Args:
        name: What, in a few words.
        status: How it came out.
        detail: What was found.
        remedy: One line that says what to do; '' when there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def ok(name: str, detail: str) -> Check:
    """Nothing to do."""
    return Check(name, Status.OK, detail)


def warn(name: str, detail: str, remedy: str) -> Check:
    """Something to think about."""
    return Check(name, Status.WARN, detail, remedy)


def fail(name: str, detail: str, remedy: str) -> Check:
    """Something to mend."""
    return Check(name, Status.FAIL, detail, remedy)


LOW_SPACE = 0.05
LOW_BYTES = 1 << 30


def space(name: str, free: int, total: int, remedy: str) -> Check:
    """How much room a disk has.

    Args:
        name: Of the check.
        free: Bytes.
        total: Bytes.
        remedy: For a disk that is nearly full.
    """
    detail = f"{free / 1e9:,.1f} GB free of {total / 1e9:,.1f} GB"
    if free < LOW_BYTES // 10:
        return fail(name, detail, remedy)
    if free < LOW_BYTES or (total and free / total < LOW_SPACE):
        return warn(name, detail, remedy)
    return ok(name, detail)
