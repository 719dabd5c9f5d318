"""What containers run, as plain processes: each command line of the compose file and the chart is taken by the program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer
import yaml

from support.cli import tailrace
from tailrace.cli.app import app

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_commands_and_variables_are_those_of_the_program() -> None:
    """Each service's command exists, and takes every TAILRACE_ variable of its environment that is not shared by all."""
    group = typer.main.get_command(app)
    shared = "".join(path.read_text() for path in (DEPLOY.parent / "schemas").rglob("*.py"))
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        if service.get("image") != "tailrace" or "entrypoint" in service:
            continue
        command = group.commands[service["command"][0]]  # type: ignore[attr-defined]
        taken = {parameter.envvar for parameter in command.params}
        for variable in service.get("environment", {}):
            assert variable in taken or f'"{variable}"' in shared, (name, variable)


def test_the_demo_service_writes_to_the_shared_directory(tmp_path: Path) -> None:
    """The loop of `shop`, once: lines that are valid stand in the log."""
    (loop,) = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["shop"]["command"]
    once = (
        re.sub(r"^while :; do (.*?); sleep 15; done$", r"\1", loop)
        .replace("$$", "$")
        .replace("/var/log/app", str(tmp_path))
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", once], env={**os.environ, "PATH": path}, check=True, timeout=60, capture_output=True
    )
    (log,) = tmp_path.glob("shop-*.log")
    assert log.read_bytes().count(b"\n") > 1000
    tailrace("check", log, check=1)  # it leaves a stray print and half a line on purpose


class Livez(BaseHTTPRequestHandler):
    """Answers /livez with the status of its server."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" and self.server.alive else 503)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("alive", [True, False])
def test_the_health_check(alive: bool) -> None:
    """0 for a process that lives or serves nothing, and not 0 for one that says no or does not answer."""
    server = HTTPServer(("127.0.0.1", 0), Livez)
    server.alive = alive  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def healthy(address: str) -> bool:
        environment = {"TAILRACE_METRICS_ADDRESS": address} if address else {}
        script = [sys.executable, str(DEPLOY / "healthcheck.py")]
        return subprocess.run(script, env=environment, capture_output=True, timeout=30).returncode == 0

    try:
        assert healthy(f"0.0.0.0:{server.server_port}") == alive
    finally:
        server.shutdown()
        server.server_close()
    assert not healthy(f"0.0.0.0:{server.server_port}")
    assert healthy("")
