"""Backfill into a real engine: forms of files, what is known again, selections, faults."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import multiprocessing
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import pytest

from support import hostile
from support.archives import COMPRESS, tar, write_forms, zstd
from support.engine import Engine
from tailrace.cli import progress
from tailrace.cli.backfill_progress import shown_while
from tailrace.ingestor import compiled
from tailrace.ingestor.backfill import gather, run
from tailrace.ingestor.backfill.channel import End
from tailrace.ingestor.backfill.claims import NoHistory, StoredHistory
from tailrace.ingestor.backfill.report import BackfillReport, begin
from tailrace.ingestor.backfill.run import Backfill
from tailrace.ingestor.backfill.select import Selection
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.backfill.sources import find
from tailrace.ingestor.backfill.status import status
from tailrace.ingestor.decode import BatchDecoder
from tailrace.ingestor.embedded import EmbeddedSink
from tailrace.ingestor.insert import ClickHouseWriter
from tailrace.schemas.errors import FatalError
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef

DAY = 86_400_000_000
TABLES = (
    "logs",
    "tag_lines",
    "tags",
    "objects",
    "dead_letters",
    "ledger",
    "backfill_ranges",
    "backfill_files",
)


@dataclass
class Place:
    """A database and backfills into it, in threads of this process."""

    history: StoredHistory
    writer: ClickHouseWriter
    client: Any

    def backfill(self, *paths: Path | str, **settings: Any) -> BackfillReport:
        options = {"workers": 0, "range_bytes": 4096, "section_bytes": 8192, "batch_bytes": 16384, **settings}
        made = BackfillSettings(paths=tuple(map(str, paths)), **options)
        return asyncio.run(Backfill(made, self.history, [self.writer]).run())

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.client.query(statement).result_rows]

    def messages(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT message FROM logs ORDER BY message")]


@pytest.fixture(scope="module")
def shared(engine: Engine) -> Iterator[Place]:
    client = engine.database()
    second, third = engine.connect(client.database), engine.connect(client.database)
    yield Place(StoredHistory(second, "test"), ClickHouseWriter(third, "test"), client)
    engine.drop(client.database)


@pytest.fixture
def place(shared: Place) -> Place:
    """An empty database: emptied, which takes a tenth of the time of a migration."""
    for table in TABLES:
        shared.client.command(f"TRUNCATE TABLE {table}")
    return shared


def text(number: int, **more: Any) -> bytes:
    return hostile.line(hostile.v1(**{"message": f"m{number:06}", "trace_id": f"t{number}", **more}))


def texts(first: int, count: int) -> bytes:
    return b"".join(text(number) for number in range(first, first + count))


def write(path: Path, data: bytes, age: float = 3600.0) -> Path:
    """A file that has not changed for so long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def test_every_form(place: Place, tmp_path: Path) -> None:
    """Plain, compressed, packed, compressed and packed files in a directory tree come out the same, each line once, and
    positions of dead letters are those of the uncompressed content."""
    write_forms(tmp_path / "a" / "deep", {f"f{n}.log": texts(n * 100, 99) + b"bad\n" for n in range(9)})
    report = place.backfill(tmp_path)
    assert report.errors == {} and report.stored.lines == 900
    assert place.messages() == [f"m{n * 100 + i:06}" for n in range(9) for i in range(99)]
    letters = place.rows("SELECT file, byte, raw FROM dead_letters ORDER BY file")
    assert len(letters) == 9
    for name, byte, raw in letters:
        number = int(Path(name).name[1])
        assert (byte, raw) == (len(texts(number * 100, 99)), "bad")
    assert {name for name, _, _ in letters} >= {str(tmp_path / "a" / "deep" / "f5.log.tar!") + "/logs/f5.log"}


