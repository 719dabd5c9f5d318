"""deploy/Dockerfile without Docker: its steps, in their order, below a directory that stands in for each stage's root."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.tools import tool

HOME = Path(__file__).resolve().parents[2]
ROOTS = re.compile(r"(?<![\w.-])/(?=(?:opt|src|wheels|decoder)\b)")
"""The absolute paths that the steps use."""
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.so", "target")


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its argument, lines that go on joined."""
    text = re.sub(r"(?m)^#.*\n", "", (HOME / "deploy" / "Dockerfile").read_text()).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


class Stage:
    """A directory in place of a root, and where its work goes on."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root
        self.work = root

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/") if path.startswith("/") else self.work / path

    def copy(self, source: Path, target: str) -> None:
        where = self.at(target)
        if source.is_dir():
            shutil.copytree(source, where, ignore=NOT_COPIED, dirs_exist_ok=True)
            return
        if target.endswith("/"):
            where = where / source.name
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, where)

    def run(self, command: str, path: str) -> None:
        done = subprocess.run(
            ["bash", "-euc", ROOTS.sub(f"{self.root}/", command)],
            cwd=self.work,
            env={"PATH": path, "HOME": os.environ["HOME"]},
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_what_the_image_is_made_of_starts(tmp_path: Path) -> None:
    """With the Python of the image: every package has the hash of the locks, nothing is missing, the decoder is the compiled one,
    and every command that containers run tells how it is used."""
    tool("cargo")
    python = tool("python3.13")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(
        subprocess.run(
            [python, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    stages: dict[str, Stage] = {}
    for word, rest in instructions():
        words = rest.split()
        if word == "FROM":
            name = words[2] if len(words) > 2 else "image"
            if name == "image":
                break
            stage = stages[name] = Stage(tmp_path / name)
        elif word == "WORKDIR":
            stage.work = stage.at(rest)
            stage.work.mkdir(parents=True)
        elif word == "COPY":
            source = re.fullmatch(r"--from=(\w+)", words[0])
            for each in words[1 if source else 0 : -1]:
                stage.copy(stages[source[1]].at(each) if source else HOME / each, words[-1])
        elif word == "RUN":
            stage.run(rest, path)
    installed = stages["build"].root / "opt/tailrace/bin"
    assert not (installed / "pip").exists()
    for command in ("ship", "ingest", "migrate", "backfill", "dead-letters", "audit"):
        subprocess.run(
            [installed / "tailrace", command, "--help"], check=True, capture_output=True, timeout=60
        )
    log = tmp_path / "a.log"
    log.write_text("no line\n")
    checked = subprocess.run(
        [installed / "tailrace", "check", log, "--format", "json"], capture_output=True, text=True, timeout=60
    )
    assert json.loads(checked.stdout)
