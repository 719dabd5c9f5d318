"""From conditions to SQL: which traces a slice selects.

Each part of the conjunction is one scan of what its conditions need, and each scan sees only the traces that all
before it let through:

    SELECT k, min(began) AS start FROM (broadest part WHERE k IN (… (narrower part WHERE k IN (narrowest part))))
    WHERE k NOT IN (what must not hold) GROUP BY k

`order.prepared` says which part is the narrowest. A part that mixes conditions (`a==1 || (b==2 && !error)`)
notes the conditions that a trace satisfies in the bits of a UInt64 and keeps those of which the formula holds.
"""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    LineCondition,
    Matches,
    Not,
    OneOf,
    Operator,
    SessionIs,
    Slice,
    StringIsOneOf,
    TagCondition,
    TagGroup,
    TagName,
    TagType,
    TraceIs,
    UserIs,
    holds_of_nothing,
    leaves,
)
from tailrace.explorer.literals import VERSION_PARTS, VERSION_PATTERN, Literal, Number, Version
from tailrace.explorer.period import DAY, EVER, Period, to_datetime
from tailrace.explorer.reader import Parameters
from tailrace.schemas.timestamps import EARLIEST, LATEST

UNIVERSE = (
    "logs",
    "tag_lines",
    "objects",
    "traces",
    "event_lines",
    "feedback",
    "predictions",
    "ground_truths",
    "exceptions",
)
"""Every table whose lines belong to traces. Lines of a monitoring session may have no trace; their trace_id is ''."""

LATE = frozenset({"feedback", "ground_truths"})
"""What is logged long after a trace ended, and so says nothing of its duration."""

TAG_IDENTITY = "cityHash64(line_hash, value_hash, kind, type, group)"
"""Rows of one trace that agree in this are the same tag, logged once and stored twice."""

