"""The named cases of file identity, each with real files, as the tailer sees them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.shipper.identity import Case, FileState, Fingerprint, Sight, is_rotated_name, judge
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.tail import Loss, Tailer


class Reader:
    """A tailer with progress that survives `restart`, and a clock that is told."""

    def __init__(self, *paths: Path | str, **settings: object) -> None:
        values = {"rotated_seconds": 5.0, "idle_seconds": 10.0, **settings}
        self.settings = ShipperSettings.from_mapping({"paths": [str(p) for p in paths], **values})
        self.skew = 0.0
        self.states: dict[str, FileState] = {}
        self.ids: list[str] = []
        self.tailer = Tailer(self.settings, (), self.now)

    @property
    def now(self) -> float:
        return time.time() + self.skew

    def look(self) -> None:
        self.tailer.scan(self.now)
        self.tailer.poll(self.now)

    def lines(self) -> list[str]:
        """What is new since the last call."""
        self.look()
        found: list[str] = []
        while (batch := self.tailer.read(self.now)) is not None:
            self.states |= {state.id: state for state in batch.step.files}
            for file_id in batch.step.forgotten:
                self.states.pop(file_id, None)
            for chunk in batch.chunks:
                self.ids.append(chunk.file.id)
                found += chunk.data.decode().splitlines()
        return found

    def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.tailer.close()
        meanwhile()
        self.tailer = Tailer(self.settings, self.states.values(), self.now)


def write(path: Path, *lines: str, mode: str = "a") -> None:
    with path.open(mode) as file:
        file.writelines(f"{line}\n" for line in lines)


def copytruncate(path: Path, copy: Path) -> None:
    shutil.copyfile(path, copy)
    os.truncate(path, 0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    write(path, "one", "two")
    return path


@pytest.mark.parametrize("down", [False, True])
def test_renamed(log: Path, down: bool) -> None:
    """A file that is renamed while it is still written goes on under its id; the new file is another."""
    reader = Reader(log.parent)
    assert reader.lines() == ["one", "two"]

    def rotate() -> None:
        write(log, "three")
        log.rename(log.with_name("app.log.1"))
        write(log.with_name("app.log.1"), "late")
        write(log, "new")

    if down:
        reader.restart(rotate)
    else:
        rotate()
    assert sorted(reader.lines()) == ["late", "new", "three"]
    assert len(set(reader.ids)) == 2


def test_several_rotations_while_down(log: Path) -> None:
    """Each of the files that were made meanwhile is read once, the old one from where it was left."""
    reader = Reader(log.parent)
    reader.lines()

    def rotate_often() -> None:
        for turn in range(3):
            for number in (3, 2, 1):
                older = log.with_name(f"app.log.{number}")
                if older.exists():
                    older.rename(log.with_name(f"app.log.{number + 1}"))
            log.rename(log.with_name("app.log.1"))
            write(log, f"turn {turn}")

    write(log, "three")
    reader.restart(rotate_often)
    assert sorted(reader.lines()) == ["three", "turn 0", "turn 1", "turn 2"]


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("refill", [0, 50])
def test_copied_and_truncated(log: Path, down: bool, refill: int) -> None:
    """What the file held when it was cut, and nobody had read, is read from the copy, and the rest of the
    copy is not read again; also when the file has grown past its old size since."""
    reader = Reader(log.parent)
    reader.lines()
    write(log, "unread")
    reader.look()

    def rotate() -> None:
        copytruncate(log, log.with_name("app.log.1"))
        write(log, *(f"new {i}" for i in range(refill)))

    if down:
        reader.restart(rotate)
    else:
        rotate()
    assert sorted(reader.lines()) == sorted(["unread", *(f"new {i}" for i in range(refill))])
    write(log, "after")
    assert reader.lines() == ["after"]
    reader.restart()
    assert reader.lines() == []
    assert not reader.tailer.losses


def test_copied_truncated_and_then_deleted(log: Path) -> None:
    """That a copy goes on where the original was left is remembered at once: neither a restart nor the end of
    the original makes it a new file."""
    reader = Reader(log.parent)
    reader.lines()
    shutil.copyfile(log, log.with_name("app.log.1"))
    reader.look()
    os.truncate(log, 0)
    assert reader.lines() == []
    log.unlink()
    assert reader.lines() == []
    reader.restart()
    write(log.with_name("app.log.1"), "late")
    assert reader.lines() == ["late"]


def test_copied_while_the_original_lives(log: Path) -> None:
    """A copy under a rotated name is not read as long as the original holds the same bytes."""
    reader = Reader(log.parent)
    reader.lines()
    shutil.copyfile(log, log.with_name("app.log.1"))
    assert reader.lines() == []
    write(log, "three")
    assert reader.lines() == ["three"]


def test_truncated_with_nothing_to_be_found_again(log: Path) -> None:
    """Unread bytes of a file that was cut are lost, and counted once it is sure that no copy has them."""
    reader = Reader(log.parent)
    reader.lines()
    write(log, "0123456789")
    reader.look()
    os.truncate(log, 0)
    write(log, "new")
    assert reader.lines() == ["new"]
    assert not reader.tailer.losses
    reader.skew = 60
    reader.look()
    assert reader.tailer.losses == {Loss.TRUNCATED: 11}


@pytest.mark.parametrize("down", [False, True])
def test_replaced_in_place_by_something_longer(log: Path, down: bool) -> None:
    """The same inode with other bytes is another file, from its beginning, however long it is."""
    reader = Reader(log.parent)
    reader.lines()
    new = [f"line {i}" for i in range(20)]

    def rewrite() -> None:
        write(log, *new, mode="w")

    if down:
        reader.restart(rewrite)
    else:
        rewrite()
    assert reader.lines() == new
    assert len(set(reader.ids)) == 2


def test_truncated_and_rewritten_with_the_same_beginning(tmp_path: Path) -> None:
    """The same first bytes do not hide that the rest is new."""
    log, banner = tmp_path / "app.log", ["x" * 100] * 10
    write(log, *banner, "old 1", "old 2")
    reader = Reader(log)
    reader.lines()
    write(log, *banner, "new 1", "new 2", "new 3", mode="w")
    assert reader.lines() == [*banner, "new 1", "new 2", "new 3"]


def test_two_files_with_the_same_first_thousand_bytes(tmp_path: Path) -> None:
    """They are two files, before and after a restart."""
    banner = ["x" * 100] * 20
    for name in ("a.log", "b.log"):
        write(tmp_path / name, *banner, name)
    reader = Reader(tmp_path)
    assert sorted(reader.lines()) == sorted([*banner, "a.log", *banner, "b.log"])
    reader.restart()
    write(tmp_path / "b.log", "more")
    assert reader.lines() == ["more"]


def test_deleted_while_it_is_read(log: Path) -> None:
    """A deleted file is read to its end through its descriptor, its unterminated last line included, and
    then forgotten."""
    reader = Reader(log.parent, chunk_bytes=4)
    with log.open("a") as writer:
        reader.look()
        log.unlink()
        writer.write("three\nlast")
        writer.flush()
        assert reader.lines() == ["one", "two", "three"]
    reader.skew = 20
    assert reader.lines() == ["last"]
    reader.skew = 40
    assert reader.lines() == []
    assert reader.states == {}
    assert reader.tailer.count == 0


def test_created_anew_on_the_same_inode_while_down(log: Path) -> None:
    """An inode that the system gave to a new file does not make it the old one."""
    reader = Reader(log.parent)
    reader.lines()
    inode = log.stat().st_ino

    def again() -> None:
        log.unlink()
        write(log, "other one", "other two")

    reader.restart(again)
    assert reader.lines() == ["other one", "other two"]
    # Most file systems hand the same inode out again; where this one does not, the case is RECREATED.
    assert log.stat().st_ino == inode or len(set(reader.ids)) == 2


def test_shorter_than_any_prefix(tmp_path: Path) -> None:
    """A file of one byte is known again, and grows."""
    log = tmp_path / "app.log"
    log.write_text("\n")
    reader = Reader(log)
    assert reader.lines() == [""]
    reader.restart()
    assert reader.lines() == []
    log.rename(tmp_path / "app.log.1")
    write(log, "x")
    reader.restart()
    assert reader.lines() == ["x"]


def test_switched_symbolic_link(tmp_path: Path) -> None:
    """The file behind a link is read under whichever path, once; the old target is read to its end."""
    (tmp_path / "targets").mkdir()
    first, second, link = tmp_path / "targets" / "1", tmp_path / "targets" / "2", tmp_path / "current.log"
    write(first, "one")
    link.symlink_to(first)
    reader = Reader(tmp_path, link)
    assert reader.lines() == ["one"]
    write(second, "two")
    link.unlink()
    link.symlink_to(second)
    write(first, "late")
    assert sorted(reader.lines()) == ["late", "two"]


def test_moved_between_watched_directories(tmp_path: Path) -> None:
    """A file that moves goes on under its id, also over a time in which nobody sees it."""
    for name in ("live", "done", "elsewhere"):
        (tmp_path / name).mkdir()
    log = tmp_path / "live" / "app.log"
    write(log, "one")
    reader = Reader(tmp_path / "live", tmp_path / "done")
    assert reader.lines() == ["one"]
    log = log.rename(tmp_path / "elsewhere" / "app.log")
    reader.look()
    reader.skew = 60
    reader.lines()
    log = log.rename(tmp_path / "done" / "app.log")
    write(log, "two")
    assert reader.lines() == ["two"]
    assert len(set(reader.ids)) == 1


def test_moved_to_another_file_system_while_down(tmp_path: Path) -> None:
    """A restored or moved copy, with a new inode, goes on where the lost file was left."""
    log = tmp_path / "app.log"
    write(log, *(f"line {i}" for i in range(100)))
    reader = Reader(tmp_path)
    assert len(reader.lines()) == 100

    def move() -> None:
        shutil.copyfile(log, tmp_path / "x")
        log.unlink()
        (tmp_path / "x").rename(log)
        write(log, "line 100")

    reader.restart(move)
    assert reader.lines() == ["line 100"]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_compressed_successors_are_not_read(log: Path, suffix: str) -> None:
    """A rotated file that was compressed is not read again as if it were lines."""
    reader = Reader(log.parent)
    reader.lines()
    log.rename(log.with_name(f"app.log.1{suffix}"))
    write(log, "new")
    reader.restart()
    assert reader.lines() == ["new"]


def test_last_line_without_newline(log: Path) -> None:
    """It is no line until it gets its newline, or until nobody has written for the idle time."""
    reader = Reader(log.parent)
    reader.lines()
    with log.open("a") as writer:
        writer.write("thr")
        writer.flush()
        assert reader.lines() == []
        writer.write("ee\nfour")
    assert reader.lines() == ["three"]
    reader.skew = 60
    assert reader.lines() == ["four"]
    reader.restart()
    write(log, "", "five")
    assert reader.lines() == ["", "five"]


def test_overlong_line_is_reported_by_its_head(tmp_path: Path) -> None:
    """A line over the limit comes as its head and its range; its neighbours come whole."""
    log = tmp_path / "app.log"
    write(log, "before", "x" * 5_000_000, "after")
    reader = Reader(log, max_line_bytes=100_000)
    reader.look()
    batch = reader.tailer.read(reader.now)
    assert batch is not None
    (overlong,) = [c for c in batch.chunks if c.oversized is not None]
    assert (overlong.start, overlong.end, overlong.data) == (7, 5_000_008, b"")
    assert overlong.oversized == b"x" * (64 << 10)
    assert b"".join(c.data for c in batch.chunks) == b"before\nafter\n"
    ranges = batch.step.ranges
    again = reader.tailer.reread(ranges)
    assert [(c.start, c.end, c.oversized) for c in again if c.oversized] == [
        (7, 5_000_008, overlong.oversized)
    ]
    assert b"".join(c.data for c in again) == b"before\nafter\n"


def state(path: str = "app.log", inode: int = 5) -> FileState:
    return FileState("id", path, 1, inode, 700, Fingerprint(700, "x"), Fingerprint(700, "x"), 0.0)


@pytest.mark.parametrize(
    ("path", "inode", "size", "holds", "case"),
    [
        ("app.log", 5, 700, True, Case.SAME),
        ("app.log.1", 5, 900, True, Case.RENAMED),
        ("app.log", 5, 20, False, Case.TRUNCATED),
        ("app.log", 5, 900, False, Case.REPLACED),
        ("app.log.1", 6, 900, True, Case.COPIED),
        ("app.log", 6, 900, False, Case.RECREATED),
        ("other.log", 6, 900, False, Case.NEW),
    ],
)
def test_cases_are_named(path: str, inode: int, size: int, holds: bool, case: Case) -> None:
    """The table in `identity`'s docstring."""
    assert judge(state(), Sight(path, 1, inode, size, 0.0), holds) is case


@pytest.mark.parametrize("name", ["app.log.1", "app.log-20261121", "app-20261121.log", "app.1.log"])
def test_names_that_rotations_make(name: str) -> None:
    """They are recognised; the name itself, and that of another file, is not."""
    assert is_rotated_name(f"/old/{name}", "/var/app.log")
    assert not is_rotated_name("/var/app.log", "/var/app.log")
    assert not is_rotated_name(f"/old/{name}", "/var/other.log")
