"""Objects over the size limit: beside the log, or cut, and always counted."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace import Client, DataError, FileLogger, Metadata, NotFound, Tag, Trace, load
from tailrace.oversized import fitted, read_spilled
from tailrace.policy import Policy
from tailrace.schemas.records import AnyRecord
from tailrace.schemas.stand_in import MARK, PREVIEW_BYTES, StandIn, read_head
from tailrace.sessions import Session, Target
from tailrace.testing import MemoryLogger

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")

LIMIT = 2048


def lines(path: Path) -> list[dict[str, Any]]:
    # A writer that comes while another is at it may leave an empty line, which readers ignore.
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]


def spilled_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "trace.log")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "trace.log"


def test_an_object_over_the_limit_is_one_file_under_its_hash(log: Path) -> None:
    """Property: the line stays small, the file holds the JSON that the line would have held, and `load` gives it back."""
    logger = FileLogger(log, "shop", max_object_bytes=LIMIT)
    array = np.random.default_rng(1).random(1000)
    trace = Trace(logger)
    for ref in ("first", "again"):
        trace.log(ref, array)
    trace.log("small", {"a": 1})
    trace.log("text", "é" * LIMIT)
    first, again, small, text = lines(log)
    assert first["type"] == "tailrace.Numpy"
    assert first["data"] == again["data"]
    stand_in = StandIn.from_params(first["data"])
    assert stand_in is not None
    assert stand_in.kept == "spilled"
    content = (log.parent / stand_in.path).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (stand_in.size, stand_in.sha256)
    assert content.decode().startswith(stand_in.preview)
    assert (load(first).data == array).all()
    assert load({"type": first["type"], "params": json.loads(content)}).data.tobytes() == array.tobytes()
    assert load(small).data == {"a": 1}
    assert load(text).data == "é" * LIMIT
    assert max(map(len, log.read_bytes().splitlines())) < 2 * LIMIT
    assert len(spilled_files(log.parent)) == 2
    stats = logger.stats()
    assert (stats.lines, stats.oversized, stats.altered, stats.dropped) == (4, 3, 0, 0)


@pytest.mark.parametrize("difference", [-1, 0, 1])
def test_the_limit_is_of_the_json(log: Path, difference: int) -> None:
    """Property: an object of exactly the limit stays in its line, one byte more does not."""
    logger = FileLogger(log, "shop", max_object_bytes=LIMIT)
    Trace(logger).log("r", "x" * (LIMIT - len('{"data":""}') + difference))
    (line,) = lines(log)
    assert (MARK in line["data"]) == (difference > 0) == bool(logger.stats().oversized)


def memory(_: Path) -> Any:
    logger = MemoryLogger("shop")
    # Loggers say by a property what their policy is; this one has no file.
    return type("Limited", (), {"__getattr__": lambda _, name: getattr(logger, name), "policy": Policy(max_object_bytes=LIMIT)})()  # fmt: skip


def truncating(log: Path) -> Any:
    return FileLogger(log, "shop", max_object_bytes=LIMIT, oversized="truncate")


def in_the_way(log: Path) -> Any:
    log.parent.mkdir()
    log.with_name("trace.log.objects").write_text("not a folder")
    return FileLogger(log, "shop", max_object_bytes=LIMIT)


@pytest.mark.parametrize("make", [memory, truncating, in_the_way])
def test_what_cannot_or_must_not_be_spilled_is_truncated_visibly(
    make: Callable[[Path], Any], log: Path
) -> None:
    """Property: the line has the mark, the size and the beginning; it is counted; `load` says that the rest is gone."""
    logger = make(log)
    Trace(logger).log("r", "é" * LIMIT)
    (line,) = lines(log) if isinstance(logger, FileLogger) else logger.lines
    assert line["type"] == "tailrace.Native"
    assert line["data"].pop("preview") == '{"data":"' + "é" * ((PREVIEW_BYTES - 9) // 2)
    assert line["data"] == {MARK: "truncated", "size": 2 * LIMIT + 11}
    with pytest.raises(DataError, match="truncated"):
        load(line)
    stats = logger.stats()
    assert (stats.lines, stats.oversized, stats.altered, stats.dropped) == (1, 1, 1, 0)
    assert "truncated" in stats.last_problem


def test_a_full_disk_leaves_a_truncated_object_and_no_half_file(log: Path) -> None:
    """Property: when the file cannot be written whole, nothing of it stays, and the service goes on."""
    code = (
        "import resource, signal, sys\nfrom tailrace import FileLogger, Trace\n"
        "logger = FileLogger(sys.argv[1], 'shop', max_object_bytes=2048)\ntrace = Trace(logger)\ntrace.log('warm', 1)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "trace.log('large', 'x' * 1_000_000)\n"
        "stats = logger.stats()\nprint(stats.oversized, stats.altered, stats.dropped, stats.lines)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(log)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["1", "1", "0", "2"]
    assert spilled_files(log.parent) == []
    assert lines(log)[1]["data"][MARK] == "truncated"


def test_a_deleted_folder_is_made_again(log: Path) -> None:
    """Property: whoever clears the folder away while the service runs loses what was there, and nothing later."""
    logger = FileLogger(log, "shop", max_object_bytes=LIMIT)
    Trace(logger).log("r", "x" * 5000)
    shutil.rmtree(log.with_name("trace.log.objects"))
    Trace(logger).log("r", "x" * 5000)
    assert load(lines(log)[1]).data == "x" * 5000


def test_a_short_file_from_a_crash_is_written_again(log: Path) -> None:
    """Property: a file that a power failure cut short is not taken for the object, by writers or by readers."""
    logger = FileLogger(log, "shop", max_object_bytes=LIMIT)
    Trace(logger).log("r", "x" * 5000)
    (file,) = spilled_files(log.parent)
    os.truncate(file, 100)
    with pytest.raises(NotFound):
        load(lines(log)[0])
    Trace(logger).log("again", "x" * 5000)
    assert load(lines(log)[0]).data == "x" * 5000


def _write(path: str, number: int) -> None:
    trace = Trace(FileLogger(path, "shop", max_object_bytes=LIMIT))
    for size in range(20):
        trace.log(f"{number}-{size}", "x" * (100_000 + size))


def test_processes_that_spill_the_same_content_do_not_disturb_each_other(log: Path) -> None:
    """Property: any number of writers of equal objects make one whole file of each."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(str(log), number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    found = lines(log)
    assert len(found) == 80
    assert {load(line).data for line in found} == {"x" * (100_000 + size) for size in range(20)}
    assert len(spilled_files(log.parent)) == 20