_LONGEST_CHAIN = 8
"""Scans inside one another; the conditions beyond are taken together in the last."""
_SQL_OPERATORS = {operator: "=" if operator is Operator.EQUAL else operator.value for operator in Operator}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a question looks.

    Args:
        project: `None` for every project; the same trace id in two projects is then two traces.
        period: When traces began.
    """

    project: str | None = None
    period: Period = EVER


def scope_where(scope: Scope, parameters: Parameters) -> str:
    """A condition on `project_id` and `trace_ts` that every table of lines and `tags` understands."""
    parts = []
    if scope.project is not None:
        parts.append(f"project_id = {parameters.add(scope.project, 'String')}")
    if scope.period.since is not None:
        parts.append(
            f"trace_ts >= fromUnixTimestamp64Micro({parameters.add(scope.period.since, 'Int64')}, 'UTC')"
        )
    if scope.period.until is not None:
        parts.append(
            f"trace_ts < fromUnixTimestamp64Micro({parameters.add(scope.period.until, 'Int64')}, 'UTC')"
        )
    return " AND ".join(parts) or "1"


def tag_rows(columns: str, scope: Scope, parameters: Parameters, test: str) -> str:
    """A SELECT of the rows of `tags` in the scope that satisfy a test; rows of whole days are not asked for their time.

    Args:
        columns: What to select.
        scope: Where to look.
        parameters: Where its values go.
        test: A condition on a row.
    """
    return " UNION ALL ".join(_tag_scans(columns, scope, parameters, test))


def _tag_scans(columns: str, scope: Scope, parameters: Parameters, test: str) -> list[str]:
    return [
        f"SELECT {columns} FROM tags WHERE {where} AND {test}" for where in _tag_wheres(scope, parameters)
    ]


def _tag_wheres(scope: Scope, parameters: Parameters) -> list[str]:
    """Conditions on `tags`: each row of the scope satisfies one of them, and no other row does.

    Rows of days that lie wholly in the period are told by their partitions: comparing the times of all of them would take
    longer than most of what else a slice asks of a row. A Distributed table has `_partition_id` as well, and asks it of the
    tables behind it.
    """
    since, until = scope.period.since, scope.period.until
    if not _dated(scope.period):
        return [scope_where(scope, parameters)]
    first = None if since is None else -(-since // DAY)
    last = None if until is None else until // DAY
    if (first is None and last is None) or (first is not None and last is not None and first >= last):
        return [scope_where(scope, parameters)]
    edges = []
    if first is not None and first * DAY != since:
        edges.append(f"_partition_id < {parameters.add(_partition(first), 'String')}")
    if last is not None and last * DAY != until:
        edges.append(f"_partition_id >= {parameters.add(_partition(last), 'String')}")
    wheres = [_days_where(scope.project, first, last, parameters)]
    if edges:
        wheres.append(f"{scope_where(scope, parameters)} AND ({' OR '.join(edges)})")
    return wheres


def days_where(scope: Scope, parameters: Parameters) -> str:
    """A condition on `tags` for all rows of the days that the period is in, whatever their time."""
    since, until = scope.period.since, scope.period.until
    if not _dated(scope.period):
        return scope_where(scope, parameters)
    first = None if since is None else since // DAY
    last = None if until is None else -(-until // DAY)
    return _days_where(scope.project, first, last, parameters)


def _days_where(project: str | None, first: int | None, last: int | None, parameters: Parameters) -> str:
    """For days since the epoch, the last of them not included. A partition is a day, named as `toYYYYMMDD` has it."""
    parts = [] if project is None else [f"project_id = {parameters.add(project, 'String')}"]
    if first is not None:
        parts.append(f"_partition_id >= {parameters.add(_partition(first), 'String')}")
    if last is not None:
        parts.append(f"_partition_id < {parameters.add(_partition(last), 'String')}")
    return " AND ".join(parts) or "1"


def _partition(day: int) -> str:
    return f"{to_datetime(day * DAY):%Y%m%d}"


def _dated(period: Period) -> bool:
    """Whether its ends are times that rows can have."""
    return all(EARLIEST <= end <= LATEST for end in (period.since, period.until) if end is not None)


def last_seen(table: str) -> str:
    """What a line says of how long its trace lasted: its time, or one before all lines where it says nothing."""
    return "toDateTime64('1900-01-01 00:00:00', 6, 'UTC')" if table in LATE else "ts"


def trace_key(scope: Scope, hash: str) -> str:
    """One UInt64 that tells traces apart: the hash of the id, mixed with the project where that is open."""
    return hash if scope.project is not None else f"cityHash64(project_id, {hash})"


def selection(query: Slice, scope: Scope, parameters: Parameters, *, timed: bool = True) -> str:
    """A SELECT of `k`, the key of each trace in the slice, once, and if `timed`, of `start`, a time at which it began."""
    conditions = tuple(dict.fromkeys(query.conditions))
    ids = tuple(c.trace_id for c in conditions if isinstance(c, TraceIs))
    build = _Build(scope, parameters, ids)
    others = [c for c in conditions if not isinstance(c, TraceIs)]
    required = [c for c in others if not holds_of_nothing(c)]
    excluded = [_negated(c) for c in others if holds_of_nothing(c)]
    durations = tuple(c for c in required if isinstance(c, Duration))
    if len(durations) > 1:
        # Each would read every line of the period: `duration>1 && duration<2` is one scan.
        required = [*(c for c in required if c not in durations), All(durations)]
    if len(required) > _LONGEST_CHAIN:
        required = [*required[: _LONGEST_CHAIN - 1], All(tuple(required[_LONGEST_CHAIN - 1 :]))]
    inside = ""
    for part in required[:-1]:
        inside = build.members(part, inside, timed=False)
    rows = build.members(required[-1], inside, timed=timed) if required else build.universe()
    plain = tuple(c for c in excluded if not isinstance(c, All | AnyOf | Not))
    if len(plain) > 1:
        excluded = [AnyOf(plain), *(c for c in excluded if c not in plain)]
    where = "".join(
        f"{' AND ' if n else ' WHERE '}k NOT IN ({build.members(part, '', timed=False)})"
        for n, part in enumerate(excluded)
    )
    return f"SELECT k{', min(began) AS start' if timed else ''} FROM ({rows}){where} GROUP BY k"


def errors(scope: Scope, parameters: Parameters) -> str:
    """A SELECT of `k` of every trace that has an error; some of them several times."""
    return _Build(scope, parameters, ()).members(HasError(), "", timed=False)


def _negated(expression: Expression) -> Expression:
    return expression.part if isinstance(expression, Not) else Not(expression)


class _Build:
    """Writes the scans of one question. Every SELECT that it gives has the column `k`, and `began` where that is wanted.

    ClickHouse takes the longer to understand a question the more SELECTs are inside one another; in one of several tables of
    results each stands as often as it is named.

    Args:
        scope: Where it looks.
        parameters: Where its values go.
        ids: Only traces with all of these ids.
    """

    def __init__(self, scope: Scope, parameters: Parameters, ids: Sequence[str]) -> None:
        where = scope_where(scope, parameters)
        bound = [parameters.add(trace_id, "String") for trace_id in ids]
        self._scope = scope
        self._parameters = parameters
        self._where = where
        self._tags_of = "".join(f" AND trace_hash = cityHash64({id})" for id in bound)
        self._lines_where = where + "".join(f" AND trace_id = {id}" for id in bound)
        self._tags_key = trace_key(scope, "trace_hash")
        self._lines_key = trace_key(scope, "cityHash64(trace_id)")

    def members(self, part: Expression, inside: str, *, timed: bool) -> str:
        """The traces of which an expression holds; some of them several times.

        Args:
            part: Must not hold of a trace that has nothing.
            inside: A SELECT of the keys that matter; '' when all do.
            timed: With `began`.
        """
        conditions = tuple(dict.fromkeys(leaves(part)))
        began = ", trace_ts AS began" if timed else ""
        if part in conditions or (isinstance(part, AnyOf) and set(part.parts) <= set(conditions)):
            return _union(self._scans(dict.fromkeys(conditions), began), inside)
        bits: dict[Condition, int | None] = {condition: bit for bit, condition in enumerate(conditions)}
        formula = _formula(part, bits)
        first = ", min(noted.began) AS began" if timed else ""
        return (
            f"SELECT k{first} FROM ({_union(self._scans(bits, began), inside)}) AS noted "
            f"GROUP BY k HAVING {formula}"
        )

    def universe(self) -> str:
        """Every line of every trace."""
        return " UNION ALL ".join(self._lines(table, "1", ", trace_ts AS began") for table in UNIVERSE)

    def _scans(self, bits: Mapping[Condition, int | None], began: str) -> list[str]:
        """The rows that satisfy some condition; with `bits`, the numbers of those that a row satisfies, if they have any.

        Each is a SELECT without UNION that ends in its WHERE.

        One scan answers all conditions on tags, and one all conditions of one kind on the lines of a table.
        """
        tests: dict[tuple[str, type], list[_Test]] = {}
        durations: list[_Test] = []
        for condition, bit in bits.items():
            if isinstance(condition, Duration):
                micros = self._parameters.add(condition.micros, "Int64")
                durations.append((f"took {_SQL_OPERATORS[condition.operator]} {micros}", bit))
            elif isinstance(condition, LineCondition):
                for table, test in self._line_tests(condition):
                    tests.setdefault((table, type(condition)), []).append((test, bit))
            else:
                test = tag_test(condition, self._scope, self._where + self._tags_of, self._parameters)
                tests.setdefault(("tags", object), []).append((test, bit))
        scans = []
        for (table, _), of in tests.items():
            more = began + _bits(of)
            scans += self._tags(_any(of), more) if table == "tags" else [self._lines(table, _any(of), more)]
        if durations:
            scans.append(self._durations(_any(durations), (", began" if began else "") + _bits(durations)))
        return scans

    def _tags(self, test: str, more: str) -> list[str]:
        columns = f"{self._tags_key} AS k{more}"
        return _tag_scans(columns, self._scope, self._parameters, f"({test}){self._tags_of}")

    def _lines(self, table: str, test: str, more: str) -> str:
        return (
            f"SELECT {self._lines_key} AS k{more} FROM {table} "
            f"WHERE {self._lines_where} AND trace_id != '' AND ({test})"
        )

    def _durations(self, test: str, more: str) -> str:
        lines = " UNION ALL ".join(
            f"SELECT {self._lines_key} AS k, trace_ts AS first, {last_seen(table)} AS last "
            f"FROM {table} WHERE {self._lines_where} AND trace_id != ''"
            for table in UNIVERSE
        )
        spans = (
            "SELECT k, min(line.first) AS began, "
            "greatest(toUnixTimestamp64Micro(max(line.last)) - toUnixTimestamp64Micro(began), 0) AS took "
            f"FROM ({lines}) AS line GROUP BY k"
        )
        return f"SELECT k{more} FROM ({spans}) WHERE ({test})"

    def _line_tests(self, condition: LineCondition) -> list[tuple[str, str]]:
        """In which tables a condition on lines looks, and for what."""

        def value(text: str) -> str:
            return self._parameters.add(text, "String")

        match condition:
            case TraceIs(trace_id):
                same = f"trace_id = {value(trace_id)}"
                return [(table, same) for table in UNIVERSE]
            case HasText(text):
                return [("logs", f"positionCaseInsensitive(message, {value(text)}) > 0")]
            case HasEvent(type):
                return [("event_lines", f"phase = 'start' AND event_type = {value(type)}")]
            case ConversationIs(id):
                return [("traces", f"conversation_id = {value(id)}")]
            case SessionIs(id):
                return [("traces", f"session_id = {value(id)}")]
            case UserIs(id):
                return [("traces", f"user_id = {value(id)}")]
            case HasFeedback(tag):
                return [("feedback", f"feedback_tag = {value(tag)}")]
            case HasError():
                return [
                    ("tags", "type = 'error'"),
                    ("exceptions", "1"),
                    ("event_lines", "phase = 'end' AND status = 'error'"),
                ]


_Test = tuple[str, int | None]
"""A condition in SQL, and the bit that stands for it, if any does."""


def _any(tests: Sequence[_Test]) -> str:
    return " OR ".join(f"({test})" for test, _ in tests)


def _bits(tests: Sequence[_Test]) -> str:
    noted = " + ".join(f"bitShiftLeft(toUInt64({test}), {bit})" for test, bit in tests if bit is not None)
    return f", {noted} AS bits" if noted else ""


def _union(scans: Sequence[str], inside: str) -> str:
    if inside and len(scans) == 1:
        return f"{scans[0]} AND k IN ({inside})"
    rows = " UNION ALL ".join(scans)
    # Outside of the union, so that the keys are gathered once and not for every scan; ClickHouse pushes it down.
    return f"SELECT * FROM ({rows}) WHERE k IN ({inside})" if inside else rows


def _formula(expression: Expression, bits: Mapping[Condition, int | None]) -> str:
    match expression:
        case All(parts):
            return "(" + " AND ".join(_formula(part, bits) for part in parts) + ")"
        case AnyOf(parts):
            return "(" + " OR ".join(_formula(part, bits) for part in parts) + ")"
        case Not(part):
            return f"NOT {_formula(part, bits)}"
        case _:
            return f"bitTest(groupBitOr(noted.bits), {bits[expression]})"


def tag_test(condition: TagCondition, scope: Scope, where: str, parameters: Parameters) -> str:
    """A condition on one row of `tags`; `where` is that of the whole question, in `scope`."""
    match condition:
        case TagName(name):
            return f"name = {parameters.add(name, 'String')}"
        case TagType(type):
            return f"type = {parameters.add(type, 'String')}"
        case TagGroup(group):
            return f"group = {parameters.add(group, 'String')}"
        case Matches(name, pattern):
            return (
                f"name = {parameters.add(name, 'String')} AND match(str, {parameters.add(pattern, 'String')})"
            )
    value = _Value(condition.name, scope, parameters)
    match condition:
        case OneOf(_, values):
            return _one_of(value, values, parameters)
        case StringIsOneOf(_, texts):
            return f"kind = 'string' AND {value.found(texts)}"
        case Comparison(_, Operator.EQUAL, Number(exact=True) as number):
            return f"{value.named} AND {_equals(value, number, parameters)}"
        case Comparison(_, Operator.NOT_EQUAL, Number(exact=True) as number):
            return f"{value.named} AND NOT {_equals(value, number, parameters)}"
        case Comparison(_, Operator.EQUAL, literal):
            return value.found([literal.text])
        case Comparison(_, Operator.NOT_EQUAL, literal):
            return f"{value.named} AND NOT {value.among([literal.text])}"
        case Comparison(_, operator, Number() as number):
            limit = parameters.add(number.number, "Float64")
            return f"{value.named} AND kind IN ('number', 'bool') AND num {operator} {limit}"
        case Comparison(name, operator, Version() as version):
            satisfying = _versions(name, operator, version, where, parameters)
            return f"{value.named} AND kind = 'string' AND str IN ({satisfying})"
        case Comparison(_, operator, literal):
            return f"{value.named} AND kind = 'string' AND str {operator} {parameters.add(literal.text, 'String')}"


class _Value:
    """Writes conditions on the text of a tag of one name.

    Within a project they compare `value_hash`, one number that stands for project, name and text.
    """

    def __init__(self, name: str, scope: Scope, parameters: Parameters) -> None:
        self._parameters = parameters
        self._name = parameters.add(name, "String")
        self._project = None if scope.project is None else parameters.add(scope.project, "String")
        self.named = f"name = {self._name}"

    def among(self, texts: Sequence[str]) -> str:
        """Of a row that has the name: its text is one of these."""
        return self._tests(texts)[0]

    def found(self, texts: Sequence[str]) -> str:
        """Of any row: it has the name, and its text is one of these."""
        test, plain = self._tests(texts)
        rows = f"{self.named} AND {plain}"
        # The primary index finds the rows by the condition in `indexHint`, which is not asked of them again.
        return rows if self._project is None else f"{test} AND indexHint({rows})"

    def _tests(self, texts: Sequence[str]) -> tuple[str, str]:
        """What tells the rows in the least time, and the same said of `str`."""
        if len(texts) == 1:
            text = self._parameters.add(texts[0], "String")
            plain, hashed = f"str = {text}", f"value_hash = {self._hash(text)}"
        else:
            bound = self._parameters.add(list(texts), "Array(String)")
            plain, hashed = (
                f"str IN {bound}",
                f"value_hash IN (SELECT {self._hash('text')} FROM (SELECT arrayJoin({bound}) AS text))",
            )
        return (plain if self._project is None else hashed), plain

    def _hash(self, text: str) -> str:
        return f"cityHash64({self._project}, {self._name}, {text})"


def _one_of(value: _Value, literals: Sequence[Literal], parameters: Parameters) -> str:
    numbers = [literal for literal in literals if isinstance(literal, Number) and literal.exact]
    others = [literal.text for literal in literals if literal not in numbers]
    if not numbers:
        return value.found(others)
    floats = parameters.add([number.number for number in numbers], "Array(Float64)")
    test = (
        f"if(kind IN ('number', 'bool'), num IN {floats}, {value.among([number.text for number in numbers])})"
    )
    return f"{value.named} AND ({test}{f' OR {value.among(others)}' if others else ''})"


def _equals(value: _Value, number: Number, parameters: Parameters) -> str:
    """Numbers and booleans are compared as numbers, anything else by its text."""
    same = f"num = {parameters.add(number.number, 'Float64')}"
    return f"if(kind IN ('number', 'bool'), {same}, {value.among([number.text])})"


def _versions(name: str, operator: Operator, value: Version, where: str, parameters: Parameters) -> str:
    """A SELECT of the texts under this name that are such versions.

    A name has far fewer texts than rows: reading each as a version once costs little. They go through an array, or
    ClickHouse would push the test below what makes them distinct, and read every row's.
    """
    pattern = parameters.add(VERSION_PATTERN, "String")
    typed_parts = parameters.add(list(value.parts), "Array(UInt64)")
    typed_suffix = parameters.add(value.suffix, "String")
    parts = (
        f"arrayResize(arrayMap(part -> toUInt64OrZero(part), splitByChar('.', found[1])), {VERSION_PARTS}, 0)"
    )
    suffix = "concat(found[2], found[3])"
    # A version without a suffix is above the same one with any: compare "has none" before the suffix itself.
    return (
        f"SELECT str FROM (SELECT str, extractGroups(str, {pattern}) AS found FROM ("
        f"SELECT arrayJoin(groupUniqArray(one.text)) AS str FROM (SELECT any(tags.str) AS text FROM tags WHERE {where} "
        f"AND name = {parameters.add(name, 'String')} AND kind = 'string' GROUP BY value_hash) AS one)) "
        f"WHERE notEmpty(found) AND ({parts}, {suffix} = '', {suffix}) "
        f"{operator} ({typed_parts}, {typed_suffix} = '', {typed_suffix})"
    )


def versions(condition: Comparison, scope: Scope, parameters: Parameters) -> str:
    """A SELECT of the texts that satisfy a comparison with a version.

    Args:
        condition: Its value is a `Version`, its operator neither `==` nor `!=`.
        scope: Where it looks.
        parameters: Where its values go.
    """
    assert isinstance(condition.value, Version)  # noqa: S101 - what the caller promised, for the type checker
    where = scope_where(scope, parameters)
    return _versions(condition.name, condition.operator, condition.value, where, parameters)
