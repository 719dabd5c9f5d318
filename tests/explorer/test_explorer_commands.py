"""The commands that read, as a shell runs them: output, errors, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from support.stored import Line, store, stored_tag
from tailrace.cli.app import run
from tailrace.cli.render import caret, number, percent, seconds, visible
from tailrace.schemas.clickhouse import connection

T = 1_795_000_000_000_000
Run = Callable[..., tuple[int, str, str]]


def lines() -> list[Line]:
    found = []
    for n in range(20):
        tags = [
            stored_tag("client", "acme" if n % 4 else "evil\x1b[2J\nname"),
            stored_tag("ms", n * 10, "metric"),
        ]
        if n == 3:
            tags.append(stored_tag("failure", "yes", "error"))
        if n > 15:
            tags = tags[1:]
        found.append(Line("tag_lines", f"trace-{n:02}", T + n * 1_000_000, n, tags=tuple(tags)))
    found += [
        Line(
            "logs",
            "trace-03",
            T + 3_000_100,
            100,
            columns={"level": "info", "message": "hello \x1b]0;title\x07"},
        ),
        Line(
            "objects",
            "trace-03",
            T + 3_000_200,
            101,
            columns={"ref": "plain", "type": "", "data": '{"a":[1,NaN]}'},
        ),
    ]
    for hash, ts, phase, id, columns in (
        (102, 3_000_300, "start", "a", {"event_type": "AGENT", "name": "plan", "input": "1"}),
        (103, 3_000_400, "start", "b", {"event_type": "TOOL", "name": "look", "parent_id": "a"}),
        (104, 3_500_400, "end", "b", {"status": "ok", "output": '{"found":NaN}'}),
    ):
        found.append(
            Line("event_lines", "trace-03", T + ts, hash, columns={"event_id": id, "phase": phase, **columns})
        )
    return found


@pytest.fixture(scope="module")
def stored(engine: Any) -> Any:
    client = engine()
    store(client, lines())
    return client


@pytest.fixture
def client(stored: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    client = stored
    monkeypatch.setattr(connection, "connect", lambda dsn, **options: engine.connect(client.database))
    for name in ("TAILRACE_CLICKHOUSE", "TAILRACE_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return client


@pytest.fixture
def tailrace(client: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out.decode(errors="surrogateescape"), err.decode()

    return call


def test_slice_as_json_is_one_document_with_documented_keys(tailrace: Run) -> None:
    """Scripts get counts, rates and figures as numbers, what does not exist as null, and every key every time."""
    code, out, _ = tailrace(
        "slice", "ms<150", "--by", "client", "--metric", "ms", "--metric", "no", "--format", "json"
    )
    assert code == 0
    document = json.loads(out)
    assert list(document) == [
        "slice",
        "project",
        "since",
        "until",
        "traces",
        "errors",
        "error_rate",
        "metrics",
        "by",
        "over",
    ]
    assert (document["traces"], document["errors"]) == (15, 1)
    assert document["metrics"]["ms"] == {
        "count": 15,
        "not_finite": 0,
        "mean": 70,
        "p50": 70,
        "p95": 133,
        "p99": 138.6,
        "std": pytest.approx(44.7213596),
    }
    assert document["metrics"]["no"]["mean"] is None
    assert [(row["value"], row["traces"]) for row in document["by"]["rows"]] == [
        ("acme", 11),
        ("evil\x1b[2J\nname", 4),
    ]


def test_slice_as_csv_ends_with_the_whole(tailrace: Run) -> None:
    """One line a value and the slice last, under a header, readable by any CSV reader."""
    _, out, _ = tailrace("slice", "", "--by", "client", "--metric", "ms", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [(row["row"], row["value"], row["traces"]) for row in rows] == [
        ("value", "acme", "12"),
        ("value", "evil\x1b[2J\nname", "4"),
        ("without", "", "4"),
        ("slice", "", "20"),
    ]
    assert float(rows[-1]["ms.mean"]) == 95


def test_slice_as_text_is_aligned_and_has_no_control_characters(tailrace: Run) -> None:
    """Piped output is plain columns of equal width; what a service logged cannot reach the terminal's controls."""
    code, out, _ = tailrace("slice", "client!=nobody", "--by", "client", "--metric", "ms", "--limit", "1")
    assert code == 0
    assert "\x1b" not in out
    assert "16 traces, 1 with errors (6.25 %)" in out
    assert "1 more values" in out
    table = [line for line in out.splitlines() if line.startswith(("client  ", "acme  ", "whole slice  "))]
    assert len(table) == 3
    assert len({len(line) for line in table}) == 1