def test_objects_are_found_where_they_were_brought(log: Path, tmp_path: Path) -> None:
    """Property: a copied log directory, a copied folder, or one file is enough; else it is said where the object lies."""
    Trace(FileLogger(log, "shop", max_object_bytes=LIMIT)).log("r", "x" * 5000)
    (line,) = lines(log)
    (file,) = spilled_files(log.parent)
    moved = tmp_path / "elsewhere"
    log.parent.rename(moved)
    with pytest.raises(NotFound, match=f"{os.uname().nodename}:{log.parent}/trace.log.objects/"):
        load(line)
    (tmp_path / "single").mkdir()
    for place in (moved, moved / "trace.log.objects", tmp_path / "single"):
        if place.name == "single":
            shutil.copy(next(moved.rglob(file.name)), place)
        assert load(line, objects=place).data == "x" * 5000
    with pytest.raises(NotFound):
        load(line, objects=tmp_path)


def test_only_the_content_that_the_line_names_is_read(log: Path) -> None:
    """Property: other content of the same size is refused as damaged, and a pipe or a folder there makes nobody wait."""
    Trace(FileLogger(log, "shop", max_object_bytes=LIMIT)).log("r", "x" * 5000)
    (line,) = lines(log)
    (file,) = spilled_files(log.parent)
    file.write_bytes(b"y" * file.stat().st_size)
    with pytest.raises(DataError, match="damaged"):
        load(line)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(NotFound):
        load(line)
    file.unlink()
    file.mkdir()
    with pytest.raises(NotFound):
        load(line)


SPILLED = {
    MARK: "spilled",
    "size": 3,
    "preview": "",
    "sha256": "0" * 64,
    "path": f"a.objects/00/{'0' * 64}.json",
    "directory": "/nowhere",
    "host": "h",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {MARK: "lost"},
        {MARK: None},
        {"size": -1},
        {"size": 1.5},
        {"size": "3"},
        {"preview": 1},
        {"sha256": "0" * 63},
        {"sha256": "../etc"},
        {"path": "/etc/passwd"},
        {"path": f"../00/{'0' * 64}.json"},
        {"path": f"a/b.objects/00/{'0' * 64}.json"},
        {"path": f"a.objects/11/{'0' * 64}.json"},
        {"path": f"a\0.objects/00/{'0' * 64}.json"},
        {"directory": "\0"},
        {"host": None},
    ],
)
def test_a_line_cannot_name_any_other_file(wrong: dict[str, Any]) -> None:
    """Property: a stand-in that names anything but a hash in a folder of objects is malformed."""
    assert StandIn.from_params(SPILLED) is not None
    with pytest.raises(DataError):
        load({"type": "tailrace.Native", "params": {**SPILLED, **wrong}})