@pytest.mark.parametrize("threads", [True, False])
def test_workers(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: bool) -> None:
    """Workers are threads where compiled code decodes, and processes where Python does; both store the same, and none is left
    when the run has ended."""
    monkeypatch.setenv("TAILRACE_PURE_PYTHON", "" if threads else "1")
    if threads and not compiled.is_available():
        pytest.skip("no compiled code is installed")
    monkeypatch.setattr(run, "_SMALL_BYTES", 1)
    write_forms(tmp_path / "logs", {f"f{n}.log": texts(n * 100, 99) + b"bad\n" for n in range(9)})
    started: list[str] = []
    for name in ("_start_process", "_start_thread"):
        monkeypatch.setattr(run.Backfill, name, _noting(getattr(run.Backfill, name), started, name))
    report = place.backfill(tmp_path / "logs", workers=2)
    assert (report.stored.rows, report.stored.dead_letters, report.errors) == (891, 9, {})
    assert place.messages() == [f"m{n * 100 + i:06}" for n in range(9) for i in range(99)]
    assert started == ["_start_thread" if threads else "_start_process"] * 2
    assert not multiprocessing.active_children()
    assert not [each for each in threading.enumerate() if each.name.startswith("tailrace-reader")]


def _noting(start: Callable[[Any], End], started: list[str], name: str) -> Callable[[Any], End]:
    def noted(backfill: Any) -> End:
        started.append(name)
        return start(backfill)

    return noted


def test_a_copy_is_known(place: Place, tmp_path: Path) -> None:
    """A file that is stored is there already under another name, compressed in whatever way, and inside an archive; its dead
    letters too."""
    data = texts(0, 200) + b"bad\n" + texts(200, 200)
    first = place.backfill(write(tmp_path / "app.log", data))
    copies = {"copy": data, "all.tgz": gzip.compress(tar({"logs/x.log": data}))}
    copies |= {f"copy{suffix}": pack(data) for suffix, pack in COMPRESS.items()}
    again = place.backfill(*(write(tmp_path / name, content) for name, content in copies.items()))
    assert (first.stored.lines, again.stored.lines) == (401, 0)
    assert {(file.there.rows, file.there.dead_letters) for file in again.files.values()} == {(400, 1)}
    assert place.rows("SELECT count() FROM logs") == [(400,)]
    assert place.rows("SELECT count() FROM dead_letters") == [(1,)]


def test_copies_in_one_run(place: Place, tmp_path: Path) -> None:
    """Equal files in one run are stored once, and all of them are finished."""
    for number in range(3):
        write(tmp_path / f"{number}.log", texts(0, 300))
    report = place.backfill(tmp_path, workers=0)
    assert (report.stored.lines, report.there.lines) == (300, 600)
    assert all(file.is_complete for file in report.files.values())
    assert place.rows("SELECT count() FROM logs") == [(300,)]
    assert place.backfill(tmp_path).is_nothing_new


def test_same_beginning(place: Place, tmp_path: Path) -> None:
    """Files that are equal for longer than the identity and differ later are both stored whole, their dead letters at the same
    byte too; again after that, nothing is."""
    same = texts(0, 800)
    assert len(same) > 64 * 1024
    write(tmp_path / "a.log", same + b"bad a\n" + texts(1000, 50))
    write(tmp_path / "b.log", same + b"bad b\n" + texts(2000, 50))
    report = place.backfill(tmp_path)
    assert report.stored.lines + report.there.lines == 2 * 851
    assert place.rows("SELECT uniqExact(line_hash) FROM logs") == [(900,)]
    assert place.rows("SELECT raw FROM dead_letters ORDER BY raw") == [("bad a",), ("bad b",)]
    os.utime(tmp_path / "a.log")
    os.utime(tmp_path / "b.log")
    again = place.backfill(tmp_path, settled_seconds=0.0)
    assert (again.stored.lines, again.there.lines) == (0, 2 * 851)


def test_a_file_that_grows(place: Place, tmp_path: Path) -> None:
    """What is appended is stored by the next run, and nothing of what was there. A last line that is still being written is left
    alone until it is whole."""
    path = write(tmp_path / "app.log", texts(0, 700) + text(700)[:-10], age=0.0)
    assert len(path.read_bytes()) > 64 * 1024
    first = place.backfill(path)
    assert (first.stored.lines, first.left) == (700, {str(path): len(text(700)) - 10})
    write(path, texts(0, 701) + texts(701, 99))
    second = place.backfill(path)
    assert (second.stored.lines, second.there.lines, second.left) == (100, 700, {})
    assert place.rows("SELECT count() FROM logs") == [(800,)]
    assert place.rows("SELECT sum(lines) FROM ledger") == [(800,)]


