from __future__ import annotations

import os
from pathlib import Path

from tailrace.shipper.discover import sights, watched_directories


def names(*patterns: object, ignore: tuple[Path, ...] = ()) -> list[str]:
    return [Path(sight.path).name for sight in sights([str(p) for p in patterns], ignore)]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x\n")
    return path


def test_files_directories_and_patterns(tmp_path: Path) -> None:
    """A directory stands for its own files, `**` for all below; what is absent is no error."""
    for name in ("a.log", "b.txt", "deep/c.log", "deep/er/d.log"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a.log", "b.txt"]
    assert names(tmp_path / "*.log") == ["a.log"]
    assert names(tmp_path / "**" / "*.log") == ["a.log", "c.log", "d.log"]
    assert names(tmp_path / "a.log", tmp_path / "absent", tmp_path / "absent" / "*") == ["a.log"]


def test_what_holds_no_lines_is_left_out(tmp_path: Path) -> None:
    """Compressed, hidden and own files and object folders; one that is named outright is read."""
    for name in ("a.log", "a.log.1.gz", "b.zst", ".hidden", "s.checkpoint.json", "a.log.objects/x"):
        touch(tmp_path / name)
    own = touch(tmp_path / "progress")
    assert names(tmp_path / "**", ignore=(own,)) == ["a.log"]
    assert names(tmp_path / ".hidden") == [".hidden"]


def test_one_file_by_two_paths_is_one(tmp_path: Path) -> None:
    """Through a symbolic link, a hard link and two patterns; the path that is no link is its name."""
    real = touch(tmp_path / "z" / "real.log")
    (tmp_path / "a.log").symlink_to(real)
    os.link(real, tmp_path / "z" / "second.log")
    (tmp_path / "broken.log").symlink_to(tmp_path / "nowhere")
    found = sights([str(tmp_path), str(tmp_path / "z"), str(tmp_path / "z" / "*.log")])
    assert [sight.path for sight in found] == [str(real)]


def test_a_name_with_wildcard_letters_is_a_file(tmp_path: Path) -> None:
    """A path that exists is itself, whatever letters are in it."""
    assert names(touch(tmp_path / "a[1].log")) == ["a[1].log"]


def test_where_something_may_appear(tmp_path: Path) -> None:
    """The parent of a file, a directory itself, the fixed part of a pattern, or the nearest that exists."""
    (tmp_path / "logs").mkdir()
    assert watched_directories([str(tmp_path / "logs" / "a.log")]) == {str(tmp_path / "logs"): False}
    assert watched_directories([str(tmp_path / "logs")]) == {str(tmp_path / "logs"): False}
    assert watched_directories([str(tmp_path / "logs" / "**" / "*.log")]) == {str(tmp_path / "logs"): True}
    assert watched_directories([str(tmp_path / "logs" / "*.log")]) == {str(tmp_path / "logs"): False}
