"""ClickHouse's tokens, as far as the front needs them: where words, names and strings begin and end.

Works on bytes, so that a statement is passed on exactly as it came. Numbers are cut finer than ClickHouse cuts
them, and bytes outside ASCII that stand outside quotes are skipped like spaces; both only make `guard` stricter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

_TOKEN = re.compile(
    rb"""
    (?P<skip>[\x00-\x20\x80-\xdf\xe0\xe1\xe3-\xff]+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
    | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
    | (?P<number>[0-9]+(?:\$[A-Za-z0-9_$]*)?)
    | (?P<string>'(?:[^'\\]|\\.|'')*'|\$(?P<tag>[A-Za-z0-9_]*)\$.*?\$(?P=tag)\$|\xe2\x80\x98.*?\xe2\x80\x99)
    | (?P<quoted>"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`|\xe2\x80\x9c.*?\xe2\x80\x9d)
    | (?P<odd>\xe2)
    | (?P<broken>/\*|['"`])
    | (?P<punct>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Kind(Enum):
    """What a token is."""

    WORD = "word"
    NUMBER = "number"
    STRING = "string"
    QUOTED = "quoted"
    PUNCT = "punct"
    BROKEN = "broken"
    """A quote or a comment that is never closed; nothing comes after it."""


_KINDS = {kind.value: kind for kind in Kind}
_OPEN = frozenset((b"(", b"[", b"{"))
_CLOSE = frozenset((b")", b"]", b"}"))


class Token(NamedTuple):
    """One token.

    Args:
        kind: What it is.
        text: As it stands in the statement, quotes included.
        start: Position of its first byte.
        end: Position after its last byte.
        depth: How many brackets are open around it.
    """

    kind: Kind
    text: bytes
    start: int
    end: int
    depth: int

    def is_word(self, *words: bytes) -> bool:
        """Whether it is one of these keywords, given in capitals; never true for a quoted name."""
        return self.kind is Kind.WORD and self.text.upper() in words

    @property
    def name(self) -> bytes | None:
        """The name that it is, without quotes; `None` for what cannot be a name. Escapes are left as they stand."""
        if self.kind is Kind.WORD:
            return self.text
        if self.kind is Kind.QUOTED:
            return self.text[3:-3] if self.text[:1] == b"\xe2" else self.text[1:-1]
        return None


def lex(sql: bytes, start: int = 0) -> Iterator[Token]:
    """The tokens of `sql`, one by one: whoever stops early does not pay for the rest."""
    depth = 0
    position = start
    while (match := _TOKEN.match(sql, position)) is not None:
        position = match.end()
        group = match.lastgroup or ""
        if group in ("skip", "odd"):
            continue
        if group == "tag":  # the innermost group of a here-document is its tag
            group = "string"
        text = match.group()
        if text in _CLOSE:
            depth = max(0, depth - 1)
        yield Token(_KINDS[group], text, match.start(), position, depth)
        if text in _OPEN:
            depth += 1
        if group == "broken":
            return