def test_nothing_to_do_reads_nothing(place: Place, tmp_path: Path) -> None:
    """A finished file is not opened again while it is as it was; a change of its content with the same size is seen."""
    path = write(tmp_path / "app.log", texts(0, 10))
    place.backfill(path)
    path.chmod(0)
    second = place.backfill(path)
    assert second.is_nothing_new and second.there.lines == 10
    path.chmod(0o600)
    write(path, texts(10, 10), age=1000.0)
    assert place.backfill(path).stored.lines == 10
    assert [file.state for file in status(BackfillSettings(paths=(str(tmp_path),)), place.history)] == [
        "finished"
    ]
    write(tmp_path / "new.log", texts(20, 10))
    assert {
        Path(file.path).name: file.state
        for file in status(BackfillSettings(paths=(str(tmp_path),)), place.history)
    } == {
        "app.log": "finished",
        "new.log": "new",
    }


def test_selection(place: Place, tmp_path: Path) -> None:
    """Time, project and kind select; what is selected is part of the run's identity, so another selection stores the rest, and
    nothing twice. Lines that are no records are dead letters under any selection."""
    lines = [
        text(number, ts=f"2026-11-{day}T08:00:00Z", project_id=project)
        for number, (day, project) in enumerate(
            (day, project) for day in (20, 21, 22) for project in ("a", "b")
        )
    ]
    tags = hostile.line(
        hostile.v1("tags", ts="2026-11-21T08:00:00Z", project_id="a", tags=[{"name": "n", "value": 1}])
    )
    path = write(tmp_path / "app.log", b"".join([*lines, tags, b"bad\n"]))
    since, until = 20_778 * DAY, 20_779 * DAY
    assert place.rows(f"SELECT toString(fromUnixTimestamp64Micro({since}, 'UTC'))") == [
        ("2026-11-21 00:00:00.000000",)
    ]
    one = place.backfill(path, selection=Selection(since, until, ("a",), ("text",)))
    assert (one.stored.rows, one.stored.filtered, one.stored.dead_letters) == (1, 6, 1)
    assert place.messages() == ["m000002"]
    assert place.backfill(path, selection=Selection(since, until, ("a",), ("text",))).is_nothing_new
    rest = place.backfill(path)
    assert (rest.stored.rows, rest.rows_there, rest.letters_there) == (6, 1, 0)
    assert len(place.messages()) == 6 and place.rows("SELECT count() FROM tag_lines") == [(1,)]
    assert place.rows("SELECT uniqExact(byte) FROM dead_letters") == [(1,)]


def test_set_project(place: Place, tmp_path: Path) -> None:
    """Everything is stored under the given project, also what is there under its own."""
    path = write(tmp_path / "app.log", texts(0, 50))
    place.backfill(path)
    place.backfill(path, selection=Selection(set_project="imported"))
    found = place.rows("SELECT project_id, count() FROM logs GROUP BY project_id ORDER BY project_id")
    assert found == [("hostile", 50), ("imported", 50)]


def test_hostile_lines(place: Place, tmp_path: Path) -> None:
    """Whatever production writes on a bad day: lines = rows + dead letters + blank, each letter with its file and byte, and the
    bytes there are those of the letter."""
    content = hostile.file()
    path = write(tmp_path / "hostile.log", content)
    stored = place.backfill(path, range_bytes=65536, section_bytes=65536 * 4)
    expected = hostile.expected()
    assert {name: getattr(stored.stored, name) for name in ("lines", "rows", "dead_letters", "blank")} == {
        name: expected[name] for name in ("lines", "rows", "dead_letters", "blank")
    }
    assert dict(stored.reasons) == expected["reasons"]
    letters = place.rows("SELECT file, byte, hex(substring(raw, 1, 1000)) FROM dead_letters")
    assert len(letters) == expected["dead_letters"]
    for file, byte, raw in letters:
        head = bytes.fromhex(raw)
        assert file == str(path) and content[byte : byte + len(head)] == head


