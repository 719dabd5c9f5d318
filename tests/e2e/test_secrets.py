"""No secret is ever shown: not in messages, logs, help, tracebacks, reports or metrics, however much a command is asked to say."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.cli.app import app, run
from tailrace.explorer.front.settings import FrontSettings
from tailrace.schemas.clickhouse.connection import Dsn, FrontInfo
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.kafka import KafkaConnection
from tailrace.schemas.secrets import secret

SECRET = "s3cr3t-of-nobody"
NOWHERE = "127.0.0.1:1"
KAFKA = {
    "TAILRACE_KAFKA": NOWHERE,
    "TAILRACE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "TAILRACE_KAFKA_USERNAME": "alice",
    "TAILRACE_KAFKA_PASSWORD": SECRET,
    "TAILRACE_KAFKA_TOKEN": SECRET,
    "TAILRACE_KAFKA_CLIENT_SECRET": SECRET,
    "TAILRACE_KAFKA_KEY_PASSWORD": SECRET,
    "TAILRACE_CLICKHOUSE_PASSWORD": SECRET,
    "TAILRACE_HTTP_TOKEN": SECRET,
}
COMMANDS = sorted(
    str(command.name) for command in app.registered_commands if command.name and not command.hidden
)
ASKED = [
    ("doctor", "--clickhouse", f"clickhouse://alice:{SECRET}@{NOWHERE}/db"),
    ("doctor", "--format", "json", "--clickhouse", f"clickhouse://alice@{NOWHERE}/db?secure=true"),
    ("slice", "", "--clickhouse", f"clickhouse://alice:{SECRET}@{NOWHERE}/db"),
    ("slice", "", "--clickhouse", f"clickhouse://alice:{SECRET}/x@{NOWHERE}/db"),
    ("slice", "", "--clickhouse", f"clickhouse://alice:a@{SECRET}@host:port/db"),
    ("slice", "", "--clickhouse", f"mysql://alice:{SECRET}@host/db"),
    ("migrate", "--clickhouse", f"clickhouse://alice:{SECRET}@{NOWHERE}/db"),
    ("ingest", "--once", "--clickhouse", f"clickhouse://alice:{SECRET}@{NOWHERE}/db"),
    ("ingest", "--workers", "many", "--clickhouse", f"clickhouse://alice:{SECRET}@{NOWHERE}/db"),
    ("ship", "/nowhere", "--delivery", "twice"),
    ("up", "/nowhere", "--http", "0.0.0.0:x"),
    ("audit", "/nowhere", "--clickhouse", f"clickhouse://alice:{SECRET}@{NOWHERE}/db"),
    *((command, "--help") for command in COMMANDS),
]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Commands set handlers and levels for the process that they think is theirs."""
    handler = signal.getsignal(signal.SIGTERM)
    levels = {name: logging.getLogger(name).level for name in list(logging.root.manager.loggerDict)}
    yield
    signal.signal(signal.SIGTERM, handler)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


@pytest.mark.parametrize("arguments", ASKED, ids=lambda arguments: " ".join(arguments[:3])[:60])
def test_no_command_shows_a_secret(
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With secrets everywhere, and everything told that libraries have to say, none is in the output or the log."""
    for name, value in KAFKA.items():
        monkeypatch.setenv(name, value)
    code = run(["-vv", *arguments])
    said = capsys.readouterr()
    assert code == (0 if "--help" in arguments else code)
    assert said.out + said.err
    assert SECRET not in said.out + said.err + caplog.text
    if any(SECRET in argument and "://" in argument for argument in arguments):
        assert "every user of this machine can read it" in said.err


@pytest.mark.parametrize(
    "held",
    [
        KafkaConnection.from_environ(NOWHERE, KAFKA | {"TAILRACE_KAFKA_TOKEN": ""}),
        Dsn.parse(f"clickhouse://alice:{SECRET}@host/db"),
        FrontSettings(token=SECRET),
        FrontInfo("127.0.0.1", 1, 1, SECRET),
    ],
    ids=lambda held: type(held).__name__,
)
def test_what_holds_a_secret_does_not_show_it(held: object) -> None:
    """Neither as text nor in a debugger's or a traceback's form."""
    assert SECRET not in f"{held} {held!r}"


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    """The file wins over the variable, its newline is no part of it; what is wrong with it is said by name, without content."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    assert secret({"X_FILE": str(file), "X": "other"}, "X") == SECRET
    assert secret({"X": SECRET}, "X") == SECRET
    assert secret({}, "X") == ""
    file.write_bytes(b"\xff" + SECRET.encode())
    with pytest.raises(ConfigError, match="is no text") as caught:
        secret({"X_FILE": str(file)}, "X")
    assert SECRET not in str(caught.value)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        secret({"X_FILE": str(file)}, "X")
    with pytest.raises(ConfigError, match="X_FILE: cannot read /nowhere"):
        secret({"X_FILE": "/nowhere"}, "X")
