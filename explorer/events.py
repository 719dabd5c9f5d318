"""Puts the lines of LLM events together and nests them; reads nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from tailrace.explorer.answers import Event

MAX_DEPTH = 50
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class EventLine(msgspec.Struct, frozen=True):
    """A start or an end, as stored; JSON is already read."""

    ts: datetime
    line_hash: int
    event_id: str
    phase: str
    parent_id: str
    event_type: str
    name: str
    input: Any
    output: Any
    status: str
    error: str
    usage: Any
    attributes: Any = None


def assemble(lines: Iterable[EventLine]) -> tuple[Event, ...]:
    """The events of one trace as a forest.

    An event is its first start and its last end, as the view `events` has it. One whose parent was never logged
    stands at the top; so does the first of those that claim each other as parents. Below `MAX_DEPTH` levels
    descendants stand beside each other.
    """
    started: dict[str, EventLine] = {}
    ended: dict[str, EventLine] = {}
    for line in sorted(lines, key=lambda line: (line.ts, line.line_hash)):
        if line.phase == "start":
            started.setdefault(line.event_id, line)
        else:
            ended[line.event_id] = line
    flat = {
        key: _join(key, started.get(key), ended.get(key))
        for key in [*started, *(k for k in ended if k not in started)]
    }
    order = sorted(flat.values(), key=_order)
    return _nest(order, flat)


def _join(event_id: str, start: EventLine | None, end: EventLine | None) -> Event:
    return Event(
        event_id=event_id,
        parent_id=start.parent_id if start else "",
        type=start.event_type if start else "",
        name=start.name if start else "",
        status=end.status if end else "open",
        started=start.ts if start else None,
        ended=end.ts if end else None,
        duration=max((end.ts - start.ts).total_seconds(), 0.0) if start and end else None,
        input=start.input if start else None,
        attributes=start.attributes if start else None,
        output=end.output if end else None,
        error=end.error if end else "",
        usage=end.usage if end else None,
    )


def _order(event: Event) -> tuple[datetime, str]:
    """By its start, or its end where only that was logged."""
    return event.started or event.ended or _NEVER, event.event_id


def _nest(order: list[Event], known: dict[str, Event]) -> tuple[Event, ...]:
    children: dict[str, list[Event]] = {}
    tops = []
    for event in order:
        if event.parent_id in known and event.parent_id != event.event_id:
            children.setdefault(event.parent_id, []).append(event)
        else:
            tops.append(event)
    # What no top leads to goes round in circles, or hangs below one: cut each circle at its first event.
    reached = set(_reach(tops, children))
    for event in order:
        if event.event_id not in reached:
            first = min(_circle(event, known), key=_order)
            children[first.parent_id].remove(first)
            tops.append(first)
            reached.update(_reach([first], children))
    tops.sort(key=_order)
    return _build(tops, _bounded(tops, children))


def _circle(event: Event, known: dict[str, Event]) -> list[Event]:
    """The events that are each other's ancestors, above one that has no top."""
    path: dict[str, Event] = {}
    while event.event_id not in path:
        path[event.event_id] = event
        event = known[event.parent_id]
    around = list(path.values())
    return around[around.index(event) :]


def _bounded(tops: list[Event], children: dict[str, list[Event]]) -> dict[str, list[Event]]:
    """The children, with what lies deeper than `MAX_DEPTH` moved up to that depth."""
    bounded: dict[str, list[Event]] = {}
    todo = [(event, event.event_id, 1) for event in tops]
    while todo:
        event, holder, depth = todo.pop()
        for child in children.get(event.event_id, ()):
            bounded.setdefault(holder, []).append(child)
            todo.append((child, child.event_id if depth + 1 < MAX_DEPTH else holder, depth + 1))
    for below in bounded.values():
        below.sort(key=_order)
    return bounded


def _reach(tops: Iterable[Event], children: dict[str, list[Event]]) -> list[str]:
    """Parents before their children; each once, also where they go round in circles."""
    seen: dict[str, None] = {}
    todo = list(tops)
    while todo:
        event = todo.pop()
        if event.event_id not in seen:
            seen[event.event_id] = None
            todo.extend(children.get(event.event_id, ()))
    return list(seen)


def _build(tops: list[Event], children: dict[str, list[Event]]) -> tuple[Event, ...]:
    # Children are made before their parents, without recursion: a trace may nest deeper than Python's stack.
    by_id = {event.event_id: event for events in (tops, *children.values()) for event in events}
    done: dict[str, Event] = {}
    for event_id in reversed(_reach(tops, children)):
        below = tuple(done[child.event_id] for child in children.get(event_id, ()))
        done[event_id] = msgspec.structs.replace(by_id[event_id], children=below)
    return tuple(done[event.event_id] for event in tops)
