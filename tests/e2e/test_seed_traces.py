"""A service traced with raymon, translated name by name, from its calls to what people read back.

The two documents that this follows show `Trace`, `RaymonFileLogger`, `info`, `tag` with a dict and with `Tag`, `log` with
Native, Numpy, DataFrame and Image, and then `object_search` and `load_jcr`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from support.cli import report
from support.cli import tailrace as run
from support.embedded import up_once
from tailrace import load
from tailrace.explorer import Explorer

SERVICE = """
import sys

import numpy as np
import pandas as pd
from PIL import Image

import tailrace.types as tt
from tailrace import FileLogger, Tag, Trace

project_id, path, picture = sys.argv[1:]

# raymon: logger = RaymonFileLogger(path=path, project_id=project_id); trace = Trace(logger=logger, trace_id=None)
logger = FileLogger(path, project_id=project_id, max_object_bytes=10_000)
trace = Trace(logger=logger, trace_id=None)

trace.info("You can log whatever you want here")

tags = [
    # Using a dict
    {
        "name": "client",
        "value": "bigshot_client",
        "type": "label"
    },
    # Using the Tag object
    Tag(name="sdk_version", value="1.4.2", type="label"),
    Tag(name="prediction_time_ms", value="120", type="metric")
]
trace.tag(tags)

img = Image.open(picture)
arr = np.array([[1, 2], [3, 4]])
df = pd.DataFrame(arr, columns=['a', 'b'])

trace.log(ref="native-ref", data=tt.Native(
    {"foo": "bar",
    "whatever": ["you", "want"],
    "all_native_types": 1}))
trace.log(ref="numpy-ref", data=tt.Numpy(arr))
trace.log(ref="pandas-ref", data=tt.DataFrame(df))
trace.log(ref="image-ref", data=tt.Image(img))


# "You can log data from anywhere in your code, even over different services", and wrappers of one's own
class Shape:
    def __init__(self, corners):
        self.corners = corners

    def to_dict(self):
        return {"type": "shop.Shape", "params": {"corners": self.corners}}


