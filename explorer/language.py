"""The slice language.

    slice       := [ either ]
    either      := both { "||" both }
    both        := unary { "&&" unary }
    unary       := "!" unary | "(" either ")" | condition
    condition   := word operator word
                 | word "~" word
                 | word "in" "(" word { "," word } ")"
                 | function "(" word ")"
                 | "duration" operator time
                 | "error" [ ( "==" | "!=" ) ( "true" | "false" ) ]
    operator    := "==" | "!=" | ">" | ">=" | "<" | "<="
    function    := "trace" | "tagname" | "tagtype" | "taggroup" | "text" | "event"
                 | "conversation" | "session" | "user" | "feedback"
    time        := number [ "us" | "ms" | "s" | "m" | "h" | "d" ]
    word        := bare | quoted
    bare        := one or more letters, digits and . - _ / : @ +
    quoted      := '"' { any character but " and \\ | escape } '"'
    escape      := \\" \\\\ \\/ \\n \\t \\r \\uXXXX \\UXXXXXXXX

The empty string is every trace. White space between words means nothing. `!` binds closest, then `&&`, then `||`.
A word in quotes is always a text: `"error"==yes` and `"duration">2` are about tags of these names.

**A condition is existential**: a trace matches when it has *a* tag that matches. So `client!=acme` are the traces
that have a tag `client` with another value, and `!(client==acme)` are those that have none with this value, be it
that they have none at all; `latency>=100 && latency<200` may be satisfied by two tags of one trace.

**Values.** A tag has a kind (string, number, boolean, null, JSON) and a text, which is what was logged.

| the value in the slice | `==` `!=` `in` | `>` `>=` `<` `<=` |
|---|---|---|
| reads as a number: `120`, `-1.5e3` | with numbers and booleans (true is 1) as numbers, with all others as text | with numbers and booleans only |
| reads as a version: `1.10.0`, `v2`, `1.4.0-rc2` (two dots or more, or a leading v) | as text | with strings that read as a version, number by number: 1.10.0 is above 1.9.0, 1.10 is 1.10.0, and a suffix puts a version before the same one without |
| any other word | as text | with strings, by code point: `day>=2026-11-20` |
| in quotes, whatever it reads as | as text | with strings, by code point |

A tag that cannot be compared so does not match. `!=` is the opposite of `==` on each tag that has the name. NaN equals
no number and is neither above nor below one. An integer beyond 2**53 is compared by `==` as text, because a 64-bit
float would make neighbours equal. A plain number is never a version: `v>=1.10` asks for numbers from 1.1 on, and
`v>=1.10.0` or `v>=v1.10` for versions.

**Regular expressions.** `name ~ "regex"` looks for the expression anywhere in the tag's text, whatever its kind; `^` and
`$` anchor it, `(?i)` ignores case, and `.` is any character, a line break too. The syntax is RE2's, which takes time
linear in the text: no back references, no looking around. In quotes a backslash is written twice: `"\\\\d+"`.

**Beyond tags.** `text(word)`: a message contains it, where ASCII letters match in either case. `event(TOOL)`: an LLM
event of this type. `conversation(id)`, `session(id)`, `user(id)`: a context line of the trace names it. `feedback(tag)`:
feedback under this tag. `error`: a tag of type `error`, an exception, or an event that ended in status `error`.
`duration`: from the trace's start to its last line, feedback and ground truths aside; in seconds where no unit is given.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import get_args

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from tailrace.explorer.conditions import (
    All,
    AnyOf,
    Comparison,
    Condition,
    ConversationIs,
    Duration,
    Expression,
    HasError,
    HasEvent,
    HasFeedback,
    HasText,
    Matches,
    Not,
    OneOf,
    Operator,
    SessionIs,
    Slice,
    TagGroup,
    TagName,
    TagType,
    TraceIs,
    UserIs,
    leaves,
)
from tailrace.explorer.literals import Literal, Text, read_literal, read_micros
from tailrace.schemas.errors import SliceError
from tailrace.schemas.records import EventType

MAX_CHARACTERS = 16_384
"""A longer slice string is refused before it is looked at."""
MAX_CONDITIONS = 64
"""The bits of one UInt64, in which a query notes which conditions a trace satisfies."""
MAX_DEPTH = 32
"""How deep parentheses and negations may nest."""
MAX_VALUES = 1000
"""How many values one `in (…)` may list."""
MAX_PATTERN = 1000
"""Characters of a regular expression."""

GRAMMAR = r"""
    start: either?
    ?either: both | both (_OR both)+ -> any_of
    ?both: unary | unary (_AND unary)+ -> all_of
    ?unary: _NOT unary -> negation
          | _OPEN either _CLOSE
          | word OPERATOR word -> comparison
          | word _MATCHES word -> matching
          | word _IN _OPEN word (_COMMA word)* _CLOSE -> one_of
          | BARE _OPEN word _CLOSE -> call
          | BARE -> flag
    ?word: BARE | QUOTED

    _AND: "&&"
    _OR: "||"
    _NOT: "!"
    _OPEN: "("
    _CLOSE: ")"
    _COMMA: ","
    _MATCHES: "~"
    _IN: /in(?![\w.\-\/:@+])/
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
    "text": HasText,
    "event": HasEvent,
    "conversation": ConversationIs,
    "session": SessionIs,
    "user": UserIs,
    "feedback": HasFeedback,
}
FUNCTIONS = tuple(_FUNCTIONS)
"""What may stand before a parenthesis."""
_EVENT_TYPES = get_args(EventType)
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|!+(?=\s*[(!])|[()]', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_PLAIN_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "n": "\n", "t": "\t", "r": "\r"}
_WRITE = {
    **dict.fromkeys(("=", "===", ":="), "compare with =="),
    **dict.fromkeys(("<>", "=!", "!==", "≠"), "compare with !="),
    **dict.fromkeys(("=>", "≥"), "compare with >="),
    **dict.fromkeys(("=<", "≤"), "compare with <="),
    **dict.fromkeys(("=~", "~=", "~~", "≈"), 'write name ~ "regular expression"'),
    **dict.fromkeys(("!~", "!=~"), 'write !(name ~ "regular expression")'),
    **dict.fromkeys(("&", "&&&", "∧"), "join conditions with &&"),
    **dict.fromkeys(("|", "|||", "∨", "‖", "∥"), "join alternatives with ||"),
    **dict.fromkeys(("¬",), "write ! for not"),
    **dict.fromkeys(("'", "`", "“", "”", "„", "‘", "’", "«", "»"), 'quote with "double quotes"'),
    "\\": 'put the word in "double quotes"',
}
"""What other languages write, and keyboards: what to write instead."""
_WRITE_WORD = {
    "and": "conditions are joined with && and ||, not with {}",
    "or": "conditions are joined with && and ||, not with {}",
    "not": "not is written !, before a condition or parentheses: !(client==acme), !(client in (acme, beta))",
    **dict.fromkeys(
        ("like", "ilike", "contains", "matches", "startswith", "endswith", "regexp", "rlike"),
        'a text is searched with name ~ "regular expression", not with {}',
    ),
    **dict.fromkeys(("is", "equals", "eq"), "a tag is compared with ==, not with {}"),
    "between": "two bounds are two conditions: name>=1 && name<5",
}
"""Words between or before conditions that mean something elsewhere."""
_SIGNS = re.compile(r"[=!<>~&|:]+")
_NEGATED = re.compile(r"(?:^|[\s(&|])not\s*\(?\s*$", re.IGNORECASE)
_CALLED = re.compile(r"(\w+)\s*$")
_OPERATORS = "== != > >= < <= ~ in"


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=False)


