"""What a record may hold: a client keeps to it, and an ingestor makes a dead letter of what does not."""

from __future__ import annotations

MAX_NAME = 1024
"""Characters of a name or an id: tables sort and index by it."""

MAX_TAGS = 10_000
"""Tags of one line; a trace may have any number of lines."""
