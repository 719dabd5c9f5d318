"""Writes a data object to a file of the kind that its suffix names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tailrace.schemas.errors import ConfigError
from tailrace.schemas.stand_in import MARK

if TYPE_CHECKING:
    from tailrace.explorer import ObjectPayload

_MARKED = f'{{"{MARK}":'.encode()

SUFFIXES = ".json, .npy (arrays), .png (images), .csv or .parquet (frames, series, Arrow tables)"


def whole(payload: ObjectPayload, directories: Sequence[Path]) -> ObjectPayload:
    """The payload with what its file holds, if it was too large for its line; a truncated one as it is.

    Raises:
        NotFound: The file is in none of the directories, nor where the service wrote it.
        DataError: The file is damaged.
    """
    if not payload.data.startswith(_MARKED):
        return payload
    from tailrace.oversized import read_spilled
    from tailrace.schemas.stand_in import StandIn

    stand_in = StandIn.from_params(json.loads(payload.data.decode("utf-8", "surrogatepass")))
    if stand_in is None or stand_in.kept == "truncated":
        return payload
    return msgspec.structs.replace(payload, data=read_spilled(stand_in, directories))


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
    elif suffix in (".csv", ".parquet") and (table := _arrow_table(value)) is not None:
        import pyarrow.csv
        import pyarrow.parquet

        if suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pyarrow.parquet.write_table(table, path)
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


def _arrow_table(value: Any) -> Any:
    """The Arrow table of a polars frame or series, or of Arrow data with columns; `None` for anything else."""
    module = type(value).__module__.partition(".")[0]
    if module == "polars":
        return (value.to_frame() if type(value).__name__ == "Series" else value).to_arrow()
    if module == "pyarrow" and hasattr(value, "column_names"):
        import pyarrow

        return value if isinstance(value, pyarrow.Table) else pyarrow.Table.from_batches([value])
    return None
