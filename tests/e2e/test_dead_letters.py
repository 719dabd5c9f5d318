"""`tailrace dead-letters` on a real database: what is mended is stored once, whatever ends meanwhile."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from crash import stores
from support import hostile
from support.cli import query, report, tailrace
from support.front import FrontProcess
from tailrace.cli.dead_letter_alarm import exit_if_exceeded
from tailrace.cli.dead_letters import app
from tailrace.cli.raw_line import pointed, shown
from tailrace.explorer.json_position import position_of
from tailrace.ingestor.alarm import FEWEST_LINES, DeadLetterAlarm, DeadLetterLimit
from tailrace.ingestor.insert import InsertStats
from tailrace.schemas.errors import ConfigError, Reason

COUNT = 40
TIME = "2026-11-20 08:00:00.000001"
# Says something else each time, as a command may that looks something up.
MEND = """
import json, sys, uuid
document = json.loads(sys.stdin.buffer.read())
document["ts"], document["message"] = "2026-11-20T08:00:00.000001Z", str(uuid.uuid4())
if document["trace_id"] == "t7":
    document["kind"] = "nonsense"
print(json.dumps(document))
"""


def letters_file(path: Path, count: int = COUNT) -> None:
    """Lines of which the time is no time."""
    lines = [hostile.line(hostile.v1(message="m", trace_id=f"t{n}", ts="yesterday")) for n in range(count)]
    path.write_bytes(b"".join(lines))


def letters(dsn: str, *arguments: str, check: int = 0) -> dict[str, Any]:
    """A command's document; run in this process, against the front."""
    done = CliRunner().invoke(app, [arguments[0], "--clickhouse", dsn, "--format", "json", *arguments[1:]])
    assert done.exit_code == check, (done.output, done.exception)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    with FrontProcess(tmp_path_factory.mktemp("letters") / "db") as front:
        yield front


@pytest.fixture
def dsn(front: FrontProcess, tmp_path: Path) -> str:
    """A database of its own, that never merges by itself."""
    name = f"clickhouse://default@127.0.0.1:{front.port}/{re.sub(r'[^a-z]', '', tmp_path.name)}"
    stores.create(name)
    return name


def test_a_replay_that_is_killed_at_every_step(dsn: str, tmp_path: Path) -> None:
    """Killed after each of its steps and started again, a replay stores each mended line once, as it was first mended, with the
    time that it tells; what is refused again stays, with the new reason; and a further replay changes nothing."""
    letters_file(tmp_path / "bad.log")
    tailrace("up", "--once", "--clickhouse", dsn, tmp_path / "bad.log")
    (tmp_path / "mend.py").write_text(MEND)
    mend = f"{sys.executable} {tmp_path / 'mend.py'}"
    points = ("replay.after-announce", "ingest.after-table", "ingest.after-ledger", "replay.after-store")

    def end_at(point: str, *more: str) -> None:
        done = tailrace(
            *("dead-letters", "replay", "--clickhouse", dsn, *more),
            environment={"TAILRACE_CRASH_AT": point},
            check=None,
        )
        assert done.returncode == -signal.SIGKILL, (point, done.stdout, done.stderr)

    for point in points:
        end_at(point, "--edit-with", mend)
    # One is refused, so the exit code says that not all is well.
    last = letters(dsn, "replay", "--reason", "bad_timestamp", "--edit-with", mend, check=1)
    assert (last["resumed"], last["stored"], last["rejected"]) == (COUNT, COUNT - 1, 1)
    announced, rows, ledger = query(
        dsn,
        "SELECT countDistinct(token) AS tokens, countDistinct(line) AS lines FROM dead_letter_replays WHERE state = 'announced'",
        "SELECT count() AS rows, uniqExact(trace_id) AS traces, uniqExact(message) AS messages, "
        "toString(min(ts)) AS first, toString(max(ts)) AS last FROM logs",
        "SELECT start, end, lines, rows, dead_letters FROM ledger WHERE stream LIKE 'replay:%'",
    )
    assert announced == [{"tokens": 1, "lines": COUNT}], "no line was mended twice"
    assert rows == [
        {"rows": COUNT - 1, "traces": COUNT - 1, "messages": COUNT - 1, "first": TIME, "last": TIME}
    ]
    assert ledger == [{"start": 0, "end": COUNT, "lines": COUNT, "rows": COUNT - 1, "dead_letters": 1}]
    (left,) = letters(dsn, "list")["groups"]
    assert (left["letters"], left["reason"]) == (1, "unknown_kind")
    again = letters(dsn, "replay", "--reason", "bad_timestamp", "--edit-with", mend)
    assert (again["letters"], again["stored"], again["rejected"]) == (0, 0, 0)
    one = letters(dsn, "show", left["latest"])
    assert one["reason"] == "unknown_kind" and one["state"] == "open" and one["attempts"] == 1
    tried = base64.b64decode(one["attempted_base64"])
    assert tried[one["column"] :].startswith(b'"nonsense"'), "the caret is under the fault of the mended line"
    assert report("audit", tmp_path / "bad.log", "--clickhouse", dsn)["accounted"]
    shown_letter = letters(dsn, "list", "--state", "replayed", "--each", "--limit", "1")["each"][0]
    assert shown_letter["table"] == "logs" and shown_letter["file"] == str(tmp_path / "bad.log")
    # As it was first it is refused for another cause; that is noted before the end, and nothing is left to resume.
    end_at("replay.after-outcome")
    further = letters(dsn, "replay", "--reason", "unknown_kind")
    assert (further["letters"], further["resumed"]) == (0, 0)
    assert letters(dsn, "show", left["latest"])["reason"] == "bad_timestamp"