@given(
    st.text(st.characters(codec="utf-8"), min_size=300, max_size=600),
    st.integers(0, 700),
)
def test_the_first_bytes_of_a_stand_in_tell_size_and_beginning(text: str, cut: int) -> None:
    """Property: cut anywhere behind its size, a stand-in is recognised, and what is read is a beginning of the object."""
    encoded = json.dumps(text, ensure_ascii=False).encode()
    stand_in = StandIn("truncated", len(encoded), encoded[:PREVIEW_BYTES].decode("utf-8", "ignore"))
    head = read_head(stand_in.to_json()[: 60 + cut])
    assert head is not None
    assert (head.kept, head.size) == ("truncated", len(encoded))
    assert stand_in.preview.startswith(head.preview)
    assert len(head.preview) >= min(cut // 12, len(stand_in.preview) - 1)
    assert read_head(b'{"data":{"$oversized":"spilled"}}') is None


def test_a_large_object_is_not_copied_again(log: Path) -> None:
    """Property: of JSON over the limit no second copy is made: 64 MB are spilled in a few MB more than they take."""
    encoded = b'"' + b"x" * (64 << 20) + b'"'
    logger = FileLogger(log, "shop")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stand_in = StandIn.from_params(json.loads(fitted(logger, b'"r"', encoded)))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 * 1024
    assert stand_in is not None
    assert read_spilled(stand_in) == encoded


def test_a_directory_that_is_not_utf8_is_followed(tmp_path: Path) -> None:
    """Property: a log directory with any name can be named by a line and found again."""
    log = tmp_path / os.fsdecode(b"logs-\xff") / "trace.log"
    Trace(FileLogger(log, "shop", max_object_bytes=LIMIT)).log("r", "x" * 5000)
    assert load(lines(log)[0]).data == "x" * 5000


@pytest.mark.parametrize(
    ("ref", "written"), [("", "unnamed"), ("é" * 1025, "é" * 1023 + "…"), ("x" * 1024, None), (7, "7")]
)
def test_a_name_is_one_that_the_ingestor_takes(ref: Any, written: str | None) -> None:
    """Property: an object without a name, or with one that is too long, is kept under a name that a record may have."""
    logger = MemoryLogger()
    Trace(logger).log(ref, 1)
    assert logger.lines[0]["ref"] == (ref if written is None else written)
    assert logger.stats().altered == (written is not None and isinstance(ref, str))


def _log_everything(logger: FileLogger, huge: Any, text: str) -> None:
    """One call of everything that takes a value of the service's, and the value is huge."""
    with Client(logger).trace(
        name=text, user={"id": text, "plan": huge}, metadata=Metadata(release=text)
    ) as trace:
        for level in (trace.debug, trace.info, trace.warning, trace.error, trace.critical):
            level(text)
        trace.tag(
            [{"name": "client", "value": text, "type": text, "group": text}, Tag("rows", huge), Tag("n", 1)]
        )
        trace.log("object", huge)
        tool = trace.tool(huge, name=text, attributes={"a": huge})
        trace.feedback(feedback_tag="good", feedback_text=text)
        tool.fail(text, output=huge)
        trace.generation(huge, prompt=text, model=text).end(huge, status=text, usage={"a": huge})
        try:
            raise ValueError(text)
        except ValueError as exc:
            trace.exception(text, exc)
    session = Session("fraud", Target(logger))
    session.log_metadata(text, huge)
    session.log_prediction({"a": huge}, huge, prediction_id=text)
    session.log_prediction({"a": float("nan"), "b": huge}, huge)
    session.log_prediction_batch([{"a": huge}], [huge])
    session.log_ground_truth(huge, huge, [text], text)
    try:
        raise ValueError(text)
    except ValueError as exc:
        session.log_exception(text, exc, {"a": huge})


@pytest.mark.parametrize("unit", ["x", "é", "\n", "\x01"])
def test_nothing_that_is_logged_makes_a_line_too_long(log: Path, unit: str) -> None:
    """Property: whatever value is huge, every line is one that the ingestor takes and within a few times the limit, a
    text in it begins as it was and names the file that has all of it, and what is not huge is untouched."""
    logger = FileLogger(log, "shop", max_object_bytes=LIMIT)
    huge, text = {"rows": [unit * 100] * LIMIT}, unit * 10 * LIMIT
    _log_everything(logger, huge, text)
    raw = log.read_bytes().splitlines()
    for line in raw:
        msgspec.json.decode(line, type=AnyRecord)
    assert max(map(len, raw)) < 8 * LIMIT
    found = lines(log)
    (message,) = (line["message"] for line in found if line.get("level") == "info")
    beginning, _, rest = message.rpartition("… [")
    assert len(beginning) > LIMIT // 20
    assert text.startswith(beginning)
    assert rest.startswith(f"{len(json.dumps(text, ensure_ascii=False).encode()):,} bytes; all of it: ")
    path = Path(rest.removesuffix("]").partition("all of it: ")[2].partition(":")[2])
    assert json.loads(path.read_bytes()) == text
    (tags,) = (line["tags"] for line in found if line["kind"] == "tags")
    assert [tag["name"] for tag in tags] == ["client", "rows", "n"]
    assert tags[2]["value"] == 1
    stats = logger.stats()
    assert (stats.dropped, stats.invalid_tags) == (0, 0)
    assert stats.oversized > 20
