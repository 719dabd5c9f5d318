"""Files that the real `raymon==0.0.36` client writes, and what is in them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_CACHE = _HERE.parent.parent / ".cache" / "raymon"
_WRITER = _HERE.parent / "compat" / "write_raymon_log.py"
# What raymon imports, without the versions that it pins and that no current Python has wheels of.
_BESIDE = [
    "pendulum",
    "pandas",
    "pillow",
    "msgpack",
    "requests",
    "pyyaml",
    "click",
    "scipy",
    "scikit-learn",
    "imagehash",
    "onnxruntime",
]
_RAYMON = "raymon==0.0.36"


class RaymonMissing(Exception):
    """The real client cannot be installed here; the text says why."""


@dataclass(frozen=True)
class RaymonCorpus:
    """A corpus on disk.

    Args:
        logs: The log files.
        expected: JSON: `project_id`, `lines`, `infos` (trace_id, message), `tags` (trace_id, name, value, type,
            group; NaN and Infinity as tokens), `objects` (trace_id, ref, type).
        objects: By reference, the value that was logged. All are equal after loading, save `image-ref`, which went
            through JPEG.
    """

    logs: list[Path]
    expected: Path
    objects: dict[str, Any]


def raymon_python() -> Path:
    """An interpreter that has the real client: `TAILRACE_RAYMON_PYTHON`, or one that is built once and cached.

    Raises:
        RaymonMissing: It cannot be built; outside CI a test skips with that reason.
    """
    named = os.environ.get("TAILRACE_RAYMON_PYTHON")
    if named:
        return Path(named)
    _CACHE.mkdir(parents=True, exist_ok=True)
    python = _CACHE / "venv" / "bin" / "python"
    ready = _CACHE / f"ready-{sys.version_info.major}.{sys.version_info.minor}"
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            _install([sys.executable, "-m", "venv", "--clear", str(_CACHE / "venv")])
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _install([*pip, *_BESIDE])
            _install([*pip, "--no-deps", _RAYMON])
            ready.touch()
    return python


def raymon_corpus(directory: Path) -> RaymonCorpus:
    """Have the real client log the corpus into a directory, which is made.

    Raises:
        RaymonMissing: There is no real client here.
        CalledProcessError: The client is here, and failed.
    """
    from support.raymon_objects import objects

    python = raymon_python()
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [str(python), str(_WRITER), str(directory)], check=True, capture_output=True, text=True, timeout=300
    )
    return RaymonCorpus(sorted(directory.glob("raymon-*.log")), directory / "expected.json", objects())


def _install(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200)
    except (OSError, subprocess.SubprocessError) as exc:
        said = (getattr(exc, "stderr", None) or "").strip()[-2000:]
        raise RaymonMissing(
            f"the real raymon client is not available: {' '.join(command[:6])}: {exc} {said}"
        ) from exc
