"""What a slice string says, once read: frozen values that compare equal when they mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tailrace.explorer.literals import Literal


class Operator(StrEnum):
    """How a tag's value is compared."""

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


TagCondition = Comparison | TagName | TagType | TagGroup
"""What some tag of the trace must satisfy."""
Condition = TagCondition | TraceIs


@dataclass(frozen=True, slots=True)
class Slice:
    """A conjunction: a trace belongs to the slice when it satisfies every condition. None means every trace."""

    conditions: tuple[Condition, ...] = ()
