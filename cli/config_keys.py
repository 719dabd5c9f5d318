"""What can stand in the configuration file: derived from the commands' options and from `KafkaConnection`."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import typer
from typer.models import ArgumentInfo, OptionInfo

from tailrace.cli.setting import Setting

_CONFIG = "TAILRACE_CONFIG"
"""Names the file, so it cannot stand in it."""
SECRET_NAMES = ("password", "token", "secret")
"""A text whose key ends so is a secret."""


class FromEnvironment(msgspec.Struct, forbid_unknown_fields=True):
    """A secret that an environment variable holds."""

    env: Annotated[str, msgspec.Meta(min_length=1, description="Name of the variable.")]


@dataclass(frozen=True)
class Use:
    """A parameter of a command that a setting is the default of.

    Args:
        command: Its words; none for the options before the command.
        parameter: Its name in the program.
        flag: As it is written, for example `--topic`.
    """

    command: tuple[str, ...]
    parameter: str
    flag: str


@dataclass(frozen=True)
class Key:
    """One setting.

    Args:
        table: Of the file.
        name: In the table.
        type: What the file may hold, for msgspec.
        default: What holds when nobody says otherwise; `None` for nothing, or for what `default_text` says.
        default_text: The same for people.
        variable: The environment variable.
        meaning: A sentence or two.
        uses: Options that it is the default of.
        secret: Never shown.
        is_path: Relative to the directory of the file, with `~` for the home directory.
        commands: Those that read it without having an option for it.
    """

    table: str
    name: str
    type: Any
    default: Any
    default_text: str
    variable: str
    meaning: str
    uses: tuple[Use, ...] = ()
    secret: bool = False
    is_path: bool = False
    commands: frozenset[tuple[str, ...]] = field(default=frozenset())

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"

    @property
    def wanted(self) -> str:
        """What a value has to be, in words."""
        if self.secret:
            return 'a text, or { env = "NAME" }'
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        inner, noun = self._bare_type, "path" if self.is_path else "text"
        if inner is str:
            return f"a {noun} in quotes"
        if inner is bool:
            return "true or false"
        if get_origin(inner) is list:
            return f"a list of {noun}s, one at least"
        bounds = self.type.__metadata__[0] if get_origin(self.type) is Annotated else msgspec.Meta()
        noun = "a whole number" if inner is int else "a number"
        low, high = bounds.ge, bounds.le
        if low is not None and high is not None:
            return f"{noun} from {low:,} to {high:,}"
        return noun if low is None else f"{noun}, {low:,} or more"

    @property
    def choices(self) -> list[str]:
        """The texts that it may be, where they are counted."""
        inner = self._bare_type
        if isinstance(inner, type) and issubclass(inner, Enum):
            return [member.value for member in inner]
        return [str(choice) for choice in get_args(inner)] if get_origin(inner) is Literal else []

    @property
    def _bare_type(self) -> Any:
        return get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type


Keys = Mapping[str, Key]


def keys(app: typer.Typer) -> dict[str, Key]:
    """Every setting by `table.name`, in the order in which the commands have them."""
    found: dict[str, Key] = {}
    for command, callback in _commands(app):
        for key in _of_command(command, callback):
            before = found.get(str(key))
            if before is None:
                found[str(key)] = key
            else:
                found[str(key)] = replace(before, uses=(*before.uses, *key.uses))
    for table, secrets in (("clickhouse", _CLICKHOUSE), ("http", _HTTP), ("kafka", _kafka())):
        commands = frozenset(use.command for key in found.values() if key.table == table for use in key.uses)
        for key in secrets:
            found[str(key)] = replace(key, commands=commands)
    # The keys of a table stand together.
    tables = list(dict.fromkeys(key.table for key in found.values()))
    return dict(sorted(found.items(), key=lambda item: tables.index(item[1].table)))


def used_by(key: Key) -> frozenset[tuple[str, ...]]:
    """The commands that a setting says something to."""
    return key.commands | {use.command for use in key.uses}


def similar(word: str, known: Collection[str]) -> str:
    """`; did you mean …?` where one of them is written much like it, else ''."""
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _commands(app: typer.Typer) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        yield (), app.registered_callback.callback
    for command in app.registered_commands:
        if command.callback is not None and command.name:
            yield (command.name,), command.callback
    for group in app.registered_groups:
        if group.typer_instance is not None and group.name:
            for words, callback in _commands(group.typer_instance):
                yield (group.name, *words), callback


def _of_command(command: tuple[str, ...], callback: Callable[..., Any]) -> Iterator[Key]:
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        if get_origin(hints[name]) is not Annotated:
            continue
        kind, *extras = get_args(hints[name])
        option = next((extra for extra in extras if isinstance(extra, OptionInfo | ArgumentInfo)), None)
        setting = next((extra for extra in extras if isinstance(extra, Setting)), None)
        if option is None or (setting is None and not option.envvar) or option.envvar == _CONFIG:
            continue
        table, _, own_name = (setting.key if setting else f"{command[0]}.{name}").partition(".")
        default = parameter.default if parameter.default is not inspect.Parameter.empty else None
        default = default.value if isinstance(default, Enum) else default
        yield Key(
            table=table,
            name=own_name,
            type=_file_type(kind, option),
            default=default,
            default_text=option.show_default if isinstance(option.show_default, str) else _text(default),
            variable=str(option.envvar),
            meaning=" ".join((option.help or "").split()),
            uses=(Use(command, name, _flag(name, option)),),
            is_path=_holds_path(kind) or option.metavar in ("FILE", "PATH…"),
        )


def _file_type(kind: Any, option: OptionInfo | ArgumentInfo) -> Any:
    """The type of an option's value in the file."""
    if NoneType in get_args(kind):
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is list:
        return Annotated[list[str], msgspec.Meta(min_length=1)]
    if kind is Path:
        return str
    if kind in (int, float) and (option.min is not None or option.max is not None):
        return Annotated[kind, msgspec.Meta(ge=option.min, le=option.max)]
    return kind


