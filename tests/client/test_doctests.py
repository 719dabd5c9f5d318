"""The examples in the documentation of what a service imports."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import tailrace

ROOMS = {"schemas", "shipper", "ingestor", "explorer", "cli"}
MODULES = [
    "tailrace",
    *(
        f"tailrace.{found.name}"
        for found in pkgutil.iter_modules(tailrace.__path__)
        if found.name not in ROOMS
    ),
]
WITH_EXAMPLES = {"tailrace", "tailrace.trace", "tailrace.tag", "tailrace.types", "tailrace.testing"}
"""What a reader looks up first."""


def run(module: ModuleType) -> doctest.TestResults:
    return doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")
def test_the_examples_do_what_they_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: every example of a module runs and prints what stands there; the modules that people meet have some."""
    monkeypatch.chdir(tmp_path)
    results = run(importlib.import_module(name))
    assert results.failed == 0
    assert results.attempted or name not in WITH_EXAMPLES
