"""What changes in directories, as the system tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


def observed(directories: Mapping[str, bool], wake: Callable[[], None]) -> BaseObserver:
    """Calls `wake`, in a thread of its own, whenever a file or directory appears, moves or goes, until it is stopped.

    Args:
        directories: Path and whether its subdirectories count.
        wake: Called for each event.

    Raises:
        OSError: The system grants no watch.
    """
    observer = Observer()
    for path, deep in directories.items():
        observer.schedule(_Wake(wake), path, recursive=deep, event_filter=EVENTS)
    observer.start()
    return observer


class _Wake(FileSystemEventHandler):
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._wake()
