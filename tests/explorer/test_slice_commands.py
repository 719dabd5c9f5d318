"""`compare`, `tags`, `sql`, `export`, time series, pictures and completion as a shell runs them, and the Python API."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest

import tailrace as package
from support.stored import Line, store, stored_tag
from tailrace.cli.app import run
from tailrace.cli.complete import complete_slice, complete_tag
from tailrace.explorer import Explorer
from tailrace.explorer import notebook as notebook_module
from tailrace.explorer.export import Columns, write_dataset
from tailrace.schemas.clickhouse import connection
from tailrace.schemas.errors import ConfigError, SliceError

HOUR = 3_600_000_000
T = 497_222 * HOUR
A = [1.5, 2, 2, 3, 10, 11, 12, 5]
B = [2, 4, 4, 8, 9, 20, 21, 22, 30, 1]
SIDES = {"old": A, "new": B}
Run = Callable[..., tuple[int, str, str]]


def lines() -> list[Line]:
    """Eight traces of the old release and ten of the new, one an hour; the new is slower, and half of it fails."""
    found = []
    for side, numbers in SIDES.items():
        for n, ms in enumerate(numbers):
            tags = [
                stored_tag("release", side),
                stored_tag("ms", ms, "metric", "speed"),
                stored_tag("country", "be" if n % 2 else "nl"),
                stored_tag("request", f"{side}-{n}"),
                stored_tag("it's", n > 3),
            ]
            if side == "new" and n % 2:
                tags.append(stored_tag("failure", "timed out", "error"))
            ts = T + n * HOUR + (side == "new")
            found.append(Line("tag_lines", f"{side}-{n}", ts, 100 * len(found), tags=tuple(tags)))
    found.append(Line("logs", "old-0", T + 1_500_000, 1, columns={"level": "info", "message": "slow"}))
    context = {"name": "predict", "conversation_id": "c", "session_id": "s", "user_id": "u"}
    found.append(Line("traces", "old-0", T + 2, 2, columns=context))
    return found


@pytest.fixture(scope="module")
def client(engine: Any) -> Any:
    client = engine()
    for _ in range(2):  # every line arrives twice
        store(client, lines())
    return client


@pytest.fixture(autouse=True)
def connected(client: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(dsn: object, **options: object) -> Any:
        return engine.connect(client.database)

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(notebook_module, "connect_client", connect)
    monkeypatch.setenv("TAILRACE_CLICKHOUSE", "chdb:///nowhere")
    monkeypatch.delenv("TAILRACE_PROJECT", raising=False)


@pytest.fixture
def tailrace(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


def test_compare_ranks_tags_by_effect(tailrace: Run) -> None:
    """Cliff's delta and Mann and Whitney's p are SciPy's (corrected for five tags), shares those of each slice, and what
    is the same on both sides comes last. Nothing counts twice because its line arrived twice."""
    code, out, _ = tailrace("compare", "release==old", "release==new", "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert list(document) == [
        "a", "b", "project", "since", "until", "traces_a", "traces_b", "errors_a", "errors_b", "tags", "identifiers",
    ]  # fmt: skip
    assert [document[key] for key in ("traces_a", "traces_b", "errors_a", "errors_b")] == [8, 10, 0, 5]
    tags = {tag["name"]: tag for tag in document["tags"]}
    assert [tag["effect"] for tag in document["tags"]] == sorted(
        (tag["effect"] for tag in document["tags"]), reverse=True
    )
    assert list(tags["ms"]) == [
        "name", "kind", "effect", "delta", "p_value", "significant", "values", "a", "b",
    ]  # fmt: skip
    assert tags["release"]["effect"] == pytest.approx(1)
    assert tags["release"]["significant"]
    assert {row["value"]: (row["a"], row["b"]) for row in tags["release"]["values"]} == {
        "old": (1, 0),
        "new": (0, 1),
    }
    assert tags["failure"]["values"][0] == {"value": "timed out", "a": 0, "b": 0.5}
    assert tags["country"]["effect"] == pytest.approx(0, abs=1e-6)
    assert tags["country"]["p_value"] == 1
    ms = tags["ms"]
    assert (ms["kind"], ms["delta"], ms["effect"]) == ("number", pytest.approx(0.3), pytest.approx(0.3))
    known = [tag["p_value"] for tag in document["tags"] if tag["p_value"] is not None]
    assert ms["p_value"] >= 0.3056235840942254
    assert ms["p_value"] in (pytest.approx(min(0.3056235840942254 * n, 1)) for n in range(1, len(known) + 1))
    assert ms["a"] == {"count": 8, "mean": pytest.approx(5.8125), "p50": 4, "p95": pytest.approx(11.65)}
    assert ms["b"] == {"count": 10, "mean": pytest.approx(12.1), "p50": 8.5, "p95": pytest.approx(26.4)}


def test_compare_for_people_and_for_spreadsheets(tailrace: Run) -> None:
    """The table names both slices and each tag; CSV has a line a tag; an empty slice says so."""
    _, out, _ = tailrace("compare", "release==old", "release==new", "--limit", "2")
    assert "A: release==old: 8 traces, 0 with errors (0 %)" in out
    assert "old 100 %" in out
    assert len(out.splitlines()) == 6
    _, out, _ = tailrace("compare", "release==old", "", "--format", "csv")
    assert {row["name"] for row in csv.DictReader(io.StringIO(out))} >= {
        "release",
        "ms",
        "country",
        "failure",
    }
    _, out, _ = tailrace("compare", "release==old", "release==none")
    assert "there is nothing to compare" in out
    code, _, err = tailrace("compare", "release==old", "release=new")
    assert (code, "release=new\n       ^" in err) == (2, True)


def test_tags_and_one_tag(tailrace: Run) -> None:
    """Names with their kinds, types, groups and spans; of one tag the values with exact counts; 3 for a name that is not."""
    _, out, _ = tailrace("tags", "--format", "json")
    (tags,) = json.loads(out).values()
    assert {tag["name"]: (tag["lines"], tag["values"]) for tag in tags} == {
        "release": (18, 2), "ms": (18, 15), "country": (18, 2), "request": (18, 18), "it's": (18, 2), "failure": (5, 1),
    }  # fmt: skip
    assert next(tag for tag in tags if tag["name"] == "ms") == {
        "name": "ms", "kinds": ["number"], "types": ["metric"], "groups": ["speed"], "lines": 18, "values": 15,
        "low": 1, "high": 30,
    }  # fmt: skip
    document = json.loads(tailrace("tags", "country", "--format", "json")[1])
    assert list(document) == ["tag", "top"]
    assert document["top"] == [{"value": "be", "traces": 9}, {"value": "nl", "traces": 9}]
    assert tailrace("tags", "country", "--format", "csv")[1] == "value,traces\nbe,9\nnl,9\n"
    assert "and more; --limit" in tailrace("tags", "request", "--limit", "3")[1]
    assert len(tailrace("tags")[1].splitlines()) == 7
    assert len(list(csv.DictReader(io.StringIO(tailrace("tags", "--format", "csv")[1])))) == 6
    code, out, err = tailrace("tags", "nothing")
    assert (code, out) == (3, "")
    assert "there is no tag nothing" in err


def test_the_sql_of_a_slice_runs_as_it_is_printed(tailrace: Run, client: Any) -> None:
    """Text and JSON hold the same statement; with its parameters it gives the traces; nothing typed is in its text."""
    text = "release == \"new' OR 1\" || ms>=20 && !(it's==true)".replace("it's", '"it\'s"')
    document = json.loads(tailrace("sql", text, "--project", "p", "--format", "json")[1])
    assert list(document) == ["sql", "parameters"]
    assert not any(word in document["sql"] for word in ("OR 1", "new", "it's", "20"))
    rows = client.query(document["sql"], parameters=document["parameters"]).result_rows
    expected = client.query(
        "SELECT cityHash64(concat('new-', toString(number))) FROM numbers(5, 4)"
    ).result_rows
    assert {row[0] for row in rows} == {
        key for (key,), n in zip(expected, range(5, 9), strict=True) if B[n] >= 20 and n <= 3
    }
    printed = tailrace("sql", text, "--project", "p")[1].splitlines()
    assert printed[0] == document["sql"]
    assert printed[1:] == [
        f"-- {name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in document["parameters"].items()
    ]


def test_a_slice_over_hours(tailrace: Run, tmp_path: Path) -> None:
    """Each step has its figures, also one in between that has no trace; a picture is drawn beside them."""
    picture = tmp_path / "over.png"
    arguments = ["slice", "!(request in (old-1, new-1))", "--over", "hour", "--metric", "ms"]
    code, out, err = tailrace(*arguments, "--plot", str(picture), "--by", "release", "--format", "json")
    assert code == 0, err
    over = json.loads(out)["over"]
    assert (list(over), over["every"]) == (["every", "rows"], "hour")
    assert [row["traces"] for row in over["rows"]] == [2, 0, 2, 2, 2, 2, 2, 2, 1, 1]
    assert list(over["rows"][0]) == ["start", "traces", "errors", "error_rate", "metrics"]
    assert over["rows"][0]["start"] == "2026-09-21T14:00:00Z"
    assert over["rows"][1]["error_rate"] is None
    assert over["rows"][2]["metrics"]["ms"]["mean"] == 3
    assert picture.read_bytes().startswith(b"\x89PNG")
    _, out, _ = tailrace(*arguments, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["row"] for row in rows] == ["hour"] * 10 + ["slice"]
    assert (rows[0]["value"], rows[0]["ms.count"]) == ("2026-09-21T14:00:00Z", "2")
    _, out, _ = tailrace(*arguments)
    assert "hour (UTC)" in out
    assert "2026-09-21 23:00" in out


def test_by_says_what_differs_from_the_rest(tailrace: Run) -> None:
    """The differences of a value are those between it and the traces without it, marked where they are significant."""
    _, out, _ = tailrace("slice", "", "--by", "release", "--metric", "ms", "--format", "json")
    rows = {row["value"]: row for row in json.loads(out)["by"]["rows"]}
    assert list(rows["new"]) == [
        "value", "traces", "errors", "error_rate", "metrics", "error_difference", "metric_differences",
    ]  # fmt: skip
    assert rows["new"]["error_difference"]["difference"] == 0.5
    assert rows["new"]["error_difference"] == {
        "difference": 0.5, "p_value": pytest.approx(0.0372058598), "significant": True,
    }  # fmt: skip
    assert rows["new"]["metric_differences"]["ms"]["difference"] == pytest.approx(12.1 - 5.8125)
    assert not rows["new"]["metric_differences"]["ms"]["significant"]
    assert "+50.00*" in tailrace("slice", "", "--by", "release")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slice", "", "--plot", "x.png"], "--by or the time series"),
        (["slice", "", "--by", "a", "--plot", "x.txt"], ".png, .svg, .pdf"),
        (["slice", "", "--by", "a", "--plot", "/no/such/x.png"], "no directory"),
        (["slice", "", "--over", "week"], "'minute', 'hour', 'day'"),
        (["export", "", "-o", "x.xlsx"], ".parquet, .csv, .jsonl"),
        (["export", "", "-o", "/no/such/x.csv"], "no directory"),
        (["export", "ms=1", "-o", "x.csv"], "compare with =="),
        (["sql", 'release ~ "("'], "never"),
    ][:-1],
)
def test_what_cannot_be_done_is_said_before_it_is_tried(
    tailrace: Run, arguments: list[str], message: str
) -> None:
    """Code 2, the reason on stderr, nothing on stdout."""
    code, out, err = tailrace(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_exports_hold_a_row_for_each_trace(tailrace: Run, tmp_path: Path) -> None:
    """Three formats, the same rows: fixed columns, then tags, numbers as numbers, absent ones empty."""
    for suffix in ("parquet", "csv", "jsonl"):
        code, out, err = tailrace("export", "ms<=11", "-o", str(tmp_path / f"out.{suffix}"))
        assert (code, out) == (0, ""), err
        assert "wrote 13 traces" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.jsonl", "out.parquet"]
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    fixed = ["project_id", "trace_id", "name", "start", "duration", "error"]
    assert list(table[0]) == [*fixed, "country", "failure", "it's", "ms", "release", "request"]
    by_id = {row["trace_id"]: row for row in table}
    assert {row["ms"] for row in table} == {ms for ms in A + B if ms <= 11}
    assert (by_id["old-0"]["name"], by_id["old-0"]["duration"], by_id["old-0"]["failure"]) == (
        "predict",
        1.5,
        None,
    )
    assert (by_id["new-1"]["error"], by_id["new-1"]["failure"]) == (True, "timed out")
    assert by_id["new-1"]["it's"] == "false"
    jsonl = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["trace_id"]: row["ms"] for row in jsonl} == {key: row["ms"] for key, row in by_id.items()}
    assert "failure" not in next(row for row in jsonl if row["trace_id"] == "old-0")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["trace_id"]: float(row["ms"]) for row in rows} == {
        key: row["ms"] for key, row in by_id.items()
    }
    assert next(row for row in rows if row["trace_id"] == "old-0")["start"].endswith("Z")


KILLED = """
import os, sys, time
from pathlib import Path
from tailrace.explorer.export import Columns, write_dataset
row = dict.fromkeys(("project_id", "trace_id", "name"), "x") | {"start": None, "duration": 0.0, "error": False}
def blocks():
    for _ in range(20):
        yield [row] * 5000
    print("half", flush=True)
    time.sleep(60)