def parse_slice(text: str) -> Slice:
    """Read a slice string.

    Raises:
        SliceError: It does not follow the grammar; holds the column and says what would.
    """
    _refuse_oversize(text)
    _refuse_surrogates(text)
    _refuse_depth(text)
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as exc:
        raise _explain(text, exc) from None
    conditions = tuple(_expression(text, child) for child in tree.children if isinstance(child, Tree))
    if len(conditions) == 1 and isinstance(conditions[0], All):
        conditions = conditions[0].parts
    _refuse_many(text, tree, conditions)
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


def _refuse_depth(text: str) -> None:
    """Before the tree is built, so that walking it needs no more of Python's stack than this."""
    depth, negations = 0, [0]
    for match in _NESTING.finditer(text):
        found = match.group()
        if found[0] == "!":
            negations[-1] += len(found)
        elif found == "(":
            depth += 1
            negations.append(0)
        elif found == ")" and depth:
            depth -= 1
            negations.pop()
            negations[-1] = 0
        if depth + sum(negations) > MAX_DEPTH:
            raise SliceError(
                f"parentheses and negations may nest at most {MAX_DEPTH} deep; simplify the slice from here",
                text,
                match.start(),
            )


def _refuse_many(text: str, tree: Tree[Token], conditions: tuple[Expression, ...]) -> None:
    count = sum(1 for expression in conditions for _ in leaves(expression))
    if count <= MAX_CONDITIONS:
        return
    kinds = ("comparison", "matching", "one_of", "call", "flag")
    subtrees = tree.iter_subtrees_topdown()  # type: ignore[no-untyped-call]  # lark gives it no types
    written = [part for part in subtrees if part.data in kinds]
    raise SliceError(
        f"a slice may have at most {MAX_CONDITIONS} conditions, and this has {count}; "
        "values of one name fit into name in (a, b, …)",
        text,
        sorted(_column(part) for part in written)[min(MAX_CONDITIONS, len(written) - 1)],
    )


