"""What kind of SQL a request holds: told from its tokens, not from its grammar, which is the engine's work.

Two things have to be known before the engine is asked: where the data of an INSERT begins, since data are never
parsed as SQL here, and where a result can be sent to a file, so that it never has to fit into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from tailrace.explorer.front.lexer import Kind, Token, lex
from tailrace.explorer.front.refusal import Refusal

DEFAULT_FORMAT = "TabSeparated"
_SMALL_RESULT = (b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK")
_AFTER_INLINE_FORMAT = b" \t\f"


class StatementKind(Enum):
    """What has to be done with a statement."""

    SELECT = "select"
    """Has a result of any size."""
    SHOW = "show"
    """Has a small result and changes nothing."""
    INSERT_DATA = "insert_data"
    """An INSERT whose data come with the request."""
    SET = "set"
    USE = "use"
    WRITE = "write"
    """All others; they may have a small result."""


class Statement(msgspec.Struct, frozen=True):
    """A statement, taken apart as far as the front needs.

    Args:
        kind: What has to be done with it.
        tokens: All tokens; for an INSERT with data, those before the data.
        head: A SELECT up to its FORMAT clause; an INSERT up to its SETTINGS or FORMAT; any other as a whole.
        settings: The statement's own `name = value, …` that have to come after what is put behind `head`.
        format: The format that the statement names; empty where it names none.
        data_at: Where the data of an INSERT begin in the text that was parsed; -1 for all other kinds.
    """

    kind: StatementKind
    tokens: tuple[Token, ...]
    head: bytes
    settings: bytes = b""
    format: str = ""
    data_at: int = -1

    @property
    def reads_only(self) -> bool:
        """Whether it changes nothing that outlives the request."""
        return self.kind in (StatementKind.SELECT, StatementKind.SHOW)


def parse(text: bytes, default_format: str = "") -> Statement:
    """Read the one statement that `text` begins with or is.

    Args:
        text: Statement, and for an INSERT its data or their beginning.
        default_format: For an INSERT that names no format; `Values` otherwise.

    Raises:
        Refusal: No statement, more than one, or one that never ends.
    """
    stream = lex(text)
    first = next(stream, None)
    if first is None:
        raise Refusal(62, "Syntax error: empty query")
    if first.is_word(b"INSERT"):
        return _insert(text, first, default_format)
    tokens = _single((first, *stream))
    end = tokens[-1].end
    kind = _kind(tokens)
    if kind is not StatementKind.SELECT:
        return Statement(kind, tokens, text[:end], format=_format(tokens)[0])
    name, at, settings = _format(tokens)
    if at < 0:
        return Statement(kind, tokens, text[:end])
    return Statement(
        kind, tokens, text[: tokens[at].start], text[settings:end] if settings >= 0 else b"", name
    )


def _single(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """The tokens without a `;` at the end; refuses what comes after one."""
    for position, token in enumerate(tokens):
        if token.kind is Kind.BROKEN:
            raise Refusal(
                62, f"Syntax error: a quote or comment that begins at position {token.start} is never closed"
            )
        if token.text == b";":
            if any(later.text != b";" for later in tokens[position + 1 :]):
                raise Refusal(
                    62, f"Syntax error (Multi-statements are not allowed): failed at position {token.end}"
                )
            if position == 0:
                raise Refusal(62, "Syntax error: empty query")
            return tuple(tokens[:position])
    return tuple(tokens)


def _kind(tokens: Sequence[Token]) -> StatementKind:
    first = tokens[0]
    if first.text == b"(" or first.is_word(b"SELECT", b"FROM"):
        return StatementKind.SELECT
    if first.is_word(b"WITH"):
        writes = any(token.depth == 0 and token.is_word(b"INSERT") for token in tokens)
        return StatementKind.WRITE if writes else StatementKind.SELECT
    if first.is_word(*_SMALL_RESULT):
        return StatementKind.SHOW
    if first.is_word(b"SET") and not (
        len(tokens) > 1 and tokens[1].is_word(b"ROLE", b"DEFAULT", b"TRANSACTION")
    ):
        return StatementKind.SET
    if first.is_word(b"USE"):
        return StatementKind.USE
    return StatementKind.WRITE


def _format(tokens: Sequence[Token]) -> tuple[str, int, int]:
    """The FORMAT clause at the end: its name, the index of its token, and where settings behind it begin (or -1)."""
    for index in range(len(tokens) - 2, 0, -1):
        token = tokens[index]
        if token.depth == 0 and token.is_word(b"FORMAT"):
            name = tokens[index + 1]
            after = tokens[index + 2] if index + 2 < len(tokens) else None
            if name.kind not in (Kind.WORD, Kind.QUOTED) or not (after is None or after.is_word(b"SETTINGS")):
                return "", -1, -1
            return (name.name or b"").decode("latin-1"), index, after.end if after is not None else -1
    return "", -1, -1


def _insert(text: bytes, first: Token, default_format: str) -> Statement:
    """An INSERT. Stops at the data, which may be anything at all."""
    tokens = [first]
    target_end = -1
    settings_at = -1
    settings_end = -1
    inside_name = True
    stream = lex(text, first.end)
    for token in stream:
        tokens.append(token)
        if token.kind is Kind.BROKEN:
            raise Refusal(62, f"Syntax error: a quote that begins at position {token.start} is never closed")
        previous = tokens[-2]
        if inside_name:
            # `INSERT INTO [TABLE] [db.]table`: keywords may be names here, so the grammar is followed up to the name's end.
            if token.is_word(b"INTO") and len(tokens) == 2:
                continue
            if token.is_word(b"TABLE", b"FUNCTION") and previous.is_word(b"INTO", b"INSERT", b"TABLE"):
                if token.is_word(b"FUNCTION"):
                    raise Refusal(497, "INSERT INTO FUNCTION is not allowed through this HTTP interface")
                continue
            if token.text == b"." or previous.text == b"." or previous.is_word(b"INTO", b"TABLE", b"INSERT"):
                continue
            if token.depth > 0 or token.text == b"}":  # {table:Identifier}
                continue
            inside_name = False
        if token.depth > 0:
            continue
        if token.is_word(b"SETTINGS"):
            target_end, settings_at = token.start, token.end
        elif token.is_word(b"FORMAT"):
            name = next(stream, None)
            if name is None or name.name is None:
                raise Refusal(
                    62, f"Syntax error: failed at position {token.end}: expected the name of a format"
                )
            tokens.append(name)
            settings_end = token.start
            return _with_data(
                text,
                tokens,
                target_end,
                settings_at,
                settings_end,
                name.name.decode("latin-1"),
                _data_at(text, name.end),
            )
        elif token.is_word(b"VALUES"):
            settings_end = token.start
            return _with_data(text, tokens, target_end, settings_at, settings_end, "Values", token.end)
        elif token.is_word(b"SELECT", b"WITH") or (token.text == b"(" and _selects(text, token.end)):
            every = _single((*tokens, *stream))
            return Statement(StatementKind.WRITE, every, text[: every[-1].end], format=_format(every)[0])
        elif token.text == b";":
            every = _single((*tokens, *stream))
            return _with_data(
                text, list(every), target_end, settings_at, token.start, default_format or "Values", token.end
            )
    end = tokens[-1].end
    return _with_data(text, tokens, target_end, settings_at, end, default_format or "Values", len(text))


def _selects(text: bytes, position: int) -> bool:
    """Whether a bracket holds a query and not the names of columns."""
    token = next(lex(text, position), None)
    return token is not None and (token.is_word(b"SELECT", b"WITH") or token.text == b"(")


def _with_data(
    text: bytes,
    tokens: list[Token],
    target_end: int,
    settings_at: int,
    settings_end: int,
    name: str,
    data_at: int,
) -> Statement:
    return Statement(
        StatementKind.INSERT_DATA,
        tuple(tokens),
        text[: target_end if target_end >= 0 else settings_end],
        text[settings_at:settings_end].strip() if settings_at >= 0 else b"",
        name,
        data_at,
    )


def _data_at(text: bytes, position: int) -> int:
    """Where data begin behind `FORMAT name`: after a `;`, blanks and one line end, as ClickHouse reads it."""
    end = len(text)
    if position < end and text[position : position + 1] == b";":
        position += 1
    while position < end and text[position] in _AFTER_INLINE_FORMAT:
        position += 1
    if text[position : position + 1] == b"\r":
        position += 1
    if text[position : position + 1] == b"\n":
        position += 1
    return position


def assignments(tokens: Sequence[Token]) -> dict[str, bytes]:
    """What a SET statement sets: name → value as it was written."""
    found: dict[str, bytes] = {}
    name = b""
    value: list[bytes] = []
    for token in (*tokens[1:], None):
        if token is None or (token.text == b"," and token.depth == 0):
            if name and value:
                found[name.decode("latin-1")] = b"".join(value)
            name, value = b"", []
        elif not name:
            name = token.name or b""
        elif token.text == b"=" and not value:
            continue
        else:
            value.append(token.text)
    return found