def test_latest_traces(tailrace: Run) -> None:
    """The latest come first, in every format; a slice of nothing says so."""
    _, out, _ = tailrace("traces", "client==acme", "--limit", "2", "--format", "json")
    assert [row["trace_id"] for row in json.loads(out)["traces"]] == ["trace-15", "trace-14"]
    _, out, _ = tailrace("traces", "tagtype(error)", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["trace_id"], row["error"], row["tags"], row["start"]) == (
        "trace-03",
        "True",
        "3",
        "2026-11-18T11:06:43Z",
    )
    _, out, _ = tailrace("traces", "client==acme", "--since", "2026-11-18T11:06:54Z")
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["trace-15", "trace-14"]
    assert tailrace("traces", "client==nobody") == (0, "no trace matches\n", "")


def test_a_trace_reads_as_a_story(tailrace: Run) -> None:
    """The text form has tags, texts and objects in order and events indented; JSON has null where NaN was logged."""
    code, out, _ = tailrace("trace", "trace-03")
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out
    places = [out.index(word) for word in ("failure", "hello", "plain", "AGENT plan", "  TOOL look")]
    assert places == sorted(places)
    document = json.loads(tailrace("trace", "trace-03", "--format", "json")[1], parse_constant=pytest.fail)
    assert document["events"][0]["children"][0]["output"] == {"found": None}
    assert document["events"][0]["status"] == "open"
    assert "tag (error),failure,yes" in tailrace("trace", "trace-03", "--format", "csv")[1]


