"""The incident of the README, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import incident

ROOT = Path(__file__).parents[2]


def without_chance(text: str) -> list[str]:
    """What is printed without what differs from run to run: directories, ids, which letter is the latest, times and rates."""
    text = re.sub(r"/\S*(?=/logs/billing)", "DIRECTORY", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "ID", text)
    text = re.sub(r"20/11/2026 12:\d\d:\d\d\.0+' is", "DATE' is", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", "TIME", text)
    text = re.sub(r"[\d.,]+ (m?s)\b|[\d,]+/s", "N", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short name: tables cut long ones."""
    with tempfile.TemporaryDirectory(prefix="t") as name:
        yield Path(name)


def test_the_incident_is_mended_as_the_readme_shows(directory: Path) -> None:
    """Its commands, one after the other, print what stands there, line for line."""
    page = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"<!-- incident -->\n```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    incident.write(directory)
    commands = re.findall(r"^\$ (.*)$", shown, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "support.incident", str(directory), *commands],
        cwd=ROOT / "tests",
        env={**os.environ, "TAILRACE_CLICKHOUSE": f"chdb://{directory}/db"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert without_chance(done.stdout) == without_chance(shown)
