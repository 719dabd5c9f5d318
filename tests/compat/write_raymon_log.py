"""Run by raymon's interpreter: logs a corpus with the real client, and says in JSON what it logged.

    python write_raymon_log.py DIRECTORY

The log files are `raymon-*.log` in the directory; `expected.json` there lists every info, tag and object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import raymon.types as rt
from PIL import Image
from raymon import RaymonFileLogger, Tag, Trace

sys.path.append(str(Path(__file__).parent.parent))
from support.raymon_objects import objects

PROJECT = "raymon-project"
TRACES = 12

TAGS: list[dict[str, Any]] = [
    {"name": "client", "value": "bigshot_client", "type": "label", "group": None},
    {"name": "sdk_version", "value": "1.4.2", "type": "label", "group": None},
    {"name": "prediction_time_ms", "value": "120", "type": "metric", "group": None},
    {"name": "score", "value": 0.875, "type": "profile-score", "group": "houses@1.0.0"},
    {"name": "rooms", "value": 7, "type": "profile-input", "group": "houses@1.0.0"},
    {"name": "rooms-error", "value": 1, "type": "profile-input-error", "group": "houses@1.0.0"},
    {"name": "price", "value": -1.5e-9, "type": "profile-output", "group": "houses@1.0.0"},
    {"name": "actual", "value": 3, "type": "profile-actual", "group": "houses@1.0.0"},
    {"name": "exception", "value": "ValueError: naïve \u2028 \U0001f600", "type": "error", "group": None},
    {"name": "cached", "value": True, "type": "label", "group": None},
    {"name": "embedding", "value": [0.25, 0.5], "type": "vector", "group": None},
    {"name": "nothing", "value": None, "type": "label", "group": None},
]
NOT_FINITE = [
    {"name": "drift", "value": float("nan"), "type": "metric", "group": "g"},
    {"name": "ceiling", "value": float("inf"), "type": "metric", "group": None},
    {"name": "floor", "value": float("-inf"), "type": "metric", "group": None},
]


def main(directory: Path) -> None:
    """Log everything, then write down what was logged."""
    logger = RaymonFileLogger(path=str(directory), project_id=PROJECT)
    expected: dict[str, Any] = {"project_id": PROJECT, "infos": [], "tags": [], "objects": []}
    for number in range(TRACES):
        own_id = {"trace_id": f"request {number}"} if number % 3 == 2 else {}
        trace = Trace(logger=logger, **own_id)
        for text in (f"request {number} received", 'You can log whatever you want here: ünï \n "quoted"'):
            trace.info(text)
            expected["infos"].append({"trace_id": trace.trace_id, "message": text})
        tags = TAGS if number % 2 else [*TAGS, *NOT_FINITE]
        trace.tag([Tag(**tag) if position % 2 else tag for position, tag in enumerate(tags)])
        expected["tags"] += [{"trace_id": trace.trace_id, **tag} for tag in tags]
        if number % 4 == 0:
            for ref, value in objects().items():
                wrapped = wrap(value, lossless=ref.endswith("lossless"))
                trace.log(ref=ref, data=wrapped)
                kind = f"raymon.types.{type(wrapped).__name__}"
                expected["objects"].append({"trace_id": trace.trace_id, "ref": ref, "type": kind})
    expected["lines"] = len(expected["infos"]) + TRACES + len(expected["objects"])
    (directory / "expected.json").write_text(json.dumps(expected))


def wrap(value: Any, lossless: bool) -> Any:
    """The wrapper of raymon for a value."""
    if isinstance(value, np.ndarray):
        return rt.Numpy(value)
    if isinstance(value, pd.DataFrame):
        return rt.DataFrame(value)
    if isinstance(value, pd.Series):
        return rt.Series(value)
    if isinstance(value, Image.Image):
        return rt.Image(value, lossless=lossless)
    return rt.Native(value)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
