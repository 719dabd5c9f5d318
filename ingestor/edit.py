"""A line through a command of the user's: in on stdin, mended on stdout. No shell is involved."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tailrace.schemas.errors import ConfigError

_SAID = 200


@dataclass(frozen=True, slots=True)
class EditCommand:
    """How lines are mended.

    Args:
        arguments: The program and its arguments.
        seconds: How long it may take for one line; then it is killed.
        most_bytes: How much it may print.
    """

    arguments: tuple[str, ...]
    seconds: float = 10.0
    most_bytes: int = 64 * 1024 * 1024

    @classmethod
    def parse(cls, text: str, seconds: float) -> EditCommand:
        """A command line as one would type it; quotes are understood, nothing else of a shell is.

        Raises:
            ConfigError: It is empty, or a quote is not closed.
        """
        try:
            arguments = tuple(shlex.split(text))
        except ValueError as exc:
            raise ConfigError(f"--edit-with {text!r:.80}: {exc}") from exc
        if not arguments:
            raise ConfigError("--edit-with names no command")
        return cls(arguments, seconds)


class EditFailed(Exception):
    """The command made no line of this one; the text says why. The letter stays as it is."""


async def edit(command: EditCommand, line: bytes) -> bytes:
    """What the command prints for a line, without its line feed.

    Raises:
        EditFailed: It cannot be started, ends with an error, takes too long, or prints nothing or several lines.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as exc:
        raise EditFailed(f"{command.arguments[0]} cannot be started: {exc.strerror}") from exc
    try:
        printed, said = await asyncio.wait_for(process.communicate(line + b"\n"), command.seconds)
    except TimeoutError as exc:
        raise EditFailed(f"the command took longer than {command.seconds:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = (said.decode("utf-8", "backslashreplace").strip().splitlines() or [""])[-1][:_SAID]
        raise EditFailed(f"the command ended with {process.returncode}{': ' if last else ''}{last}")
    mended = printed.removesuffix(b"\n")
    if not mended or mended.isspace():
        raise EditFailed("the command printed nothing")
    if b"\n" in mended:
        raise EditFailed("the command printed several lines, and a letter becomes one")
    if len(mended) > command.most_bytes:
        raise EditFailed(f"the command printed {len(mended)} bytes")
    return mended


async def edit_all(
    command: EditCommand, lines: Sequence[bytes], at_once: int = 4
) -> list[bytes | EditFailed]:
    """`edit` for each line, some of them at the same time; what failed stands in its place."""
    turns = asyncio.Semaphore(at_once)

    async def one(line: bytes) -> bytes | EditFailed:
        async with turns:
            try:
                return await edit(command, line)
            except EditFailed as failure:
                return failure

    return list(await asyncio.gather(*(one(line) for line in lines)))