def _expression(text: str, tree: Tree[Token]) -> Expression:
    parts = [child for child in tree.children if isinstance(child, Tree)]
    match tree.data:
        case "any_of":
            return AnyOf(tuple(_expression(text, part) for part in parts))
        case "all_of":
            return All(tuple(_expression(text, part) for part in parts))
        case "negation":
            return Not(_expression(text, parts[0]))
        case "comparison":
            return _comparison(text, *_tokens(tree))
        case "matching":
            return _matching(text, *_tokens(tree))
        case "one_of":
            return _one_of(text, *_tokens(tree))
        case "call":
            return _call(text, *_tokens(tree))
        case _:
            return _flag(text, *_tokens(tree))


def _comparison(text: str, name: Token, operator: Token, value: Token) -> Expression:
    if name.type == "BARE" and name == "error":
        return _error(text, operator, value)
    if name.type == "BARE" and name == "duration":
        return Duration(Operator(operator), _micros(text, value))
    return Comparison(_word(text, name), Operator(operator), _literal(text, value))


def _error(text: str, operator: Token, value: Token) -> Expression:
    says = {"true": True, "false": False}.get(str(value)) if value.type == "BARE" else None
    if says is None or operator not in ("==", "!="):
        raise SliceError(
            f'error is true or false; for a tag of this name put it in quotes: "error"{operator}{value[:100]}',
            text,
            _column(value if operator in ("==", "!=") else operator),
        )
    return HasError() if says == (operator == "==") else Not(HasError())


def _micros(text: str, token: Token) -> int:
    micros = read_micros(str(token)) if token.type == "BARE" else None
    if micros is None:
        raise SliceError(
            "a duration is a number of seconds, or has a unit: 2, 0.5, 150ms, 2s, 5m, 1h; "
            'for a tag of this name put it in quotes: "duration"',
            text,
            _column(token),
        )
    return micros


def _matching(text: str, name: Token, pattern: Token) -> Condition:
    _refuse_keyword(text, name, "~")
    word = _word(text, pattern)
    if len(word) > MAX_PATTERN:
        raise SliceError(
            f"a regular expression may have at most {MAX_PATTERN} characters, and this has {len(word)}",
            text,
            _column(pattern),
        )
    return Matches(_word(text, name), word, _column(pattern))


def _one_of(text: str, name: Token, *values: Token) -> Condition:
    _refuse_keyword(text, name, "in")
    if len(values) > MAX_VALUES:
        raise SliceError(
            f"in (…) takes at most {MAX_VALUES} values, and this has {len(values)}",
            text,
            _column(values[MAX_VALUES]),
        )
    return OneOf(_word(text, name), tuple(dict.fromkeys(_literal(text, value) for value in values)))


def _refuse_keyword(text: str, name: Token, operator: str) -> None:
    if name.type == "BARE" and name in ("error", "duration"):
        raise SliceError(
            f'{name} cannot be compared with {operator}; for a tag of this name put it in quotes: "{name}"',
            text,
            _column(name),
        )


def _call(text: str, function: Token, argument: Token) -> Condition:
    make = _FUNCTIONS.get(function)
    if make is None:
        raise SliceError(
            f"there is no function {function[:100]}; {_other_function(function)}", text, _column(function)
        )
    word = _word(text, argument)
    if make is HasText and not word:
        raise SliceError("an empty text is in every message; say what to look for", text, _column(argument))
    if make is HasEvent:
        return HasEvent(_event_type(text, word, argument))
    return make(word)


def _other_function(name: str) -> str:
    if name.lower() == "not":
        return _WRITE_WORD["not"]
    if name.lower() == "duration":
        return "a duration is compared: duration>2s"
    if name.lower() == "error":
        return "error stands alone, or is compared with true or false"
    close = difflib.get_close_matches(name[:100].lower(), _FUNCTIONS, n=1)
    return f"did you mean {close[0]}(…)?" if close else f"there are {', '.join(_FUNCTIONS)}"


def _event_type(text: str, word: str, argument: Token) -> str:
    name = word.upper()
    if name not in _EVENT_TYPES:
        close = difflib.get_close_matches(name[:100], _EVENT_TYPES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_EVENT_TYPES)}"
        raise SliceError(f"there is no event type {argument[:100]}; {hint}", text, _column(argument))
    return name