def test_lines_stored_without_their_tags(place: Place, tmp_path: Path) -> None:
    """Lines whose server was killed before their tags were unfolded get them from the backfill that passes over them, and stand
    there once, whatever merges do."""
    lines = [
        hostile.line(hostile.v1("tags", trace_id=f"t{n}", tags=[{"name": "a", "value": n}]))
        for n in range(60)
    ]
    data = b"".join(line + b"\n" for line in lines)
    path = write(tmp_path / "app.log", data)
    view = place.rows(
        "SELECT create_table_query FROM system.tables WHERE name = 'tags_from_lines' AND database = currentDatabase()"
    )
    decoder = BatchDecoder(1 << 20)
    decoder.add_chunk(FileChunk(FileRef("live", str(path)), BytePosition(0), BytePosition(len(data)), data))
    place.client.command("DROP VIEW tags_from_lines")
    try:
        asyncio.run(EmbeddedSink(place.writer, 1 << 20).store(decoder.finish(), "live"))
    finally:
        place.client.command(view[0][0])
    assert place.rows("SELECT count() FROM tags") == [(0,)]
    assert place.backfill(path).rows_there == 60
    assert place.rows("SELECT count() FROM tag_lines") == [(60,)]
    assert place.rows("SELECT count(), uniqExact(line_hash) FROM tags") == [(60, 60)]


def test_shipped_live_before(place: Place, tmp_path: Path) -> None:
    """Lines that came through `up` before are told apart from new ones, dead letters of the same bytes at the same place too, and
    neither are stored a second time nor counted in the ledger, whose sums are what stands in the tables."""
    data = texts(0, 20) + b"bad\n" + texts(20, 20)
    path = write(tmp_path / "app.log", data)
    decoder = BatchDecoder(1 << 20)
    decoder.add_chunk(FileChunk(FileRef("live", str(path)), BytePosition(0), BytePosition(len(data)), data))
    sink = EmbeddedSink(place.writer, 1 << 20)
    asyncio.run(sink.store(decoder.finish(), "live"))
    dry = place.backfill(path, dry_run=True)
    assert (dry.rows_there, dry.letters_there, dry.stored.lines, dry.there.lines) == (40, 1, 0, 41)
    report = place.backfill(path)
    assert (report.stored, report.there) == (dry.stored, dry.there) and not report.reasons
    assert place.rows("SELECT sum(rows), sum(dead_letters) FROM ledger") == [(40, 1)]
    assert place.rows("SELECT count() FROM logs") == [(40,)]
    assert place.rows("SELECT count() FROM dead_letters") == [(1,)]
    longer = place.backfill(write(tmp_path / "longer.log", texts(100, 3) + data + texts(40, 6)))
    # Its letter stands elsewhere than the one that is there.
    assert (longer.stored.rows, longer.rows_there, longer.stored.dead_letters) == (9, 40, 1)
    assert place.rows("SELECT sum(rows), sum(dead_letters) FROM ledger") == [(49, 2)]
    other = place.backfill(write(tmp_path / "other.log", texts(50, 20) + b"bad\n" + texts(70, 20)))
    assert (other.letters_there, other.stored.dead_letters) == (0, 1)
    assert place.rows("SELECT count() FROM dead_letters") == [(3,)]
    assert place.rows("SELECT count(), uniqExact(line_hash) FROM logs") == [(89, 89)]


class _EndsBeforeLedger(ClickHouseWriter):
    """Stores everything but the row that says so."""

    def insert(self, table: str, rows: Any, token: str) -> None:
        if table == "ledger":
            raise FatalError("as if the process had ended")
        super().insert(table, rows, token)


