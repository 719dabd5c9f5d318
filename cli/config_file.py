"""The configuration file: found, read, and held against what can be set."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tailrace.cli.config_keys import FromEnvironment, Key, Keys, similar, tables
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    import tomllib

NAME = "tailrace.toml"
_MOST_SHOWN = 60


@dataclass(frozen=True)
class ConfigFile:
    """A file that was read, and in which nothing is wrong.

    Args:
        path: Of the file.
        values: By `table.name`; paths are absolute, a secret may be a `FromEnvironment`.
        lines: Where each stands, from 1.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]


def find(given: str | None, environ: Mapping[str, str]) -> Path | None:
    """The file that counts: the first that there is. No two are put together.

    Args:
        given: Named by a person; it counts whether it is there or not.
        environ: Says where the user's configuration is.

    Raises:
        ConfigError: The one in the working directory belongs to a stranger.
    """
    if given:
        return Path(given).expanduser()
    here = Path(NAME)
    if _is_there(here):
        _require_own(here)
        return here
    base = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    places = (Path(base) / "tailrace" / NAME, Path("/etc/tailrace") / NAME)
    return next((path for path in places if _is_there(path)), None)


def read(path: Path, keys: Keys) -> ConfigFile:
    """The file, if everything in it can be used.

    Raises:
        ConfigError: It cannot be read; or what is wrong with it, a line for each fault.
    """
    import tomllib  # most commands find no file

    text, mode = _text_of(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(_not_toml(path, exc)) from exc
    lines = _lines(text)
    values: dict[str, Any] = {}
    faults: list[tuple[int, str]] = []
    for table, content in document.items():
        if not isinstance(content, dict) or table not in tables(keys):
            faults.append((_line(lines, table), _no_table(table, content, keys)))
            continue
        for name, value in content.items():
            place = f"{table}.{name}"
            try:
                values[place] = _value(table, name, value, keys, mode)
            except ConfigError as fault:
                faults.append((lines.get(place) or _line(lines, place), str(fault)))
    for place in values:
        if f"{place}_file" in values and keys[place].secret:
            fault_text = (
                f"[{keys[place].table}] {keys[place].name} and {keys[place].name}_file: give one of them"
            )
            faults.append((lines[place], fault_text))
    if faults:
        raise ConfigError("\n".join(f"{path}:{line}: {fault}" for line, fault in sorted(faults)))
    directory = path.absolute().parent
    absolute = {
        place: _from(directory, value) if keys[place].is_path else value for place, value in values.items()
    }
    return ConfigFile(path, absolute, lines)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a home that is not ours to look into
        return False


def _require_own(path: Path) -> None:
    """A file that we merely came across says where we send passwords: it must be ours, or the machine's."""
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"{path.absolute()} belongs to another user, or can be written by anybody, and is not used unasked: name it with "
            f"--config {NAME} if you trust it, or change its owner or mode"
        )


def _text_of(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            return file.read().decode("utf-8-sig"), mode
    except OSError as exc:
        raise ConfigError(
            f"cannot read the configuration {path}: {exc.strerror}; name another with --config, or /dev/null for none"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{path}: byte {exc.start} is not UTF-8, which TOML is: save the file as UTF-8"
        ) from exc


def _not_toml(path: Path, exc: tomllib.TOMLDecodeError) -> str:
    found = re.search(r" ?\(at line (\d+), column (\d+)\)", str(exc))
    if found is None:
        return f'{path}: {exc}: write [table], and below it a line name = "value" for each setting'
    reason = str(exc).replace(found.group(0), "")
    return (
        f"{path}:{found.group(1)}: {reason} at column {found.group(2)}: texts stand in quotes, true, false and numbers do "
        'not, as in name = "value"'
    )


def _no_table(table: str, content: Any, keys: Keys) -> str:
    known = tables(keys)
    if isinstance(content, dict):
        return f"there is no table [{table}]{similar(table, known) or '; there are ' + ', '.join(known)}"
    if table in known:
        return f"{table} is a table: write [{table}], and its settings below"
    places = [f"[{key.table}]" for key in keys.values() if key.name == table]
    where = " or ".join(places) if places else "the table that it belongs to"
    # Its value may be a secret.
    return f"{table} stands in no table: write it below {where}"


def _value(table: str, name: str, value: Any, keys: Keys, mode: int) -> Any:
    """The value of one setting as the program wants it.

    Raises:
        ConfigError: What is wrong, without the place.
    """
    key = keys.get(f"{table}.{name}")
    if key is None:
        raise ConfigError(f"[{table}] has no setting {name}{_instead(table, name, keys)}")
    try:
        found = msgspec.convert(value, key.type)
    except msgspec.ValidationError:
        raise ConfigError(f"[{table}] {name} is {_told(key, value)}: {_remedy(key, value)}") from None
    if mode & stat.S_IROTH and isinstance(found, str) and (key.secret or _PASSWORD.search(found)):
        raise ConfigError(
            f"[{table}] {name} holds a secret, and anybody on this machine can read the file: chmod o-r it, or give "
            f'{name if key.secret else "password"}_file = "FILE" or {{ env = "NAME" }} instead'
        )
    return str(found.value) if isinstance(found, Enum) else found


def _instead(table: str, name: str, keys: Keys) -> str:
    elsewhere = [key.table for key in keys.values() if key.name == name and key.table != table]
    if elsewhere:
        return f"; it belongs below [{'] or ['.join(elsewhere)}]"
    known = [key.name for key in tables(keys)[table]]
    return similar(name, known) or f"; it has {', '.join(known)}"


def _remedy(key: Key, value: Any) -> str:
    close = similar(value, key.choices) if isinstance(value, str) else ""
    example = key.default if key.default not in (None, "", ()) else None
    for_example = f"; for example {key.name} = {_shown(example)}" if example is not None and not close else ""
    return f"it must be {key.wanted}{close or for_example}"


def _told(key: Key, value: Any) -> str:
    if key.secret:
        return "no text (and not shown here)"
    return redact(_shown(value))


# Up to the last @: a password that was not percent-encoded may hold any character.
_PASSWORD = re.compile(r"//([^:/@]*):.*@", re.DOTALL)


def redact(text: str) -> str:
    """A text whose URL may hold a password, without it."""
    return _PASSWORD.sub(r"//\1:***@", text)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def _from(directory: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_from(directory, each) for each in value]
    return str(directory / (Path(value).expanduser() if value.startswith("~") else value))


# ---------------------------------------------------------------- lines


def _lines(text: str) -> dict[str, int]:
    """In which line each setting and each table stands, of a text that is TOML.

    Statement by statement: the lines that together are one, which a value in brackets or triple quotes needs, are parsed
    below the header that they stand under. `tomllib` itself tells no positions.
    """
    import tomllib

    found: dict[str, int] = {}
    header, statement, first = "", "", 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        first = first if statement else number
        statement += line
        try:
            document = tomllib.loads(header + statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            header = statement if statement.endswith("\n") else statement + "\n"
        for place in _places(document):
            found.setdefault(place, first)
        statement = ""
    return found


def _places(document: Mapping[str, Any]) -> Iterator[str]:
    for table, content in document.items():
        yield table
        if isinstance(content, dict):
            yield from (f"{table}.{name}" for name in content)


def _line(lines: Mapping[str, int], place: str) -> int:
    """The line of a place, or of the table around it."""
    return lines.get(place) or lines.get(place.partition(".")[0]) or 1


def reference(value: Any) -> str | None:
    """The variable that a secret is to be taken from; `None` for anything else."""
    return value.env if isinstance(value, FromEnvironment) else None
