"""What a remote caller may not do: reach through the engine to this machine's disk, processes or network.

chDB runs with the rights of an embedded library: `file('/etc/passwd')` works, a table name that is a path reads
that file, and its grants cannot be taken away, not even with `readonly`. So statements are read here, token by token:

- functions and table functions that are not known to stay inside the database are refused (`SAFE_TABLE_FUNCTIONS`
  is what is allowed of the engine's own list, so that new ones are refused until somebody looked at them);
- tables and databases may only have engines that keep their data inside the database;
- names that read as paths are refused where chDB would open a file;
- `INTO OUTFILE`, `FROM INFILE`, ATTACH … FROM, SYSTEM SHUTDOWN and settings that name files are refused, and so is every
  statement that is not known to be harmless in this respect (BACKUP, COPY, EXECUTE AS …).

Quoting a function's name, comments in between, `APPLY` and expressions in VALUES change nothing of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from tailrace.explorer.front.lexer import Kind, Token
from tailrace.explorer.front.refusal import Refusal

SAFE_TABLE_FUNCTIONS = frozenset(
    {
        "dictionary",
        "format",
        "generaterandom",
        "generateseries",
        "generate_series",
        "input",
        "merge",
        "mergetreeindex",
        "mergetreeprojection",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "viewexplain",
        "viewifpermitted",
        "zeros",
        "zeros_mt",
    }
)
"""Table functions that stay inside the database, in lower case."""

_ALWAYS_OUTSIDE = frozenset(
    {
        "file",
        "url",
        "s3",
        "remote",
        "executable",
        "python",
        "eval",
        "disk",
        "catboostevaluate",
        "loop",
        "joinget",
    }
)
_SAFE_ENGINES = re.compile(
    r"^(?:(?:Replicated)?(?:Replacing|Aggregating|Summing|Collapsing|VersionedCollapsing|Coalescing|Graphite)?MergeTree"
    r"|Memory|Null|Log|TinyLog|StripeLog|Set|Join|Buffer|Merge|View|MaterializedView|Dictionary|GenerateRandom|Alias"
    r"|Atomic|Ordinary)$",
    re.IGNORECASE,
)
_FILE_SETTING = re.compile(
    r"^(?:format_schema.*|format_template_.*|.*_path|.*schema_registry.*|rename_files_after_processing|.*_url)$",
    re.IGNORECASE,
)
_STATEMENTS = tuple(
    b"SELECT WITH FROM SHOW DESCRIBE DESC EXISTS EXPLAIN CHECK SET USE INSERT CREATE ALTER DROP RENAME EXCHANGE TRUNCATE UNDROP "
    b"DETACH ATTACH REPLACE OPTIMIZE KILL SYSTEM DELETE UPDATE BEGIN COMMIT ROLLBACK GRANT REVOKE".split()
)
"""What a statement may begin with; BACKUP, RESTORE, COPY, EXECUTE AS and what engines will learn yet are not among it."""
_SYSTEM_COMMANDS = (b"FLUSH", b"START", b"STOP", b"SYNC", b"DROP", b"CLEAR", b"RELOAD", b"WAIT")
_OVERLAY_DATABASE = b"default"
"""chDB's own database, in which a table name may be the path of a file."""


