"""What the real raymon client writes is read back by `tailrace.load`."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tailrace
from support.raymon import RaymonCorpus
from support.raymon_objects import assert_same


def records(corpus: RaymonCorpus) -> list[dict[str, Any]]:
    return [json.loads(line) for path in corpus.logs for line in path.read_text().splitlines()]


def test_every_object_of_the_real_client_loads_equal(corpus: RaymonCorpus) -> None:
    """Property: for every object line of a real file, `load` gives back the value that was logged."""
    expected = json.loads(corpus.expected.read_text())
    found = [
        (record["jcr"]["trace_id"], record["jcr"]["ref"])
        for record in records(corpus)
        if record["type"] == "data"
    ]
    assert found == [(entry["trace_id"], entry["ref"]) for entry in expected["objects"]]
    assert {ref for _, ref in found} == set(corpus.objects)
    for record in records(corpus):
        if record["type"] == "data":
            ref = record["jcr"]["ref"]
            assert_same(ref, tailrace.load(record["jcr"]["data"]).data, corpus.objects[ref])


def test_the_corpus_says_what_the_file_holds(corpus: RaymonCorpus) -> None:
    """Property: `expected.json` lists every line of the files, so that tests may rely on it for completeness."""
    expected, lines = json.loads(corpus.expected.read_text()), records(corpus)
    assert len(lines) == expected["lines"]
    infos = [(r["jcr"]["trace_id"], r["jcr"]["data"]) for r in lines if r["type"] == "info"]
    assert infos == [(entry["trace_id"], entry["message"]) for entry in expected["infos"]]
    tags = [
        {"trace_id": r["jcr"]["trace_id"], **tag}
        for r in lines
        if r["type"] == "tags"
        for tag in r["jcr"]["data"]
    ]
    assert repr(sorted(map(repr, map(sorted_items, tags)))) == repr(
        sorted(map(repr, map(sorted_items, expected["tags"])))
    )


def sorted_items(tag: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(tag.items())


def test_arrays_of_addresses_are_refused() -> None:
    """Property: an array of Python objects, of which raymon writes the addresses, is an error, not a crash."""
    stored = {
        "type": "raymon.types.Numpy",
        "params": {"data": "AAAAAAAAAAA=", "shape": "(1,)", "dtype": "object"},
    }
    with pytest.raises(tailrace.DataError):
        tailrace.load(stored)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"data": "AAAA", "shape": "(2, 2)", "dtype": "int64"},
        {"data": "AAAA", "shape": "__import__('os')", "dtype": "int64"},
        {"data": "AAAA", "shape": "(-1,)", "dtype": "int8"},
        {"data": "!", "shape": "(1,)", "dtype": "int8"},
        {"data": 3, "shape": "(1,)", "dtype": "int8"},
        {"data": [1], "lossless": True},
    ],
)
@pytest.mark.parametrize("kind", ["Numpy", "DataFrame", "Series", "Image"])
def test_malformed_objects_are_named_as_such(kind: str, params: dict[str, Any]) -> None:
    """Property: malformed params raise `DataError` for every type of raymon."""
    with pytest.raises(tailrace.DataError):
        tailrace.load({"type": f"raymon.types.{kind}", "params": params})


def test_raymon_is_not_imported() -> None:
    """Property: reading raymon's types needs no raymon; a type that nobody knows is not looked up by its name."""
    with pytest.raises(tailrace.DataError, match="unknown type"):
        tailrace.load({"type": "raymon.types.load_jcr", "params": {}})
    with pytest.raises(tailrace.DataError, match="unknown type"):
        tailrace.load({"type": "os.system", "params": "true"})
