"""What `import tailrace` offers, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import tailrace
from tailrace.logger import Logger
from tailrace.testing import MemoryLogger


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_public_surface_is_pinned() -> None:
    """Property: names are added on purpose and never disappear; each of them can be imported."""
    assert tailrace.__all__ == [
        "APILogger",
        "Arrow",
        "Client",
        "ConfigError",
        "DataError",
        "DataFrame",
        "DataType",
        "DeliveryError",
        "FileLogger",
        "Generation",
        "Image",
        "Logger",
        "LoggerStats",
        "Metadata",
        "Native",
        "NotFound",
        "Numpy",
        "Polars",
        "Series",
        "Session",
        "Tag",
        "TailraceError",
        "TailraceHandler",
        "Trace",
        "TraceEvent",
        "User",
        "configure",
        "connect",
        "current_event",
        "current_trace",
        "load",
        "session",
        "testing",
        "traced",
        "types",
    ]
    assert all(getattr(tailrace, name) is not None for name in tailrace.__all__)
    assert set(tailrace.__all__) <= set(dir(tailrace))
    assert not hasattr(tailrace, "no_such_name")


def test_importing_and_logging_import_nothing_heavy() -> None:
    """Property: a service that logs text, tags and JSON never pays for numpy, pandas, Pillow, asyncio or msgspec."""
    loaded = run(
        "import sys, tailrace\n"
        "from tailrace import FileLogger, Tag, Trace\n"
        "from tailrace.testing import MemoryLogger\n"
        "t = Trace(logger=MemoryLogger()); t.info('x'); t.tag([Tag('a', 1)]); t.log('r', {'a': [1, None]})\n"
        "print(sorted({'numpy', 'pandas', 'PIL', 'asyncio', 'msgspec', 'logging'} & set(sys.modules)))"
    )
    assert ast.literal_eval(loaded) == []


def test_importing_is_quick() -> None:
    """Property: `import tailrace` takes under 30 ms, in the best of several fresh interpreters."""
    code = "import time; a = time.perf_counter(); import tailrace; print(time.perf_counter() - a)"
    assert min(float(run(code)) for _ in range(5)) < 0.030


def test_loggers_fit_the_protocol() -> None:
    """Property: the fake that services test with is a `Logger`."""
    assert isinstance(MemoryLogger(), Logger)
    assert isinstance(tailrace.Native(1), tailrace.DataType)


def test_logging_imports_nothing(tmp_path: Path) -> None:
    """Property: once a trace is made, no call imports a module. A process that forks while another of its threads imports
    leaves its child an import lock that nobody releases: whoever comes to the same import there waits for ever."""
    code = (
        "import sys, tailrace\nfrom tailrace import Client, FileLogger, Tag, Trace\n"
        "trace = Trace(FileLogger(sys.argv[1], 'shop'))\nbefore = set(sys.modules)\n"
        "for size in (1, 3_000_000):\n"
        "    trace.info('x' * size)\n    trace.tag([Tag('a', 'x' * size), {'name': 'b', 'value': float('nan')}])\n"
        "    trace.log('r', {'a': ['x' * size, None, float('nan'), {1: 2}, 2**70]})\n"
        "    with trace.message('x' * size) as message:\n"
        "        message.generation(model='m', prompt='x' * size).end('x' * size, input_tokens=1)\n"
        "    trace.feedback(feedback_tag='good', feedback_text='x' * size)\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    trace.exception('failed')\n"
        "print(sorted(set(sys.modules) - before), trace)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "trace.log")], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("[] "), done.stdout
