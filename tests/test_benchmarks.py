"""The benchmarks run, at their smallest; how quick anything is no test says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.kafka
def test_the_benchmarks_store_and_ship_every_line_once_and_show_their_table(tmp_path: Path) -> None:
    """`python -m benchmarks --smoke` ends well, which its rows do only if every line and checksum is right, and the table comes out
    as text, JSON and Markdown."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}

    def benchmarks(*arguments: str) -> str:
        command = [sys.executable, "-m", "benchmarks", *arguments, "--out", str(tmp_path)]
        done = subprocess.run(
            command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    shown = benchmarks("--smoke")
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["what"].split()[0] for row in rows] == ["ship", "ship", "ship", "ingest"]
    table = benchmarks("--markdown")
    for row in rows:
        assert row["ours"] > 0
        assert row["what"] in shown
        assert f"| {row['what']} |" in table