def test_batches_in_doubt(place: Place, tmp_path: Path) -> None:
    """What a run had stored when it ended before it could say so is not stored again by the next, whose batches are others:
    records and dead letters."""
    data = b"".join(texts(number * 20, 20) + b"bad\n" for number in range(20))
    path = write(tmp_path / "app.log", data)
    options = BackfillSettings((str(path),), workers=0, range_bytes=4096, section_bytes=8192)
    ending = _EndsBeforeLedger(place.writer._client, "test")
    with pytest.raises(FatalError):
        asyncio.run(Backfill(options, place.history, [ending]).run())
    assert place.rows("SELECT count() FROM dead_letters") == [(20,)]
    report = place.backfill(path, batch_bytes=1)
    assert (report.stored.rows, report.stored.dead_letters) == (400, 20)
    for table, rows in (("logs", 400), ("dead_letters", 20)):
        assert place.rows(f"SELECT count() FROM {table}") == [(rows,)], table


class _ChangesFileBeforeTheFirstRow(ClickHouseWriter):
    """Between reading and storing, another program writes over a file."""

    path: Path

    def insert(self, table: str, rows: Any, token: str) -> None:
        if table == "logs":
            self.path.write_bytes(self.path.read_bytes().replace(b"m000007", b"n000007"))
        super().insert(table, rows, token)


@pytest.fixture
def picky(place: Place) -> Iterator[Place]:
    """A database that refuses some rows."""
    place.client.command("ALTER TABLE logs ADD CONSTRAINT no_poison CHECK message != 'poison'")
    yield place
    place.client.command("ALTER TABLE logs DROP CONSTRAINT no_poison")


@pytest.mark.parametrize("name", ["app.log", "app.log.gz"])
def test_a_row_that_clickhouse_rejects(picky: Place, tmp_path: Path, name: str) -> None:
    """A row that ClickHouse refuses is a dead letter at its place in the file, also where the file is compressed; all others are
    stored. The report says so."""
    poison = text(1000, message="poison")
    data = texts(0, 150) + poison + b"bad\n" + texts(150, 100)
    report = picky.backfill(write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data))
    assert picky.messages() == [f"m{number:06}" for number in range(250)]
    assert picky.rows("SELECT reason, byte, raw FROM dead_letters ORDER BY byte") == [
        ("rejected_by_clickhouse", len(texts(0, 150)), poison.decode().rstrip("\n")),
        ("not_json", len(texts(0, 150)) + len(poison), "bad"),
    ]
    assert picky.rows("SELECT sum(lines), sum(rows), sum(dead_letters) FROM ledger FINAL") == [(252, 250, 2)]
    assert (report.stored.rows, report.stored.dead_letters) == (250, 2)
    assert report.reasons == {"rejected_by_clickhouse": 1, "not_json": 1}


def test_a_file_changes_before_a_row_is_rejected(picky: Place, tmp_path: Path) -> None:
    """Where the line of a refused row has to be read again and its file is not the same any more, the run ends with that
    sentence instead of storing what nobody announced; the next one stores every line of the file as it is then."""
    path = write(tmp_path / "app.log", texts(0, 20) + text(1000, message="poison") + texts(20, 5))
    changing = _ChangesFileBeforeTheFirstRow(picky.writer._client, "test")
    changing.path = path
    options = BackfillSettings((str(path),), workers=0, range_bytes=4096, section_bytes=8192)
    with pytest.raises(
        FatalError, match=r"app\.log, which cannot be read again: it has changed; start the backfill"
    ):
        asyncio.run(Backfill(options, picky.history, [changing]).run())
    write(path, path.read_bytes())
    report = picky.backfill(path)
    assert report.stored.rows == 25
    assert set(picky.messages()) >= {"n000007", "m000006"} and len(set(picky.messages()) - {"m000007"}) == 25