same = Trace(logger=FileLogger(path, project_id=project_id), trace_id=str(trace))
same.log(ref="own-ref", data=Shape(4))
same.tag([Tag(name="rooms", value=6, type="metric", group="house_prices@2.1")])
print(trace.trace_id)
assert logger.stats().dropped == 0
"""


@dataclass(frozen=True)
class Traced:
    """What ran: the trace's id, the picture, the log and the database."""

    trace_id: str
    picture: Path
    log: Path
    where: tuple[str, str]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The service as a process of its own, then `tailrace up --once` over its log directory."""
    folder = tmp_path_factory.mktemp("seed")
    picture = folder / "cast_def_0_0.jpeg"
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture, quality=90)
    log = folder / "logs" / "service.log"
    command = [sys.executable, "-W", "error", "-c", SERVICE, "d6ac1bf0", str(log), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    where = ("--clickhouse", f"chdb://{folder / 'db'}")
    counts = report("up", "--once", *where, log.parent)
    assert (counts["rows"], counts["dead_letters"]) == (8, 0)
    return Traced(done.stdout.strip(), picture, log, where)


def object_search(traced: Traced, ref: str, *more: str) -> Any:
    """`api.object_search(project_id=…, trace_id=…, ref=…)` and `rt.load_jcr(…)`, as a command and a function."""
    shown = run("object", traced.trace_id, ref, "--project", "d6ac1bf0", *traced.where, *more).stdout
    return load(json.loads(shown))


class Shape:
    def __init__(self, corners: int) -> None:
        self.corners = corners


def test_objects_are_fetched_by_their_reference(traced: Traced, database: Callable[[], Any]) -> None:
    """Property: each object of the documents comes back equal, the picture to the pixel, though it was too large for a line."""
    client = database()
    up_once(client, traced.log)
    explorer = Explorer(client)

    def fetched(ref: str) -> Any:
        payload = explorer.object(traced.trace_id, ref, project="d6ac1bf0")
        return load(payload.document(), types={"shop.Shape": lambda params: Shape(**params)})

    native = {"foo": "bar", "whatever": ["you", "want"], "all_native_types": 1}
    assert fetched("native-ref").data == native
    frame = pd.DataFrame(np.array([[1, 2], [3, 4]]), columns=["a", "b"])
    pd.testing.assert_frame_equal(fetched("pandas-ref").data, frame)
    with Image.open(traced.picture) as picture:
        assert fetched("image-ref").data.tobytes() == picture.tobytes()
    assert fetched("own-ref").corners == 4
    for array in (fetched("numpy-ref").data, object_search(traced, "numpy-ref").data):
        assert (array.dtype, array.tolist()) == (np.array([1]).dtype, [[1, 2], [3, 4]])


def test_the_trace_shows_what_was_logged(traced: Traced) -> None:
    """Property: one trace with its text, its tags (types, groups, numbers as numbers) and its objects, in one answer."""
    trace = report("trace", traced.trace_id, *traced.where)
    assert [(line["level"], line["message"]) for line in trace["texts"]] == [
        ("info", "You can log whatever you want here")
    ]
    assert [(tag["name"], tag["value"], tag["type"], tag["group"], tag["text"]) for tag in trace["tags"]] == [
        ("client", "bigshot_client", "label", "", "bigshot_client"),
        ("sdk_version", "1.4.2", "label", "", "1.4.2"),
        ("prediction_time_ms", 120, "metric", "", "120"),
        ("rooms", 6, "metric", "house_prices@2.1", "6"),
    ]
    objects = {line["ref"]: line for line in trace["objects"]}
    assert {ref: line["type"] for ref, line in objects.items()} == {
        "native-ref": "tailrace.Native",
        "numpy-ref": "tailrace.Numpy",
        "pandas-ref": "tailrace.DataFrame",
        "image-ref": "tailrace.Image",
        "own-ref": "shop.Shape",
    }
    image = objects["image-ref"]
    assert (image["kept"], image["size"] > 10_000) == ("spilled", True)
    assert image["preview"].startswith('{"format":"PNG","mode":"RGB","size":[120,80],"data":"')
    assert objects["numpy-ref"]["kept"] == ""
    shown = run("trace", traced.trace_id, *traced.where).stdout
    assert re.search(r"object +image-ref +tailrace.Image [0-9.]+ [kM]B spilled \{.format.:.PNG", shown)


def test_a_slice_finds_the_trace(traced: Traced) -> None:
    """Property: tags define slices: the trace is found by its client, and its metric is a number."""
    found = report("slice", "client==bigshot_client", "--metric", "prediction_time_ms", *traced.where)
    assert (found["traces"], found["metrics"]["prediction_time_ms"]["mean"]) == (1, 120.0)


def test_objects_that_are_elsewhere_are_asked_for_by_directory(traced: Traced, tmp_path: Path) -> None:
    """Property: where the service's disk is not at hand, one is told where the object lies and how to say where it is."""
    folder = traced.log.with_name("service.log.objects")
    away = folder.rename(tmp_path / "copied")
    try:
        failed = run("object", traced.trace_id, "image-ref", *traced.where, check=3).stderr
        assert f":{folder}/" in failed
        assert "--objects-dir" in failed
        with Image.open(traced.picture) as picture:
            found = object_search(traced, "image-ref", "--objects-dir", str(away))
            assert found.data.tobytes() == picture.tobytes()
        png = tmp_path / "out.png"
        environment = {"TAILRACE_OBJECTS_DIR": str(away)}
        run("object", traced.trace_id, "image-ref", "-o", png, *traced.where, environment=environment)
        with Image.open(png) as written:
            assert written.tobytes() == found.data.tobytes()
    finally:
        away.rename(folder)