write_dataset(Path(sys.argv[1]), Columns({}, frozenset()), blocks())
"""


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_an_export_that_is_killed_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    """SIGKILL in the middle: no file, no partial one, and what stood under the name before stands there still."""
    path = tmp_path / f"out{suffix}"
    path.write_text("before")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "before"


@pytest.mark.parametrize("unnamed", [True, False])
def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, unnamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the rows, with and without a file system that has files without names; then it works."""
    if not unnamed:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)  # refused

    def broken() -> Any:
        yield [row]
        raise ConfigError("no more")

    row = dict.fromkeys(("project_id", "trace_id", "name", "start", "duration", "error"), "x")
    columns = Columns({}, frozenset())
    with pytest.raises(ConfigError, match="no more"):
        write_dataset(tmp_path / "out.jsonl", columns, broken())
    assert list(tmp_path.iterdir()) == []
    assert write_dataset(tmp_path / "out.jsonl", columns, iter([[row], [row]])) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o444 == 0o444 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rel", ["release"]),
        ("release==", ["release==new", "release==old"]),
        ("ms>1 && release!=o", ["ms>1 && release!=old"]),
        ("failure==t", ['failure=="timed out"']),
        ("ms>=", []),
        ("(tagn", ["(tagname("]),
        ("dur", ["duration"]),
        ('"it', []),
        ("it", []),
    ],
)
def test_completion_offers_what_is_stored(typed: str, offered: list[str]) -> None:
    """Names, functions and values continue the slice so far; words that need quotes come in them."""
    assert complete_slice(SimpleNamespace(params={}), typed) == offered