def test_dry_run_stores_nothing(place: Place, tmp_path: Path) -> None:
    """A dry run counts as a run does, and leaves every table as it was; it needs no database either."""
    path = write(tmp_path / "app.log", texts(0, 30) + b"bad\n")
    settings = BackfillSettings(paths=(str(path),), workers=0, dry_run=True)
    for report in (
        place.backfill(path, dry_run=True),
        asyncio.run(Backfill(settings, NoHistory(), []).run()),
    ):
        assert (report.stored.rows, report.stored.dead_letters, report.rows_there) == (30, 1, 0)
    for table in ("logs", "dead_letters", "ledger", "backfill_ranges", "backfill_files"):
        assert place.rows(f"SELECT count() FROM {table}") == [(0,)], table


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut.gz": lambda data: gzip.compress(data)[:-200],
    "cut.zst": lambda data: zstd(data)[:-200],
    "cut.bz2": lambda data: COMPRESS[".bz2"](data)[:-200],
    "cut.xz": lambda data: COMPRESS[".xz"](data)[:-200],
    "cut.tar": lambda data: tar({"logs/x.log": data})[: len(data) // 2],
    "flipped.gz": lambda data: (p := gzip.compress(data))[: len(p) // 2] + bytes(64) + p[len(p) // 2 + 64 :],
    "trailing.gz": lambda data: gzip.compress(data) + b"garbage after the end",
    "unknown.zip": lambda data: b"PK\x03\x04" + gzip.compress(data),
}


def test_damaged_archives(place: Place, tmp_path: Path) -> None:
    """What is damaged or cut is reported and not finished; whole lines before the damage may be stored, never half a line; the
    neighbours are stored whole, and the mended files afterwards too."""
    count = 1000
    data = {
        name: b"".join(text(1000 * (number + 1) + n, trace_id=os.urandom(16).hex()) for n in range(count))
        for number, name in enumerate(DAMAGE)
    }
    for name, damage in DAMAGE.items():
        write(tmp_path / name, damage(data[name]))
    whole = write(tmp_path / "whole.log", texts(0, 100))
    report = place.backfill(tmp_path, range_bytes=65536, section_bytes=65536)
    assert set(report.errors) == {str(tmp_path / name) for name in DAMAGE}
    assert report.files[str(whole)].is_complete and report.files[str(whole)].stored.lines == 100
    for name in DAMAGE:
        assert not report.files[str(tmp_path / name)].is_complete
        assert report.files[str(tmp_path / name)].stored.dead_letters == 0 or name == "flipped.gz"
        (tmp_path / name).unlink()
        write(tmp_path / f"{name}.mended", data[name])
    mended = place.backfill(tmp_path, range_bytes=65536, section_bytes=65536)
    assert mended.errors == {}
    assert place.rows(
        "SELECT uniqExact(message), uniqExact(line_hash) FROM logs WHERE message >= 'm001'"
    ) == [(count * len(DAMAGE), count * len(DAMAGE))]


def test_what_cannot_be_read(place: Place, tmp_path: Path) -> None:
    """A name that does not exist, a pattern without files and a link to nowhere are reported with the reason; everything else is
    done."""
    write(tmp_path / "good.log", texts(0, 10))
    (tmp_path / "dangling.log").symlink_to(tmp_path / "nowhere")
    report = place.backfill(tmp_path, tmp_path / "absent.log", str(tmp_path / "*.nothing"))
    assert report.stored.lines == 10
    assert set(report.errors) == {
        str(tmp_path / name) for name in ("dangling.log", "absent.log", "*.nothing")
    }


def test_a_directory_that_changes(place: Place, tmp_path: Path) -> None:
    """Between the look into a directory and the reading of its files one is deleted, one cut, one replaced, one goes on and one
    comes: what is not what it was is reported, the rest is stored as it was found, and the next run finishes everything."""
    names = ("deleted", "cut", "replaced", "goes_on", "still")
    for number, name in enumerate(names):
        write(tmp_path / name, texts(number * 100, 50))
    settings = BackfillSettings((str(tmp_path),), workers=0, range_bytes=1024, section_bytes=2048)
    report = begin(settings, place.history)
    (tmp_path / "deleted").unlink()
    os.truncate(tmp_path / "cut", len(texts(100, 20)))
    write(tmp_path / "new", texts(250, 50)).replace(tmp_path / "replaced")
    with (tmp_path / "goes_on").open("ab") as file:
        file.write(texts(350, 7))
    write(tmp_path / "comes", texts(900, 3))
    report = asyncio.run(Backfill(settings, place.history, [place.writer], report).run())
    assert {Path(path).name: reason for path, reason in report.errors.items()} == {
        "deleted": "No such file or directory",
        "cut": "it became shorter while it was read",
        "replaced": "it was rotated away or replaced meanwhile; another run finds it under its new name",
    }
    stored = {Path(path).name: file.stored.lines for path, file in report.files.items()}
    assert stored == {"deleted": 0, "cut": 20, "replaced": 0, "goes_on": 50, "still": 50}
    again = place.backfill(tmp_path, range_bytes=1024, section_bytes=2048)
    assert again.errors == {} and again.stored.lines == 60
    last = {"cut": 20, "replaced": 50, "goes_on": 57, "still": 50, "comes": 3}
    assert {
        Path(path).name: file.stored.lines + file.there.lines for path, file in again.files.items()
    } == last
    assert place.rows("SELECT count(), uniqExact(line_hash) FROM logs") == [(180, 180)]


def test_mixed_encodings(place: Place, tmp_path: Path) -> None:
    """Lines in Latin-1 and UTF-16 between lines in UTF-8, some with a byte order mark, are dead letters with their bytes; the
    others are stored. A file in UTF-16 is named as passed over in its directory, and is dead letters where it is named itself."""
    plain = [text(number, message=f"caf? {number}").replace(b"?", "\u00e9".encode()) for number in range(4)]
    mixed = [plain[0], plain[1].decode().encode("latin-1"), b"\xef\xbb\xbf" + plain[2]]
    mixed += [plain[1].decode().strip().encode("utf-16-le") + b"\n", plain[3]]
    write(tmp_path / "mixed.log", texts(0, 20) + b"".join(mixed))
    wide = write(tmp_path / "wide.log", plain[0].decode().encode("utf-16"))
    report = place.backfill(tmp_path)
    assert place.messages()[:3] == ["caf\u00e9 0", "caf\u00e9 2", "caf\u00e9 3"]
    assert report.stored.rows == 23
    letters = [row[0] for row in place.rows("SELECT hex(raw) FROM dead_letters ORDER BY byte")]
    assert letters == [bad.removesuffix(b"\n").hex().upper() for bad in (mixed[1], mixed[3])]
    assert report.skipped == {str(wide): "no text"}
    assert place.backfill(wide).stored.dead_letters >= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_without_permission(place: Place) -> None:
    """A file and a directory that may not be read are reported with the reason; their neighbours are done."""
    with TemporaryDirectory() as name:
        for path in (Path(name) / "good.log", Path(name) / "closed.log", Path(name) / "closed" / "x.log"):
            write(path, texts(0, 10))
        Path(name).chmod(0o755)
        Path(name, "closed.log").chmod(0)
        Path(name, "closed").chmod(0)
        os.seteuid(65534)
        try:
            found = find([name])
        finally:
            os.seteuid(0)
        assert [source.path for source in found.sources] == [f"{name}/good.log"]
        assert found.unreadable == dict.fromkeys(
            (f"{name}/closed", f"{name}/closed.log"), "Permission denied"
        )


def test_directories(place: Place, tmp_path: Path) -> None:
    """A directory means everything below it that may be a log; what was passed over for its content is named."""
    write(tmp_path / "a" / "app.log.3", texts(0, 1))
    write(tmp_path / "a" / "b" / "server-20261120", texts(1, 1))
    write(tmp_path / ".git" / "x.log", texts(2, 1))
    write(tmp_path / "app.objects" / "payload", b"...")
    write(tmp_path / "picture.png", b"\x89PNG\r\n\0\0")
    for folder in ("data", "metadata", "store"):
        write(tmp_path / "db" / folder / "x.log", texts(3, 1))
    report = place.backfill(tmp_path)
    assert place.messages() == ["m000000", "m000001"]
    assert {Path(path).name for path in report.skipped} == {"picture.png", "db"}


def test_urls(place: Place, tmp_path: Path) -> None:
    """What fsspec reaches is read like local files: single objects, patterns and folders, compressed or not."""
    write(tmp_path / "local.log", texts(0, 5))
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/one.log", texts(5, 5))
    filesystem.pipe("/bucket/deep/two.log.gz", gzip.compress(texts(10, 5)))
    filesystem.pipe("/bucket/three.tar", tar({"logs/three.log": texts(15, 5)}))
    report = place.backfill(f"file://{tmp_path}/local.log", "memory://bucket", "memory://nothing/*.log")
    assert place.messages() == [f"m{number:06}" for number in range(20)]
    assert set(report.errors) == {"memory://nothing/*.log"}
    again = place.backfill("memory://bucket")
    assert (again.stored.lines, again.there.lines) == (0, 15)


def test_standard_input(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is a stream like any other, compressed or not; the same content again is there already."""
    for data in (texts(0, 300), gzip.compress(texts(0, 300))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        report = place.backfill("-")
        assert report.stored.lines + report.there.lines == 300
    assert place.rows("SELECT count() FROM logs") == [(300,)]


@pytest.mark.parametrize("days", [250, pytest.param(2000, marks=pytest.mark.soak)])
def test_many_days(place: Place, tmp_path: Path, days: int) -> None:
    """Lines of many days, mixed, in one file do not break the insert, and become few parts: one for each day of each batch, and
    batches are large when their days are many."""
    lines = [text(n, ts=(1_600_000_000 + n * 7919 % days * 86_400) * 1000) for n in range(days)]
    path = write(tmp_path / "mixed.log", b"".join(lines))
    report = place.backfill(path, batch_bytes=8192, spread_bytes=1 << 20)
    assert report.stored.rows == days
    assert place.rows("SELECT count(), uniqExact(toYYYYMMDD(trace_ts)) FROM logs") == [(days, days)]
    parts = place.rows(
        "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active AND table = 'logs' "
        "AND database = currentDatabase() GROUP BY partition)"
    )
    assert parts[0][0] <= 2


def test_days_an_insert(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is cut by days so that no part has too many, nothing is lost, and the same table is always cut alike."""
    monkeypatch.setattr(gather, "DAYS_AN_INSERT", 3)
    decoder = BatchDecoder(1 << 20)
    data = b"".join(text(n, ts=(n * 37 % 11 - 5) * 86_400 + n) for n in range(100))
    decoder.add_chunk(FileChunk(FileRef("f", "f"), BytePosition(0), BytePosition(len(data)), data))
    ((_, rows),) = decoder.finish().tables
    parts = list(gather.by_days(rows))
    assert sum(part.num_rows for part in parts) == 100
    assert all(len({moment.date() for moment in part["trace_ts"].to_pylist()}) <= 3 for part in parts)
    assert [part.to_pylist() for part in gather.by_days(rows)] == [part.to_pylist() for part in parts]


def test_rate(place: Place, tmp_path: Path) -> None:
    """--rate holds over the run."""
    path = write(tmp_path / "app.log", texts(0, 600))
    began = time.monotonic()
    place.backfill(path, rate=1200.0, batch_bytes=1)
    assert time.monotonic() - began >= 0.4


def test_report_is_json(place: Place, tmp_path: Path) -> None:
    """The document of a report is JSON, and its counts add up over the files."""
    write(tmp_path / "a.log", texts(0, 10) + b"bad\n\n")
    write(tmp_path / "b.log", texts(10, 10))
    document = json.loads(json.dumps(place.backfill(tmp_path).document(1.0)))
    assert document["lines"] == sum(file["lines"] for file in document["by_file"]) == 22
    assert document["lines"] == document["rows"] + document["dead_letters"] + document["blank"]


def test_progress(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, plain lines tell how many files, bytes and lines are done, at what rate, and what was rejected."""
    path = write(tmp_path / "app.log", texts(0, 300) + b"bad\n")
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.05)
    settings = BackfillSettings(
        paths=(str(path),), workers=0, range_bytes=4096, section_bytes=8192, batch_bytes=1, rate=1000
    )
    asyncio.run(shown_while((backfill := Backfill(settings, place.history, [place.writer])).run(), backfill))
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) > 2
    pattern = r"[01] of [01] files, [\d.]+ k?B of [\d.]+ k?B(, \d+ s to go)?; [\d,]+ lines, ([\d,]+/s|-), [01] rejected"
    assert [line for line in shown if not re.fullmatch(pattern, line)] == []
