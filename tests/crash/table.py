"""The table at the end of a run: what was done to the processes, and what became of the lines."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from crash.check import Outcome, render

OUTCOMES = pytest.StashKey[list[Outcome]]()
"""Of the scenarios that this process has run, and of those that its workers have."""
_SENT = "crash_outcomes"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist has no terminal: it hands its rows to the process that has one."""
    sent: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if sent is not None:
        sent[_SENT] = json.dumps([vars(made) for made in session.config.stash.get(OUTCOMES, [])])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker hands over."""
    sent = getattr(node, "workeroutput", {}).get(_SENT, "[]")
    found = [Outcome(**{**row, "faults": Counter(row["faults"])}) for row in json.loads(sent)]
    node.config.stash.setdefault(OUTCOMES, []).extend(found)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    outcomes = config.stash.get(OUTCOMES, [])
    if outcomes:
        terminalreporter.section("faults injected, lines written, rows found")
        terminalreporter.write_line(render(outcomes))