def test_filters_export_and_what_cannot_be_replayed(dsn: str, tmp_path: Path) -> None:
    """Groups, filters and exports agree on every hostile line; a dry run and failing commands change nothing."""
    log = tmp_path / "hostile.log"
    log.write_bytes(hostile.file())
    tailrace("up", "--once", "--clickhouse", dsn, log)
    expected = hostile.expected()
    groups = letters(dsn, "list")["groups"]
    assert {group["reason"]: group["letters"] for group in groups} == expected["reasons"]
    assert all(group["origin"] == str(log) for group in groups)
    assert letters(dsn, "list", "--reason", "not_json")["letters"] == expected["reasons"]["not_json"]
    assert letters(dsn, "list", "--origin", "elsewhere")["letters"] == 0
    assert letters(dsn, "list", "--until", "2020-01-01")["letters"] == 0
    of_project = letters(dsn, "list", "--project", "hostile", "--each")["each"]
    exported = tmp_path / "letters.jsonl"
    export = ("export", "--clickhouse", dsn, "-o")
    assert CliRunner().invoke(app, [*export, str(exported)]).exit_code == 0
    documents = [json.loads(line) for line in exported.read_text().splitlines()]
    content = log.read_bytes()
    assert len(documents) == expected["dead_letters"]
    for document in documents:
        raw = base64.b64decode(document["raw_base64"])
        assert content[document["byte"] :].startswith(raw)
        named = raw.startswith(b"{") and b'"project_id": "hostile"' in raw
        assert named == any(each["id"] == document["id"] for each in of_project)
    raw_file = tmp_path / "letters.log"
    raw_only = [*export, str(raw_file), "--format", "raw", "--reason", "not_utf8"]
    assert CliRunner().invoke(app, raw_only).exit_code == 0
    assert raw_file.read_bytes().count(b"\xe9") == expected["reasons"]["not_utf8"]
    dry = letters(dsn, "replay", "--dry-run", check=1)
    whole = expected["dead_letters"] - expected["reasons"]["too_long"]
    assert (dry["stored"], dry["rejected"], sum(dry["skipped"].values())) == (
        0,
        whole,
        expected["reasons"]["too_long"],
    )
    for command in ("/nonexistent/command", "false", "true", "printf 'a\\nb\\n'", "sleep 60"):
        failed = letters(
            *(dsn, "replay", "--reason", "unknown_version", "--edit-with", command, "--edit-seconds", "1"),
            check=1,
        )
        assert (failed["stored"], failed["rejected"], sum(failed["skipped"].values())) == (0, 0, 1), command
    tables = query(dsn, "SELECT count() AS n FROM dead_letter_replays", "SELECT count() AS n FROM ledger")
    assert tables[0] == [{"n": 0}]
    tailrace("dead-letters", "show", "0000000000000000", "--clickhouse", dsn, check=3)
    for mistake in (["show", "zz"], ["list", "--reason", "bad"], ["replay", "--edit-with", "'"]):
        assert isinstance(CliRunner().invoke(app, [*mistake, "--clickhouse", dsn]).exception, ConfigError)


