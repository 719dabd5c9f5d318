"""Which records of a backfill are wanted, and under which project: on columns, after decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from tailrace.schemas.errors import ConfigError
from tailrace.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    import pyarrow as pa

_PLACES: dict[str, tuple[str, int | None]] = {
    "text": ("logs", None),
    "tags": ("tag_lines", None),
    "object": ("objects", None),
    "trace": ("traces", None),
    "event_start": ("event_lines", 1),
    "event_end": ("event_lines", 2),
    "feedback": ("feedback", None),
    "prediction": ("predictions", None),
    "ground_truth": ("ground_truths", None),
    "exception": ("exceptions", None),
    "metadata": ("metadata", None),
    "statistics": ("statistics", None),
}
"""By kind: its table, and its phase where two kinds share one."""


class Selection(msgspec.Struct, frozen=True):
    """What is wanted of the lines that are valid. Lines that are not become dead letters whatever is wanted.

    Args:
        since: Earliest time of a line, in microseconds since the epoch; its own time, not that of its trace.
        until: The first time that is too late.
        projects: Of these projects only; any when empty. As written in the line.
        kinds: Of these kinds only; any when empty.
        set_project: Store everything under this project; as written when empty.

    Raises:
        ConfigError: An unknown kind, or a time range that holds nothing.
    """

    since: int | None = None
    until: int | None = None
    projects: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    set_project: str = ""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in RECORD_TYPES:
                raise ConfigError(f"--kind {kind} is not one of {', '.join(RECORD_TYPES)}")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ConfigError("--since is not before --until: no line can be between them")

    def apply(self, tables: Sequence[tuple[str, pa.Table]]) -> list[tuple[str, pa.Table]]:
        """The wanted rows, tables that are left empty dropped. Each table is a single record batch, as it was."""
        kept = []
        for name, table in tables:
            wanted = self._wanted(name, table)
            rows = table if wanted is None else table.filter(wanted).combine_chunks()
            if rows.num_rows:
                kept.append((name, self._renamed(rows)))
        return kept

    def _wanted(self, name: str, table: pa.Table) -> pa.Array | None:
        import pyarrow as pa
        import pyarrow.compute as pc

        masks = []
        times = table["ts"].cast(pa.int64())
        if self.since is not None:
            masks.append(pc.greater_equal(times, self.since))
        if self.until is not None:
            masks.append(pc.less(times, self.until))
        if self.projects:
            projects = table["project_id"].cast(pa.binary())
            masks.append(pc.is_in(projects, pa.array([p.encode() for p in self.projects], pa.binary())))
        if self.kinds:
            masks.append(self._of_kind(name, table))
        if not masks:
            return None
        mask = masks[0]
        for other in masks[1:]:
            mask = pc.and_(mask, other)
        return mask

    def _of_kind(self, name: str, table: pa.Table) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        phases = {phase for place, phase in map(_PLACES.__getitem__, self.kinds) if place == name}
        if not phases:
            return pa.array([False] * table.num_rows, pa.bool_())
        if None in phases:
            return pa.array([True] * table.num_rows, pa.bool_())
        return pc.is_in(table["phase"], pa.array(sorted(p for p in phases if p is not None), pa.int8()))

    def _renamed(self, rows: pa.Table) -> pa.Table:
        if not self.set_project:
            return rows
        import pyarrow as pa

        codes = pa.array([0] * rows.num_rows, pa.int32())
        column = pa.DictionaryArray.from_arrays(codes, pa.array([self.set_project], pa.string()))
        return rows.set_column(rows.schema.get_field_index("project_id"), "project_id", column)