def _flag(text: str, word: Token) -> Condition:
    if word == "error":
        return HasError()
    column = _column(word) + len(word)
    name, _, value = word.partition(":")
    if word in _FUNCTIONS:
        raise SliceError(f"expected ( or an operator after the name; write {word}(…)", text, column)
    if name and value and ":" not in value:
        meant = f"{name[:50]}({value[:50]})" if name in _FUNCTIONS else f"{name[:50]}=={value[:50]}"
        raise SliceError(
            f"{word[:100]} is one word, without an operator; did you mean {meant}?", text, column
        )
    close = "; did you mean error?" if difflib.get_close_matches(str(word)[:100].lower(), ["error"]) else ""
    raise SliceError(f"expected an operator ({_OPERATORS}) after the name{close}", text, column)


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
        return SliceError(_strange(text, column), text, column)
    if not isinstance(exc, UnexpectedToken):
        return SliceError("this slice ends too early", text, len(text))
    token: Token = exc.token
    column = len(text) if token.type == "$END" else (token.start_pos or 0)
    found = "the slice ends here" if token.type == "$END" else f"found {token[:60]}"
    hint = _foreign(text, column, token) or _expected(exc.expected, token, text[:column])
    return SliceError(f"{hint}; {found}", text, column)


def _foreign(text: str, column: int, token: Token) -> str | None:
    """What to write instead of something that other languages have; `None` where it is nothing of the kind."""
    signs = _signs(text, column)
    if signs in _WRITE:
        return f"{signs} means nothing here; {_WRITE[signs]}"
    if token.type == "BARE" and (hint := _WRITE_WORD.get(token.lower())):
        return hint.format(token)
    before = text[:column]
    negated = _NEGATED.search(before[-100:]) or _NEGATED.search(_opened(before)[-100:])
    return _WRITE_WORD["not"] if negated else None


def _signs(text: str, column: int) -> str:
    """The operator, or what somebody took for one, that a column lies in; '' when there is none."""
    first = max(column - 3, 0)
    return next(
        (m.group() for m in _SIGNS.finditer(text, first, column + 4) if m.start() <= column < m.end()), ""
    )


def _opened(text: str) -> str:
    """The text before the innermost parenthesis that is open at its end; '' when none is."""
    opened = []
    for match in _NESTING.finditer(text):
        if match.group() == "(":
            opened.append(match.start())
        elif match.group() == ")" and opened:
            opened.pop()
    return text[: opened[-1]] + "(" if opened else ""


def _strange(text: str, column: int) -> str:
    character = text[column]
    if character == '"':
        return 'this quote is never closed; end it with ", and write a quote inside as \\"'
    signs = _signs(text, column) or character
    if signs in _WRITE or character in _WRITE:
        return f"{signs} means nothing here; {_WRITE.get(signs) or _WRITE[character]}"
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    name = unicodedata.name(character, "a character without a name")
    plain = unicodedata.normalize("NFKC", character)
    if plain and plain != character and plain in "=!<>&|~()\"'":
        return f'{shown} is {name}, not {plain}; type the plain one, or put the word in "double quotes"'
    if not character.isascii():
        return f'{shown} ({name}) cannot stand in a bare word; put the word in "double quotes"'
    return f'{shown} cannot stand in a bare word; put the word in "double quotes"'


def _expected(expected: set[str], token: Token, before: str) -> str:
    """What could have stood there, from the terminals that the parser would have taken and the text before it."""
    opened = _opened(before)
    if "OPERATOR" in expected:
        called = _CALLED.search(before[-100:])
        if called and called.group(1) in _FUNCTIONS and token.type in ("BARE", "QUOTED"):
            return f"expected ( or an operator after the name; write {called.group(1)}({token[:50]})"
        return f"expected an operator ({_OPERATORS}) after the name"
    if expected & {"_AND", "_COMMA", "_CLOSE"}:
        if token.type in ("OPERATOR", "_MATCHES", "_IN"):
            return "a condition has one operator; join two with &&, for example x>=1 && x<5"
        if token.type == "_CLOSE":
            return "this parenthesis was never opened"
        if re.search(r"\bin\s*\($", opened):
            return "expected , or )"
        if "_AND" not in expected:
            return "expected )"
        return "expected && or || or )" if opened else "expected && or || or the end"
    if expected == {"_OPEN"}:
        return "in takes values in parentheses: client in (acme, beta)"
    if token.type == "_CLOSE" and opened:
        return "there is nothing between these parentheses; expected a word or a condition"
    if token.type == "_CLOSE":
        return "this parenthesis was never opened"
    return 'expected a word, or a text in "double quotes"'
