"""What a slice string says, once read: frozen values that compare equal when they mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from tailrace.explorer.literals import Literal


class Operator(StrEnum):
    """How a tag's value, or a trace's duration, is compared."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    LESS = "<"
    LESS_OR_EQUAL = "<="


@dataclass(frozen=True, slots=True)
class Comparison:
    """The trace has a tag of this name whose value compares so."""

    name: str
    operator: Operator
    value: Literal


@dataclass(frozen=True, slots=True)
class OneOf:
    """The trace has a tag of this name whose value equals one of these."""

    name: str
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """The trace has a tag of this name in whose text the regular expression finds something.

    Args:
        name: The tag's.
        pattern: In RE2's syntax.
        column: Where the pattern stands in the slice string, for errors that only ClickHouse finds.
    """

    name: str
    pattern: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class StringIsOneOf:
    """The trace has a tag of this name that is a string, and one of these: what `order.prepared` makes of a comparison
    of versions.
    """

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TagName:
    """The trace has a tag of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class TagType:
    """The trace has a tag of this type."""

    type: str


@dataclass(frozen=True, slots=True)
class TagGroup:
    """The trace has a tag of this group."""

    group: str


@dataclass(frozen=True, slots=True)
class TraceIs:
    """The trace has this id."""

    trace_id: str


@dataclass(frozen=True, slots=True)
class HasText:
    """Some message of the trace contains this, ASCII letters compared without regard to case."""

    text: str


@dataclass(frozen=True, slots=True)
class HasEvent:
    """The trace has an LLM event of this type."""

    type: str


@dataclass(frozen=True, slots=True)
class ConversationIs:
    """Some context line of the trace names this conversation."""

    id: str


@dataclass(frozen=True, slots=True)
class SessionIs:
    """Some context line of the trace names this session."""

    id: str


@dataclass(frozen=True, slots=True)
class UserIs:
    """Some context line of the trace names the user with this id."""

    id: str


@dataclass(frozen=True, slots=True)
class HasFeedback:
    """The trace got feedback under this tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class HasError:
    """The trace has a tag of type `error`, an exception, or an event that ended in status `error`."""


@dataclass(frozen=True, slots=True)
class Duration:
    """The time from the trace's start to its last line compares so; feedback and ground truths do not count.

    Args:
        operator: How.
        micros: With this many microseconds.
    """

    operator: Operator
    micros: int


TagCondition = Comparison | OneOf | StringIsOneOf | Matches | TagName | TagType | TagGroup
"""What some tag of the trace must satisfy."""
LineCondition = TraceIs | HasText | HasEvent | ConversationIs | SessionIs | UserIs | HasFeedback | HasError
"""What some other line of the trace must satisfy."""
Condition = TagCondition | LineCondition | Duration


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Expression


Expression = Condition | All | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Slice:
    """A trace belongs to the slice when it satisfies every condition. None means every trace."""

    conditions: tuple[Expression, ...] = ()


def leaves(expression: Expression) -> Iterator[Condition]:
    """The conditions in an expression, from left to right, repeated ones repeatedly."""
    match expression:
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from leaves(part)
        case Not(part):
            yield from leaves(part)
        case _:
            yield expression


def holds_of_nothing(expression: Expression) -> bool:
    """Whether a trace that satisfies none of the conditions satisfies the expression."""
    match expression:
        case All(parts):
            return all(holds_of_nothing(part) for part in parts)
        case AnyOf(parts):
            return any(holds_of_nothing(part) for part in parts)
        case Not(part):
            return not holds_of_nothing(part)
        case _:
            return False
