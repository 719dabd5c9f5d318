"""The slice language.

    slice       := [ condition { "&&" condition } ]
    condition   := word operator word | function "(" word ")"
    operator    := "==" | "!=" | ">" | ">=" | "<" | "<="
    function    := "trace" | "tagname" | "tagtype" | "taggroup"
    word        := bare | quoted
    bare        := one or more letters, digits and . - _ / : @ +
    quoted      := '"' { any character but " and \\ | escape } '"'
    escape      := \\" \\\\ \\/ \\n \\t \\r \\uXXXX \\UXXXXXXXX

The empty string is every trace. White space between words means nothing.

**A condition is existential**: a trace matches when it has *a* tag that matches. So `client!=acme` are the traces
that have a tag `client` with another value, not those without the tag; and `latency>=100 && latency<200` may be
satisfied by two tags of one trace.

**Values.** A tag has a kind (string, number, boolean, null, JSON) and a text, which is what was logged.

| the value in the slice | `==` `!=` | `>` `>=` `<` `<=` |
|---|---|---|
| reads as a number: `120`, `-1.5e3` | with numbers and booleans (true is 1) as numbers, with all others as text | with numbers and booleans only |
| reads as a version: `1.10.0`, `v2`, `1.4.0-rc2` (two dots or more, or a leading v) | as text | with strings that read as a version, number by number: 1.10.0 is above 1.9.0, 1.10 is 1.10.0, and a suffix puts a version before the same one without |
| any other word | as text | with strings, by code point: `day>=2026-11-20` |
| in quotes, whatever it reads as | as text | with strings, by code point |

A tag that cannot be compared so does not match. `!=` is the opposite of `==` on each tag that has the name. NaN equals
no number and is neither above nor below one. An integer beyond 2**53 is compared by `==` as text, because a 64-bit
float would make neighbours equal.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable
from functools import cache

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from tailrace.explorer.conditions import (
    Comparison,
    Condition,
    Operator,
    Slice,
    TagGroup,
    TagName,
    TagType,
    TraceIs,
)
from tailrace.explorer.literals import Literal, Text, read_literal
from tailrace.schemas.errors import SliceError

MAX_CHARACTERS = 16_384
"""A longer slice string is refused before it is looked at."""
MAX_CONDITIONS = 64
"""The bits of one UInt64, in which a query notes which conditions a trace satisfies."""

GRAMMAR = r"""
    start: [condition (_AND condition)*]
    ?condition: word OPERATOR word -> comparison
              | BARE _OPEN word _CLOSE -> call
    ?word: BARE | QUOTED

    _AND: "&&"
    _OPEN: "("
    _CLOSE: ")"
    OPERATOR: "==" | "!=" | ">=" | "<=" | ">" | "<"
    BARE: /[\w.\-\/:@+]+/
    QUOTED: /"(?:[^"\\]|\\.)*"/s

    %ignore /\s+/
