"""Writes the JSON Schema of tailrace v1 beside the types it is generated from: `python -m tailrace.schemas.generate`."""

from __future__ import annotations

import json
from pathlib import Path

from tailrace.schemas.records import json_schema

PATH = Path(__file__).parent / "json" / "tailrace-v1.schema.json"


def render() -> str:
    """The file's text."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(render())
