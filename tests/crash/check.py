"""What was written against what arrived, and the table of it."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from crash.stores import Stored
from crash.written import line, origin
from support.kafka import Message
from tailrace.schemas.crash import POINTS


@dataclass
class Outcome:
    """One row of the table.

    Args:
        scenario: What was done.
        faults: How often, by kind.
        lines: Written.
        messages: In the topic, for readers of committed records; `None` where there is no topic.
        rows: Stored, dead letters not included; `None` where nothing is stored.
        dead_letters: Stored.
        duplicates: Messages and rows that are there more than once.
        losses: Messages and rows that are not there.
        wrong: Whatever else is not as it must be, in sentences.
        seconds: That it took.
        notes: Figures besides.
    """

    scenario: str
    faults: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    messages: int | None = None
    rows: int | None = None
    dead_letters: int | None = None
    duplicates: int = 0
    losses: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    notes: str = ""

    def assert_exact(self) -> None:
        """Everything once, nothing lost, nothing else."""
        assert (self.duplicates, self.losses, self.wrong) == (0, 0, []), render([self])

    def count_topic(self, messages: Sequence[Message], counts: Mapping[int, int]) -> None:
        """Compare a topic with what was written: each line once, each file whole and in its order."""
        self.messages = len(messages)
        self.lines = sum(counts.values())
        seen: Counter[tuple[int, int]] = Counter()
        files: dict[tuple[bytes, int], list[Message]] = defaultdict(list)
        for message in sorted(messages, key=lambda m: m[:2]):
            value = message.value or b""
            found = origin(value)
            if found is None or line(*found).data != value:
                self.wrong.append(f"a message that nobody wrote: {value[:80]!r}")
                continue
            seen[found] += 1
            files[(message.key or b"").rpartition(b"@")[0], message.partition].append(message)
        self._compare_lines(seen, counts)
        for (file_id, _), found_messages in files.items():
            self._count_file(file_id, found_messages)

    def count_stored(self, stored: Stored, model: Stored, counts: Mapping[int, int]) -> None:
        """Compare tables with what was written: counts and checksums of every table, and the dead letters."""
        self.lines = sum(counts.values())
        # The rows of `tags` are made of those of `tag_lines`, so they count for no line.
        self.rows = sum(found.rows for name, found in stored.tables.items() if name != "tags")
        self.dead_letters = stored.dead_letters.rows
        tables = {**stored.tables, "dead_letters": stored.dead_letters}
        for name, ought in {**model.tables, "dead_letters": model.dead_letters}.items():
            found = tables[name]
            self.duplicates += found.rows - found.distinct
            self.losses += max(0, ought.distinct - found.distinct)
            if found != ought:
                self.wrong.append(f"{name} holds {found}, and should hold {ought}")

    def count_ledger(
        self, ledger: Iterable[tuple[str, int, int, int]], counts: Mapping[int, int], stream: str
    ) -> None:
        """The ranges of each stream follow on one another from its beginning, and hold every line once.

        Args:
            ledger: `(stream, start, end, lines)`, in order.
            counts: Of lines, by writer.
            stream: What the streams' names begin with.
        """
        total = 0
        for name, ranges in itertools.groupby(ledger, key=lambda row: row[0]):
            if not name.startswith(stream):
                self.wrong.append(f"the ledger holds stream {name}")
                continue
            position = 0
            for _, start, end, lines in ranges:
                if start != position:
                    kind = "a gap" if start > position else "an overlap"
                    self.wrong.append(
                        f"the ledger has {kind} in {name}: {position} and then [{start}, {end})"
                    )
                position = end
                total += lines
        if total != sum(counts.values()):
            self.wrong.append(f"the ledger counts {total} lines")

    def _compare_lines(self, seen: Counter[tuple[int, int]], counts: Mapping[int, int]) -> None:
        self.duplicates += sum(seen.values()) - len(seen)
        for writer, count in counts.items():
            self.losses += sum((writer, number) not in seen for number in range(count))
        if any(number >= counts.get(writer, 0) for writer, number in seen):
            self.wrong.append("a message of a line that was not written")

    def _count_file(self, file_id: bytes, messages: Sequence[Message]) -> None:
        """Its messages begin at byte 0 and follow on one another, which is order and completeness in one."""
        expected = 0
        for message in messages:
            position = int((message.key or b"@-1").rpartition(b"@")[2])
            if position != expected:
                self.wrong.append(f"file {file_id.decode()}: byte {position} comes where {expected} should")
                return
            expected = position + len(message.value or b"") + 1


def render(outcomes: Sequence[Outcome]) -> str:
    """The table, and under it what was wrong."""
    heads = ("scenario", "lines", "messages", "rows", "dead", "duplicates", "losses", "s", "faults")
    cells = [heads, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    text = [_joined(row, widths) for row in cells]
    text.insert(1, "-" * max(map(len, text)))
    for outcome in outcomes:
        steps = [f"{count} {kind}" for kind, count in outcome.faults.items() if kind in POINTS]
        text += [f"{outcome.scenario}: ended at {', '.join(steps)}"] if steps else []
        text += [f"{outcome.scenario}: {outcome.notes}"] if outcome.notes else []
        text += [f"{outcome.scenario}: WRONG: {sentence}" for sentence in outcome.wrong[:10]]
    return "\n".join(text)


def _joined(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *padded[1:-1], row[-1]])


def _cells(outcome: Outcome) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    kinds: Counter[str] = Counter()
    for kind, count in outcome.faults.items():
        kinds["ended at a named step" if kind in POINTS else kind] += count
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return (
        outcome.scenario,
        number(outcome.lines),
        number(outcome.messages),
        number(outcome.rows),
        number(outcome.dead_letters),
        number(outcome.duplicates),
        number(outcome.losses),
        f"{outcome.seconds:.0f}",
        faults or "none",
    )