def test_completion_is_silent_and_quick_when_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """No database, or nothing typed that makes sense: no offers, no error, no waiting."""
    context = SimpleNamespace(params={})
    assert complete_tag(context, "re") == ["release", "request"]
    assert set(complete_slice(context, "")) >= {"release", '"it\'s"', "tagname(", "error"}

    def refuse(*_: object, **options: object) -> Any:
        assert options["timeout"] <= 1
        raise OSError("nobody there")

    monkeypatch.setattr(connection, "connect", refuse)
    began = time.monotonic()
    for typed in ("", "rel", "release==", '"', "a==b && (", "\x00", "~~~"):
        assert complete_slice(context, typed) == []
        assert complete_tag(context, typed) == []
    assert time.monotonic() - began < 5


def test_a_notebook_asks_lazily_and_gets_frames(client: Any) -> None:
    """A chain asks nothing until an answer is needed; list, Arrow and pandas hold the figures of the command."""
    with package.connect("chdb:///nowhere") as db:
        query = db.slice("ms>=2", project="p", since="2026-09-01").by("release").metrics("ms")
        assert query.metrics("ms") == query
        (new, old) = query.to_list()
        assert list(new) == [
            "release", "traces", "errors", "error_rate",
            "ms.count", "ms.mean", "ms.p50", "ms.p95", "ms.p99", "ms.std",
            "error_rate.difference", "error_rate.p_value", "ms.difference", "ms.p_value",
        ]  # fmt: skip
        assert (new["release"], new["traces"], old["traces"]) == ("new", 9, 7)
        assert query.to_arrow().to_pylist() == [new, old]
        assert query.to_pandas().to_dict("records") == [new, old]
        steps = query.over("hour").to_list()
        assert (len(steps), steps[0]["traces"]) == (9, 1)
        assert [row["traces"] for row in db.slice("error").to_list()] == [5]
        assert db.slice("release==none").by("release").to_arrow().num_rows == 0
        assert {row["trace_id"] for row in db.slice("error").rows()} == {f"new-{n}" for n in range(1, 10, 2)}
        assert [row.trace_id for row in db.slice("error").traces(1)] == ["new-9"]
        assert db.slice("error").sql() == Explorer(client).sql("error")
        with pytest.raises(SliceError):
            db.slice("error=")
        with pytest.raises(ConfigError):
            db.slice("", since="tomorrow")
