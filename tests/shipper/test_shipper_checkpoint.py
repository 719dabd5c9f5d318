from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tailrace.schemas.errors import CheckpointError
from tailrace.schemas.streams import FileRange, Intent
from tailrace.shipper.checkpoint import Checkpoint, Progress
from tailrace.shipper.identity import FileState, Fingerprint
from tailrace.shipper.tail import Step


def progress(position: int, files: int = 3) -> Progress:
    states = tuple(
        FileState(f"f{i}", f"/x/{i}", 1, i, position, Fingerprint(3, "a"), Fingerprint(3, "b"), 1.5)
        for i in range(files)
    )
    ranges = (FileRange("f0", 0, position),)
    return Progress({s.id: s for s in states}, Intent("token", ranges, 2.5), Step(ranges, states, ("gone",)))


SAVER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_shipper_checkpoint import progress
from tailrace.shipper.checkpoint import Checkpoint
checkpoint = Checkpoint(Path(sys.argv[1])).open()
for position in range(1, 10**9):
    checkpoint.save(progress(position, files=200))
    print(position, flush=True)
"""


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Progress, intent and what is intended come back equal; an absent file is no progress."""
    checkpoint = Checkpoint(tmp_path / "deep" / "x.checkpoint.json").open()
    assert checkpoint.load() == Progress({})
    checkpoint.save(progress(5))
    assert checkpoint.load() == progress(5)
    checkpoint.close()


def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    """Whenever the process dies, the file holds what was saved last, or what was just being saved."""
    path, seed = tmp_path / "x.checkpoint.json", random.Random(7)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(path), str(Path(__file__).parent)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seed.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
        process.wait()
        loaded = Checkpoint(path).load()
        last = int(said[-1]) if said else 1
        assert loaded in (progress(last, 200), progress(last + 1, 200))


def test_half_a_new_file_changes_nothing(tmp_path: Path) -> None:
    """A torn temporary file is ignored and overwritten."""
    checkpoint = Checkpoint(tmp_path / "x.checkpoint.json").open()
    checkpoint.save(progress(5))
    (tmp_path / "x.checkpoint.json.tmp").write_bytes(b'{"version":1,"fil')
    assert checkpoint.load() == progress(5)
    checkpoint.save(progress(6))
    assert checkpoint.load() == progress(6)
    checkpoint.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":1,"files":7}', b'{"version":99,"files":[]}'])
def test_damage_is_never_taken_for_no_progress(tmp_path: Path, content: bytes) -> None:
    """Starting anew would deliver everything again, so it stops and says what to do."""
    path = tmp_path / "x.checkpoint.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.checkpoint\.json"):
        Checkpoint(path).load()


def test_two_processes_cannot_share_it(tmp_path: Path) -> None:
    """The second is told so; the first's end, however it ends, frees it."""
    path = tmp_path / "x.checkpoint.json"
    first = Checkpoint(path).open()
    with pytest.raises(CheckpointError, match="another process"):
        Checkpoint(path).open()
    first.close()
    Checkpoint(path).open().close()


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/full").exists(), reason="needs root and /dev/full")
def test_disk_full_keeps_what_was_saved(tmp_path: Path) -> None:
    """A save that fails raises, and the file still holds what was saved before."""
    checkpoint = Checkpoint(tmp_path / "x.checkpoint.json").open()
    checkpoint.save(progress(5))
    (tmp_path / "x.checkpoint.json.tmp").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(progress(6))
    assert checkpoint.load() == progress(5)
    checkpoint.save(progress(7))
    assert checkpoint.load() == progress(7)
    checkpoint.close()
