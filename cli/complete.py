"""Shell completion of slice strings and tag names, fed by the tags that are stored. Quick, and silent when it cannot."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.explorer import Explorer

_SECONDS = 1.0
_LAST_WORD = re.compile(r"[\w.\-/:@+]*$")
_VALUE = re.compile(r"([\w.\-/:@+]+)\s*(?:==|!=)\s*([\w.\-/:@+]*)$")
_BARE = re.compile(r"[\w.\-/:@+]+")
_MOST = 50


def complete_tag(ctx: Any, incomplete: str) -> list[str]:
    """Names of tags that begin so."""
    with contextlib.suppress(Exception):
        return [name for name in _names(ctx) if name.startswith(incomplete)][:_MOST]
    return []


def complete_slice(ctx: Any, incomplete: str) -> list[str]:
    """The slice so far with its last word completed: a tag's value after `==` and `!=`, else a name or a function."""
    with contextlib.suppress(Exception):
        return _continued(ctx, incomplete)
    return []


def _continued(ctx: Any, text: str) -> list[str]:
    if text.count('"') % 2:
        return []
    if found := _VALUE.search(text):
        name, beginning = found.groups()
        before = text[: len(text) - len(beginning)]
        values = _asked(ctx, lambda explorer, project: explorer.values(name, beginning, project=project))
        return [before + _word(value) for value in values]
    beginning = _LAST_WORD.search(text)
    word = beginning.group() if beginning else ""
    before = text[: len(text) - len(word)]
    if re.search(r"(?:==|!=|[<>]=?|~)\s*$", before):
        return []
    from tailrace.explorer.language import FUNCTIONS

    offered = (
        [_word(name) for name in _names(ctx)] + [f"{name}(" for name in FUNCTIONS] + ["error", "duration"]
    )
    return [before + name for name in dict.fromkeys(offered) if name.startswith(word)][:_MOST]


def _word(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _names(ctx: Any) -> list[str]:
    found = _asked(ctx, lambda explorer, project: explorer.tags(project=project))
    return [tag.name for tag in found]


def _asked(ctx: Any, ask: Any) -> Any:
    """The answer of an explorer that gives up after a second."""
    from tailrace.cli.defaults import database
    from tailrace.cli.environment import environment
    from tailrace.explorer import Explorer
    from tailrace.schemas.clickhouse.connection import connect

    given = ctx.params.get("clickhouse") or environment().get("TAILRACE_CLICKHOUSE", "")
    project = ctx.params.get("project") or environment().get("TAILRACE_PROJECT") or None
    client = connect(database(given), timeout=_SECONDS)
    try:
        explorer: Explorer = Explorer(client, max_seconds=_SECONDS)
        return ask(explorer, project)
    finally:
        client.close()