def test_nothing_in_a_letter_reaches_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real terminal, a letter full of control sequences is shown by escapes, with the caret under the fault."""
    (tmp_path / "evil.log").write_bytes(b'{"a": \x1b]0;owned\x07\x1b[2J\xc2\x9b31m\xe2\x80\xae\n')
    dsn = f"chdb://{tmp_path / 'db'}"
    tailrace("up", "--once", "--clickhouse", dsn, tmp_path / "evil.log")
    listed = tailrace("dead-letters", "list", "--clickhouse", dsn, "--format", "json")
    letter = json.loads(listed.stdout)["groups"][0]["latest"]
    monkeypatch.setenv("TERM", "dumb")
    for arguments in (["show", letter, "--whole"], ["list"], ["list", "--each"]):
        command = [sys.executable, "-m", "tailrace.cli", "dead-letters", *arguments, "--clickhouse", dsn]
        # In a process of its own: `select`, by which a terminal is copied, takes no descriptor above 1023, and this one has many.
        terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *command]
        text = subprocess.run(
            terminal, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=True
        ).stdout.decode()
        assert "evil.log" in text or "not_json" in text, text
        assert "\x1b" not in text and "\x07" not in text and "\x9b" not in text and "\u202e" not in text, (
            arguments
        )


def test_too_many_dead_letters(dsn: str, tmp_path: Path) -> None:
    """`--max-dead-letters`: over a count or a share, a run that ends says so and fails; as many as are allowed do not."""
    log = tmp_path / "some.log"
    log.write_bytes(b"".join(map(hostile.neighbour, range(18))) + b"garbage\ngarbage\n")
    done = tailrace("up", "--once", "--clickhouse", dsn, "--max-dead-letters", "1", log, check=1)
    assert "more than --max-dead-letters" in done.stderr
    stats = InsertStats(lines=20, rows=18, dead_letters=2)
    for limit in ("2", "10%", ""):
        exit_if_exceeded(limit, stats)
    for limit in ("0", "1", "9.9%"):
        with pytest.raises(typer.Exit):
            exit_if_exceeded(limit, stats)


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1)), max_size=30), st.floats(0.01, 0.5))
def test_the_alarm_is_raised_once_each_time_that_it_becomes_too_many(
    steps: list[tuple[int, float]], share: float
) -> None:
    """A sentence at each step over the limit that follows one under it, judged by the last minute's lines alone."""
    alarm = DeadLetterAlarm(DeadLetterLimit(share=share), window=60)
    history = [(0.0, 0, 0)]
    before = False
    for number, (lines, bad) in enumerate(steps, 1):
        now = number * 25.0
        history.append((now, history[-1][1] + lines, history[-1][2] + int(lines * bad)))
        said = alarm.observe(now, *history[-1][1:])
        old = [each for each in history if each[0] <= now - 60] or [history[0]]
        some, letters_of_them = (history[-1][i] - old[-1][i] for i in (1, 2))
        over = some >= FEWEST_LINES and letters_of_them > share * some
        assert (said is not None) == (over and not before)
        assert alarm.raised == over
        before = over


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "x%", "1e9", "5 %%"])
def test_a_limit_that_is_none(text: str) -> None:
    """What is neither a count nor a share is refused."""
    with pytest.raises(ConfigError, match="count as 100"):
        DeadLetterLimit.parse(text)


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(0, 300)), st.integers(1, 200))
def test_bytes_are_shown_safely(raw: bytes, column: int | None, width: int) -> None:
    """Whatever the bytes: one printable line, and a caret within it."""
    line, mark = pointed(raw, column, width)
    assert line.isprintable() and shown(raw).isprintable()
    assert mark == "" or (mark.endswith("^") and column is not None)


_names = st.text(
    st.characters(blacklist_characters=".[]`", blacklist_categories=("Cs",)), min_size=1, max_size=8
)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_names, inner, max_size=4)),
    max_leaves=12,
)


@given(_json, st.booleans(), st.data())
def test_a_path_leads_to_its_value(document: Any, plain: bool, data: st.DataObject) -> None:
    """The place that a path names is where its value is written, whatever stands before it."""
    path, value = "$", document
    while isinstance(value, dict | list) and value and data.draw(st.booleans()):
        if isinstance(value, dict):
            name = data.draw(st.sampled_from(sorted(value)))
            path, value = f"{path}.{name}", value[name]
        else:
            index = data.draw(st.integers(0, len(value) - 1))
            path, value = f"{path}[{index}]", value[index]
    line = json.dumps(document, ensure_ascii=plain).encode()
    found = position_of(line, Reason.WRONG_SHAPE, f"Expected `x`, got `y` - at `{path}`")
    assert found is not None
    assert json.JSONDecoder().raw_decode(line[found:].decode())[0] == value
