"""What the README says works, as it stands there."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from support.cli import tailrace
from tailrace.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "deploy" / "README.md", ROOT / "fluent-bit" / "README.md"]
PAGES += [ROOT / "shipper" / "EXACTLY_ONCE.md", ROOT / "ingestor" / "EXACTLY_ONCE.md"]
PAGES += [
    ROOT / "deploy" / name
    for name in ("CAPACITY.md", "CONFIGURATION.md", "METRICS.md", "RUNBOOK.md", "SECURITY.md")
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The lines of its shell blocks that call `tailrace`."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line.split(" # ")[0].strip() for line in lines if line.strip().startswith("tailrace ")]


def test_the_python_and_the_commands_run(tmp_path: Path) -> None:
    """The client example runs, and then the commands under "Try it by hand", one after the other, on what it wrote."""
    page = (ROOT / "README.md").read_text()
    (example,) = blocks(ROOT / "README.md", "python")
    (tmp_path / "logs").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    (script,) = re.findall(r"<!-- run -->\n```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    environment = {
        **os.environ,
        "TRACE_ID": done.stdout.strip(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ran = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    for expected in (
        '"traces":1',
        done.stdout.strip(),
        "You can log whatever you want here",
        "tailrace.Numpy",
    ):
        assert expected in ran.stdout.replace(" ", "" if expected.startswith('"') else " ")


def without_chance(text: str) -> list[str]:
    """The demo's output without what differs from run to run: the directory, ids, times and rates."""
    text = re.sub(r"/tmp/[\w./-]*?(?=/logs|/db)", "DIRECTORY", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", "TIME", text)
    text = re.sub(r"[\d.,]+ (m?s|µs|MB)\b|[\d,]+/s", "N", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """Line for line, save for times, ids and the directory; and so do the slices that it asks for on the demo's data."""
    (shown,) = re.findall(
        r"<!-- demo output -->\n```\n(.*?)^```", PAGES[0].read_text(), re.MULTILINE | re.DOTALL
    )
    printed = tailrace("demo", "--directory", tmp_path).stdout
    assert without_chance(printed.replace(str(tmp_path), "/tmp/x")) == without_chance(shown)
    (shown,) = re.findall(
        r"<!-- slices output -->\n```\n(.*?)^```", PAGES[0].read_text(), re.MULTILINE | re.DOTALL
    )
    for screen in shown.split("$ tailrace ")[1:]:
        command, _, expected = screen.partition("\n")
        printed = tailrace(
            *shlex.split(command), environment={"TAILRACE_CLICKHOUSE": f"chdb://{tmp_path}/db"}
        )
        assert without_chance(printed.stdout) == without_chance(expected), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_exists(page: Path) -> None:
    """Each `tailrace …` that a page shows is a command, and each of its options one that the command has."""
    group = typer.main.get_command(app)
    for line in commands(page):
        words = line.split()
        command = group.commands[words[1]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert used <= known | {"--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files that a page links to are there."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_variable_of_the_readme_is_read_somewhere() -> None:
    """The environment variables of the configuration table are options of some command, or read by name."""
    text = (ROOT / "README.md").read_text()
    table = text[text.index("## Configuration") : text.index("## Dead letters")]
    named = set(re.findall(r"`(TAILRACE_[A-Z_]+)`", table))
    group = typer.main.get_command(app)
    options = {
        parameter.envvar
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
    }
    sources = "".join(path.read_text() for room in ("schemas", "cli") for path in (ROOT / room).rglob("*.py"))
    read = set(re.findall(r'"(TAILRACE_[A-Z_]+)"', sources))
    read |= {f"{name}_FILE" for name in read}
    read |= {f"TAILRACE_KAFKA_{name}" for name in re.findall(r'setting\("([A-Z_]+)"', sources)}
    assert named - options - read == set()


def test_the_names_that_replace_raymons_exist() -> None:
    """Every name of the second column of the migration table can be imported, and every command in it be called."""
    text = PAGES[0].read_text()
    section = text[text.index("## Coming from raymon") : text.index("**Large objects.**")]
    cells = " ".join(row.split(" | ")[1] for row in section.splitlines() if row.startswith("| "))
    for module, name in re.findall(r"\b(tailrace\.testing|tailrace|tt)\.([A-Za-z_]+)", cells):
        home = importlib.import_module("tailrace.types" if module == "tt" else module)
        assert hasattr(home, name), name
    (imported,) = re.findall(r"`from tailrace import ([\w, ]+)`", cells)
    assert all(hasattr(importlib.import_module("tailrace"), name) for name in imported.split(", "))
    group = typer.main.get_command(app)
    commands_named = set(re.findall(r"`tailrace ([a-z-]+)", cells))
    assert {"object", "trace", "traces", "up", "ship"} <= commands_named
    assert commands_named <= set(group.commands)  # type: ignore[attr-defined]