class Guard:
    """The rules, for one engine.

    Args:
        table_functions: Names of all table functions that the engine has.
        enabled: False allows everything.
    """

    def __init__(self, table_functions: Iterable[str], enabled: bool = True) -> None:
        self._enabled = enabled
        named = {name.lower() for name in table_functions}
        self._outside = frozenset(name.encode() for name in (named - SAFE_TABLE_FUNCTIONS) | _ALWAYS_OUTSIDE)

    def check(self, tokens: Sequence[Token], database: str, parameters: Mapping[str, str]) -> None:
        """Look at a statement.

        Args:
            tokens: All of it.
            database: The database that names without one belong to.
            parameters: The values of its `{name:Type}` parameters.

        Raises:
            Refusal: With ClickHouse's ACCESS_DENIED.
        """
        if self._enabled:
            self._command(tokens)
            self.check_settings(_settings(tokens))
            self._tokens(tokens, database, parameters)

    def _tokens(self, tokens: Sequence[Token], database: str, parameters: Mapping[str, str]) -> None:
        in_overlay = database.lower().encode() == _OVERLAY_DATABASE
        for index, token in enumerate(tokens):
            before = tokens[index - 1] if index else None
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            if token.is_word(b"OUTFILE", b"INFILE"):
                raise _denied(f"{token.text.decode()} is not allowed")
            self._name(token, before, after, tokens[max(0, index - 2) : index], in_overlay)
            if token.text == b"{" and after is not None and after.name is not None:
                value = parameters.get(after.name.decode("latin-1"), "")
                is_name = index + 3 < len(tokens) and tokens[index + 3].is_word(b"IDENTIFIER")
                if is_name and ("/" in value or "\\" in value or (in_overlay and "." in value)):
                    raise _denied("a parameter that names a file instead of a table is not allowed")

    def check_values(self, tokens: Iterable[Token]) -> None:
        """Look at the data of `INSERT … VALUES`, which may hold expressions.

        Raises:
            Refusal: They call something that is not allowed.
        """
        if self._enabled:
            self._tokens(tuple(tokens), "", {})

    def check_settings(self, names: Iterable[str]) -> None:
        """Look at settings that a request or a statement sets.

        Raises:
            Refusal: One of them names a file or a host.
        """
        if not self._enabled:
            return
        for name in names:
            if _FILE_SETTING.search(name):
                raise _denied(f"setting {name} is not allowed")

    def _name(
        self,
        token: Token,
        before: Token | None,
        after: Token | None,
        two_before: Sequence[Token],
        in_overlay: bool,
    ) -> None:
        name = token.name
        if name is None:
            return
        called = after is not None and after.text == b"("
        applied = any(word.is_word(b"APPLY") for word in two_before)
        if (called or applied) and name.lower() in self._outside:
            raise _denied(f"{name.decode('latin-1')}(…) reaches outside the database and is not allowed")
        if token.kind is not Kind.QUOTED:
            return
        if b"\\" in name:
            raise _denied("a quoted name with a backslash is not allowed")
        if before is not None and before.text == b".":
            qualifier = two_before[0].name if len(two_before) == 2 else None
            if b"/" in name or (b"." in name and (qualifier or b"").lower() == _OVERLAY_DATABASE):
                raise _denied("a name that is a path is not allowed")
        elif (
            in_overlay
            and (b"/" in name or b"." in name)
            and not (before is not None and before.is_word(b"AS"))
        ):
            raise _denied("a name that is a path is not allowed in database default; choose another database")

    def _command(self, tokens: Sequence[Token]) -> None:
        first = tokens[0]
        second = tokens[1] if len(tokens) > 1 else None
        if first.kind is Kind.WORD and not first.is_word(*_STATEMENTS):
            word = first.text.decode()
            raise Refusal(
                62,
                f"Syntax error: failed at position 1 ({word}): no statement of this HTTP interface begins so",
            )
        if any(one.is_word(b"PARALLEL") and two.is_word(b"WITH") for one, two in pairwise(tokens)):
            raise _denied("PARALLEL WITH is not allowed")
        if first.is_word(b"ATTACH") and any(token.is_word(b"FROM") for token in tokens):
            raise _denied("ATTACH … FROM is not allowed")
        if first.is_word(b"CREATE") and second is not None and second.is_word(b"HANDLER", b"TOKEN"):
            raise _denied(f"CREATE {second.text.decode()} is not allowed")
        if first.is_word(b"SYSTEM") and not (second is not None and second.is_word(*_SYSTEM_COMMANDS)):
            raise _denied("this SYSTEM command is not allowed")
        if not first.is_word(b"CREATE", b"ATTACH", b"REPLACE"):
            return
        _engine(tokens)
        words = {token.text.upper() for token in tokens if token.kind is Kind.WORD}
        if b"DICTIONARY" in words and b"SOURCE" in words:
            _dictionary_source(tokens)
        if b"FUNCTION" in words and words & {b"LANGUAGE", b"EXECUTABLE"}:
            raise _denied("CREATE FUNCTION in another language is not allowed")


def _engine(tokens: Sequence[Token]) -> None:
    """The engine of a CREATE, which stands outside brackets and before the query that may fill the table."""
    for index, token in enumerate(tokens[:-1]):
        if token.depth > 0:
            continue
        if token.is_word(b"SELECT", b"WITH"):
            return
        if token.is_word(b"ENGINE"):
            named = (
                tokens[index + 2 : index + 3]
                if tokens[index + 1].text == b"="
                else tokens[index + 1 : index + 2]
            )
            text = (named[0].name or b"").decode("latin-1") if named else ""
            if not _SAFE_ENGINES.match(text):
                raise _denied(f"engine {text} may reach outside the database and is not allowed")


def _settings(tokens: Sequence[Token]) -> Iterator[str]:
    """The names of the settings that a statement sets, in SET or in any SETTINGS clause."""
    clause: int | None = 0 if tokens[0].is_word(b"SET") else None
    for index, token in enumerate(tokens):
        if token.is_word(b"SETTINGS"):
            clause = token.depth
        elif clause is not None and (token.depth < clause or token.is_word(b"SELECT", b"FORMAT", b"VALUES")):
            clause = None
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if clause is not None and token.name is not None and following is not None and following.text == b"=":
            yield token.name.decode("latin-1")


def _dictionary_source(tokens: Sequence[Token]) -> None:
    for index, token in enumerate(tokens[:-2]):
        if (
            token.is_word(b"SOURCE")
            and tokens[index + 1].text == b"("
            and not tokens[index + 2].is_word(b"NULL")
        ):
            source = tokens[index + 2 :]
            if not source[0].is_word(b"CLICKHOUSE") or any(part.is_word(b"HOST", b"PORT") for part in source):
                raise _denied("a dictionary may only have a table of this database as its source")


def _denied(text: str) -> Refusal:
    return Refusal(497, f"{text} through this HTTP interface")
