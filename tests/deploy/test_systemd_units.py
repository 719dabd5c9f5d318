"""deploy/systemd: systemd takes the units, and they run what the program has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from tailrace.cli.app import app

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_them(tmp_path: Path) -> None:
    """No unknown directive and no malformed value; the program itself is replaced by one that is here."""
    for unit in UNITS:
        text = unit.read_text().replace("/opt/tailrace/bin/tailrace", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if "tailrace" in line]
    assert not complaints


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_they_run_what_there_is_and_are_closed(unit: Path) -> None:
    """Command and options exist, the process is nobody's root, and everything that it needs not is shut."""
    text = unit.read_text()
    (line,) = re.findall(r"^ExecStart=/opt/tailrace/bin/tailrace (.*)$", text, re.MULTILINE)
    command, *words = line.split()
    group = typer.main.get_command(app)
    known = {option for parameter in group.commands[command].params for option in parameter.opts}  # type: ignore[attr-defined]
    assert {word for word in words if word.startswith("--")} <= known
    for directive in (
        "User=tailrace",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=\n",
        "MemoryMax=",
    ):
        assert directive in text
    assert not re.search(r"PASSWORD=", text)
