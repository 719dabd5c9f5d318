"""Whose files are shipped, and how fast: links that lead elsewhere, modes of what is written, and one log beside another."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tailrace.schemas.errors import ConfigError
from tailrace.shipper import discover
from tailrace.shipper.checkpoint import Checkpoint, Progress
from tailrace.shipper.doctor import examine_files
from tailrace.shipper.rate import Allowances
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.tail import Tailer

LINE = b"x" * 99 + b"\n"


def lines_of(tailer: Tailer, now: float) -> dict[str, int]:
    """Bytes given out of each file, by name, until nothing more comes at this moment."""
    found: dict[str, int] = {}
    while (batch := tailer.read(now)) is not None:
        for chunk in batch.chunks:
            name = Path(chunk.file.path).name
            found[name] = found.get(name, 0) + chunk.end - chunk.start
    return found


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory that is watched, beside a file that is nobody's business."""
    (tmp_path / "secret").write_bytes(LINE)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_bytes(LINE)
    return tmp_path / "logs"


def _a_link(logs: Path) -> None:
    (logs / "b.log").symlink_to(logs.parent / "secret")


def _a_relative_link(logs: Path) -> None:
    (logs / "b.log").symlink_to("../secret")


def _a_link_to_a_link(logs: Path) -> None:
    (logs / "c.log").symlink_to(logs.parent / "secret")
    (logs / "b.log").symlink_to("c.log")


def _a_linked_directory(logs: Path) -> None:
    (logs.parent / "elsewhere").mkdir()
    (logs.parent / "elsewhere" / "b.log").write_bytes(LINE)
    (logs / "deep").symlink_to(logs.parent / "elsewhere")


@pytest.mark.parametrize("way", [_a_link, _a_relative_link, _a_link_to_a_link, _a_linked_directory])
@pytest.mark.parametrize("pattern", ["", "*.log", "**/*.log"])
def test_no_link_leads_out_of_what_is_watched(
    logs: Path, way: Callable[[Path], None], pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may write into the directory cannot have another file shipped; the log names link and target, once."""
    way(logs)
    settings = ShipperSettings(paths=(str(logs / pattern),))
    tailer = Tailer(settings, (), 0.0)
    for now in (1.0, 2.0):
        tailer.scan(now)
    assert set(lines_of(tailer, 3.0)) == {"a.log"}
    tailer.close()
    said = [record.getMessage() for record in caplog.records if "is not followed" in record.getMessage()]
    outside = discover.look(settings.paths).outside
    assert len(said) == len(outside) == len(set(said))
    for each, text in zip(sorted(outside), sorted(said), strict=True):
        assert each.path in text
        assert each.target in text
    if outside:
        assert any(check.name == "links" for check in examine_files([str(logs / pattern)]))
    allowed = Tailer(replace(settings, follow_links=True), (), 0.0)
    allowed.scan(1.0)
    assert len(lines_of(allowed, 2.0)) == 1 + bool(outside)
    allowed.close()


def test_what_is_named_outright_is_read_wherever_it_leads(logs: Path) -> None:
    """The operator's word counts; so does a link within what is watched, and one into another directory that is."""
    _a_link(logs)
    (logs / "inside.log").symlink_to("a.log")
    (logs.parent / "watched").symlink_to(logs)
    assert [sight.path for sight in discover.sights([str(logs / "b.log")])] == [str(logs / "b.log")]
    assert [Path(sight.path).name for sight in discover.sights([str(logs)])] == ["a.log"]
    assert [Path(sight.path).name for sight in discover.sights([str(logs.parent / "watched")])] == ["a.log"]
    both = discover.look([str(logs), str(logs.parent)])
    assert {Path(sight.path).name for sight in both.sights} == {"a.log", "secret"}
    assert both.outside == []


def test_a_pipe_in_the_place_of_a_log_holds_nobody_up(logs: Path) -> None:
    """What takes a log's path after it was seen is opened without waiting, and left alone."""
    tailer = Tailer(ShipperSettings(paths=(str(logs),)), (), 0.0)
    real = discover.sights

    def swapped(*arguments: object) -> list[discover.Sight]:
        seen = real([str(logs)])
        (logs / "a.log").unlink()
        os.mkfifo(logs / "a.log")
        return seen

    tailer._look = swapped  # type: ignore[method-assign]
    tailer.scan(1.0)
    assert lines_of(tailer, 2.0) == {}
    tailer.close()


def test_progress_is_for_its_owner_and_group(tmp_path: Path) -> None:
    """Neither the file nor its lock can be read by others, whatever the umask allows; nor can the directory that is made."""
    before = os.umask(0)
    try:
        checkpoint = Checkpoint(tmp_path / "made" / "s.checkpoint.json").open()
        checkpoint.save(Progress({}))
        checkpoint.close()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "made").iterdir()}
    assert len(modes) == 2
    assert set(modes.values()) == {0o640}
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o750


def test_a_noisy_log_waits_and_the_quiet_one_does_not(tmp_path: Path) -> None:
    """With a rate, a log with a thousand times as much to say gets its share a second, the other is read at once, nothing is
    lost over rotation, and what is held back is counted."""
    noisy, quiet = tmp_path / "noisy.log", tmp_path / "quiet.log"
    noisy.write_bytes(LINE * 1000)
    settings = ShipperSettings(paths=(str(tmp_path),), log_rate=10_000, chunk_bytes=1000, rotated_seconds=1.0)
    tailer = Tailer(settings, (), 0.0)
    tailer.scan(0.0)
    assert lines_of(tailer, 0.0) == {"noisy.log": 10_000}
    assert tailer.held_back(0.0) == 1
    quiet.write_bytes(LINE)
    tailer.scan(0.1)
    assert lines_of(tailer, 0.1) == {"quiet.log": 100, "noisy.log": 1000}
    # Rotated, the log has one allowance with its successor.
    noisy.rename(tmp_path / "noisy.log.1")
    noisy.write_bytes(LINE * 100)
    total, now = 11_000, 0.1
    while total < 110_000:
        now += 0.5
        tailer.scan(now)
        tailer.poll(now)
        given = sum(lines_of(tailer, now).values())
        assert given <= 6_000
        total += given
        assert now < 60
    assert total == 110_000
    assert now == pytest.approx(10, abs=1.5)
    assert tailer.held_back(now + 60) == 0
    tailer.close()


def test_allowances_add_up() -> None:
    """A second's worth at once after a rest, then the rate; a debt is paid first; a clock that goes back gives nothing away."""
    allowances = Allowances(1000)
    assert allowances.allows("a", 0.0)
    allowances.spend("a", 3000, 0.0)
    assert not allowances.allows("a", 1.9)
    assert not allowances.allows("a", 1.0)
    assert allowances.allows("b", 1.0)
    assert allowances.held_back(1.9) == {"a"}
    assert allowances.allows("a", 2.1)
    allowances.forget_idle(4.0)
    assert allowances.held_back(0.0) == set()
    with pytest.raises(ConfigError, match="log_rate"):
        ShipperSettings(paths=("/x",), log_rate=5)
