"""Writes a data object to a file of the kind that its suffix names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.explorer import ObjectPayload

SUFFIXES = ".json, .npy (arrays), .png (images), .csv or .parquet (frames and series)"


def write_object(payload: ObjectPayload, path: Path) -> None:
    """Write the file; an existing one is replaced.

    Raises:
        ConfigError: The suffix is unknown or does not fit the object, or the file cannot be written.
        DataError: The object is malformed, or what reads it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (".json", ".npy", ".png", ".csv", ".parquet"):
        raise ConfigError(f"{path}: the suffix says how to write, and can be {SUFFIXES}")
    try:
        if suffix == ".json":
            path.write_bytes(payload.to_json() + b"\n")
            return
        from tailrace import load

        _write(load(payload.document()).data, payload, path, suffix)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc
    except ImportError as exc:
        raise ConfigError(
            f"writing {suffix} needs {exc.name or exc}: pip install 'tailrace[data]' pyarrow"
        ) from exc


def _write(value: Any, payload: ObjectPayload, path: Path, suffix: str) -> None:
    kind = type(value).__name__
    if suffix == ".npy" and kind == "ndarray":
        import numpy

        with path.open("wb") as file:
            numpy.save(file, value, allow_pickle=False)
    elif suffix == ".png" and hasattr(value, "save") and hasattr(value, "getbands"):
        value.save(path, format="PNG")
    elif suffix in (".csv", ".parquet") and kind in ("DataFrame", "Series"):
        frame = value.to_frame() if kind == "Series" else value
        if suffix == ".csv":
            frame.to_csv(path)
        else:
            frame.rename(columns=str).to_parquet(path)
    else:
        raise ConfigError(
            f"{payload.ref} is {payload.type or 'plain JSON'} and holds a {kind}, which {suffix} cannot; use .json"
        )
