"""The `tailrace` command: thin, one module a command group; each composes the other rooms and imports them lazily."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Entry point of the console script."""
    # numpy comes with Arrow. Its matrices are not used here, and a thread for them burns a tenth of a second when it starts.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # until the command begins: what is imported stays, and looking it through takes a tenth of the start
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as exc:
        sys.exit(
            f"the tailrace command needs {exc.name}: pip install 'tailrace[all]' (or [shipper], [ingestor], [embedded])"
        )
    from tailrace.cli.app import run

    sys.exit(run(sys.argv[1:]))