"""

_FUNCTIONS: dict[str, Callable[[str], Condition]] = {
    "trace": TraceIs,
    "tagname": TagName,
    "tagtype": TagType,
    "taggroup": TagGroup,
}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_PLAIN_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "n": "\n", "t": "\t", "r": "\r"}
_HINTS = {
    "=": "compare with ==",
    "&": "join conditions with &&",
    "|": "a slice is a conjunction: join conditions with &&",
    "!": "a condition cannot be negated; compare with !=",
    "'": 'quote with "double quotes"',
    "~": "compare with one of == != > >= < <=",
    "\\": 'put the word in "double quotes"',
}
_OPERATORS = "== != > >= < <="


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="basic", maybe_placeholders=False)


def parse_slice(text: str) -> Slice:
    """Read a slice string.

    Raises:
        SliceError: It does not follow the grammar; holds the column and says what would.
    """
    _refuse_oversize(text)
    _refuse_surrogates(text)
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as exc:
        raise _explain(text, exc) from None
    conditions = tuple(_condition(text, child) for child in tree.children if isinstance(child, Tree))
    if len(conditions) > MAX_CONDITIONS:
        raise SliceError(
            f"a slice may have at most {MAX_CONDITIONS} conditions, and this has {len(conditions)}",
            text,
            _column(tree.children[MAX_CONDITIONS]),
        )
    return Slice(conditions)


def _refuse_oversize(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise SliceError(
            f"a slice may have at most {MAX_CHARACTERS} characters, and this has {len(text)}",
            text[:MAX_CHARACTERS],
            MAX_CHARACTERS - 1,
        )


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise SliceError(
            "this is not a Unicode character; the terminal sent bytes that are not UTF-8", text, exc.start
        ) from None


def _condition(text: str, tree: Tree[Token]) -> Condition:
    if tree.data == "comparison":
        name, operator, value = _tokens(tree)
        return Comparison(_word(text, name), Operator(operator), _literal(text, value))
    function, argument = _tokens(tree)
    make = _FUNCTIONS.get(function)
    if make is None:
        close = difflib.get_close_matches(str(function)[:100], _FUNCTIONS, n=1)
        hint = f"did you mean {close[0]}(…)?" if close else f"there are {', '.join(_FUNCTIONS)}"
        raise SliceError(f"there is no function {str(function)[:100]}; {hint}", text, _column(function))
    return make(_word(text, argument))


def _tokens(tree: Tree[Token]) -> list[Token]:
    return [child for child in tree.children if isinstance(child, Token)]


def _literal(text: str, token: Token) -> Literal:
    if token.type == "QUOTED":
        return Text(_word(text, token))
    try:
        return read_literal(str(token))
    except OverflowError:
        raise SliceError(
            'this number is beyond a 64-bit float; to compare its text, put it in "quotes"',
            text,
            _column(token),
        ) from None


def _word(text: str, token: Token) -> str:
    if token.type != "QUOTED":
        return str(token)

    def replace(match: re.Match[str]) -> str:
        short, long, plain = match.groups()
        if plain is not None and plain in _PLAIN_ESCAPES:
            return _PLAIN_ESCAPES[plain]
        code = int(short or long, 16) if plain is None else -1
        if code < 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise SliceError(
                f'{match.group()} is no character; the escapes are \\" \\\\ \\/ \\n \\t \\r \\uXXXX \\UXXXXXXXX',
                text,
                _column(token) + 1 + match.start(),
            )
        return chr(code)

    return _ESCAPE.sub(replace, token[1:-1])


def _column(item: Token | Tree[Token]) -> int:
    token = item if isinstance(item, Token) else next(item.scan_values(lambda value: True))
    return token.start_pos or 0


def _explain(text: str, exc: UnexpectedInput) -> SliceError:
    if isinstance(exc, UnexpectedCharacters):
        column = exc.pos_in_stream or 0
        return SliceError(_strange(text[column]), text, column)
    if not isinstance(exc, UnexpectedToken):
        return SliceError("this slice ends too early", text, len(text))
    token: Token = exc.token
    column = len(text) if token.type == "$END" else (token.start_pos or 0)
    found = "the slice ends here" if token.type == "$END" else f"found {str(token)[:60]}"
    return SliceError(f"{_expected(exc.expected, token)}; {found}", text, column)


def _strange(character: str) -> str:
    if character == '"':
        return 'this quote is never closed; end it with ", and write a quote inside as \\"'
    if hint := _HINTS.get(character):
        return f"{character} means nothing here; {hint}"
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    name = unicodedata.name(character, "a character without a name")
    plain = unicodedata.normalize("NFKC", character)
    if plain and plain != character and plain in "=!<>&()\"'":
        return f'{shown} is {name}, not {plain}; type the plain one, or put the word in "double quotes"'
    if not character.isascii():
        return f'{shown} ({name}) cannot stand in a bare word; put the word in "double quotes"'
    return f'{shown} cannot stand in a bare word; put the word in "double quotes"'


def _expected(expected: set[str], token: Token) -> str:
    """What could have stood there, from the terminals that the parser would have taken."""
    if "_AND" in expected:
        if token.type == "BARE" and token.lower() in ("and", "or"):
            return f"conditions are joined with &&, not {token}"
        if token.type == "OPERATOR":
            return "a condition has one operator; join two with &&, for example x>=1 && x<5"
        return "expected && or the end"
    if "OPERATOR" in expected:
        return f"expected an operator ({_OPERATORS}) after the name"
    if "_CLOSE" in expected:
        return "expected )"
    if token.type == "_OPEN":
        return "parentheses belong to functions: trace(id), tagname(n), tagtype(t), taggroup(g)"
    return 'expected a word, or a text in "double quotes"'