def _holds_path(kind: Any) -> bool:
    return kind is Path or any(_holds_path(part) for part in get_args(kind))


def _flag(name: str, option: OptionInfo | ArgumentInfo) -> str:
    if isinstance(option, ArgumentInfo):
        return option.metavar or name.upper()
    long = [text for text in option.param_decls or () if text.startswith("--")]
    return long[0] if long else f"--{name.replace('_', '-')}"


def _text(default: Any) -> str:
    if default in (None, "", ()):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _secret(table: str, name: str, variable: str, meaning: str) -> list[Key]:
    """A secret and the file that may hold it."""
    return [
        Key(table, name, str | FromEnvironment, None, "", variable, meaning, secret=True),
        Key(
            table,
            f"{name}_file",
            str,
            None,
            "",
            f"{variable}_FILE",
            f"A file that holds {table}.{name}; only those who may know it should be able to read it.",
            is_path=True,
        ),
    ]


_CLICKHOUSE = _secret("clickhouse", "password", "TAILRACE_CLICKHOUSE_PASSWORD", "Where `dsn` holds none.")
_HTTP = _secret(
    "http",
    "token",
    "TAILRACE_HTTP_TOKEN",
    "The password of user `default` of what `up` serves; needed beyond loopback.",
)


def _kafka() -> list[Key]:
    """What `KafkaConnection` holds besides the brokers, which are an option."""
    from tailrace.schemas.kafka import KafkaConnection

    meanings = dict(re.findall(r"^ +(\w+): (.+)$", inspect.getdoc(KafkaConnection) or "", re.MULTILINE))
    found: dict[str, Key] = {}
    for each in msgspec.structs.fields(KafkaConnection):
        if each.name == "brokers":
            continue
        variable, meaning = f"TAILRACE_KAFKA_{each.name.upper()}", meanings.get(each.name, "")
        if each.name.endswith(SECRET_NAMES):
            found |= {key.name: key for key in _secret("kafka", each.name, variable, meaning)}
        else:
            default = each.default or None
            is_path = each.name.endswith("_file")
            found[each.name] = Key(
                "kafka", each.name, each.type, default, _text(default), variable, meaning, is_path=is_path
            )
    return list(found.values())


def tables(keys: Keys) -> dict[str, list[Key]]:
    """The settings by table."""
    found: dict[str, list[Key]] = {}
    for key in keys.values():
        found.setdefault(key.table, []).append(key)
    return found