def test_objects_are_written_as_their_suffix_says(
    tailrace: Run, database: Any, engine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Arrays, images and frames that our client logs come back from their files equal; a suffix that does not fit is
    refused with the ones that do."""
    import numpy
    import pandas
    from PIL import Image

    import tailrace as package

    client = database()
    monkeypatch.setattr(connection, "connect", lambda dsn, **options: engine.connect(client.database))
    array = numpy.array([[1.5, numpy.nan], [3.0, numpy.inf]])
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "ü"]})
    picture = Image.new("RGB", (3, 2), (255, 0, 10))
    wrapped = {"arr": package.Numpy(array), "frame": package.DataFrame(frame), "img": package.Image(picture)}
    for hash, (ref, value) in enumerate(wrapped.items()):
        logger = package.testing.MemoryLogger()
        package.Trace(logger=logger, trace_id="files").log(ref, value)
        record = logger.of_kind("object")[-1]
        data = json.dumps(record["data"])
        store(
            client,
            [Line("objects", "files", T, hash, columns={"ref": ref, "type": record["type"], "data": data})],
        )
    for ref, suffix in (
        ("arr", ".npy"),
        ("frame", ".csv"),
        ("frame", ".parquet"),
        ("img", ".png"),
        ("img", ".json"),
    ):
        code, _, err = tailrace("object", "files", ref, "-o", str(tmp_path / f"{ref}{suffix}"))
        assert code == 0, err
    numpy.testing.assert_array_equal(numpy.load(tmp_path / "arr.npy"), array)
    assert pandas.read_csv(tmp_path / "frame.csv", index_col=0).equals(frame)
    assert pandas.read_parquet(tmp_path / "frame.parquet").equals(frame)
    assert Image.open(tmp_path / "img.png").tobytes() == picture.tobytes()
    assert package.load((tmp_path / "img.json").read_text()).data.tobytes() == picture.tobytes()
    code, _, err = tailrace("object", "files", "arr", "-o", str(tmp_path / "arr.png"))
    assert (code, ".json" in err) == (2, True)
    code, _, err = tailrace("object", "files", "arr", "-o", str(tmp_path / "arr.exe"))
    assert (code, ".npy" in err) == (2, True)
    code, _, err = tailrace("object", "files", "arr", "-o", str(tmp_path / "no" / "such" / "arr.npy"))
    assert (code, "cannot write" in err) == (2, True)


def test_an_object_on_stdout_is_what_load_takes(tailrace: Run) -> None:
    """Without a file the document goes to stdout, its parameters as they were logged."""
    assert tailrace("object", "trace-03", "plain") == (0, '{"type":"","params":{"a":[1,NaN]}}\n', "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["slice", "client=acme"], 2, "client=acme\n      ^"),
        (["traces", "a==b &&"], 2, "ends here"),
        (["slice", "", "--since", "yesterday"], 2, "--since"),
        (["slice", "", "--limit", "0"], 2, "--limit"),
        (["trace", "nothing"], 3, "there is no trace nothing"),
        (["object", "trace-03", "other"], 3, "it has plain"),
        (["slice", "", "--clickhouse", "nonsense"], 2, "not a ClickHouse DSN"),
    ],
)
def test_failures_are_one_sentence_and_a_code(
    tailrace: Run, arguments: list[str], code: int, message: str
) -> None:
    """2 for what was typed wrong, 3 for what does not exist; the reason is on stderr and stdout stays empty."""
    result, out, err = tailrace(*arguments)
    assert (result, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_on_a_terminal_tables_are_drawn(engine: Any, tmp_path: Path) -> None:
    """A real process on a real terminal and an embedded directory of its own: created, filled and read back."""
    dsn = f"chdb://{tmp_path}/db"
    fill = (
        "from tailrace.schemas.clickhouse.connection import Dsn, connect; from tailrace.schemas.clickhouse.migrate import migrate;"
        "from test_explorer_commands import lines; from support.stored import store;"
        f"client = connect(Dsn.parse({dsn!r}), create_database=True); migrate(client); store(client, lines()); client.close()"
    )
    tests = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": f"{tests}:{tests.parent}",
        "TAILRACE_CLICKHOUSE": dsn,
        "COLUMNS": "120",
    }
    environment |= {"TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-c", fill], env=environment, check=True, timeout=120)
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "tailrace.cli",
        "slice",
        "client==acme",
        "--metric",
        "ms",
        "--by",
        "client",
    ]
    process = subprocess.Popen(command, env=environment, stdout=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(timeout=120) == 0
    assert "whole slice" in shown.decode()
    assert "─" in shown.decode()
    missing = [sys.executable, "-m", "tailrace.cli", "trace", "x", "--clickhouse", f"chdb://{tmp_path}/none"]
    done = subprocess.run(missing, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "tailrace up" in done.stderr


def test_figures_for_people() -> None:
    """Numbers keep their size readable, and what does not exist is a dash."""
    assert [number(v) for v in (None, 0, 1234567, 0.0, 1.5, 12345.678, 1e12, 1e-7)] == [
        "-", "0", "1,234,567", "0", "1.5", "12,346", "1e+12", "1e-07",
    ]  # fmt: skip
    assert [percent(v) for v in (None, 0.0, 0.0125, 1.0)] == ["-", "0 %", "1.25 %", "100 %"]
    assert [seconds(v) for v in (None, 0.0031, 1.25, 7500.2)] == ["-", "3.1 ms", "1.250 s", "2:05:00"]
    assert visible("a\x1b[2J\u202eé日\n") == "a\\x1b[2J\\u202eé日\\n"


@pytest.mark.parametrize("column", [0, 1, 50, 499, 500])
def test_the_caret_stands_under_its_column(column: int) -> None:
    """Whatever the length and the width of characters before it, the caret is under the character that it means."""
    text = "日x" * 250
    line, mark = caret(text, column).splitlines()
    assert cell_len(line) <= 130
    assert mark.strip() == "^"
    before = next(n for n in range(len(line) + 1) if cell_len(line[:n]) == len(mark) - 1)
    assert line[before : before + 1] == text[column : column + 1]
