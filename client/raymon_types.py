"""Reads the data objects that raymon (≤ 0.0.36) writes, without raymon: its types' names and their `params`.

    raymon.types.Numpy      {"data":base64,"shape":"(2, 2)","dtype":"int64"}
    raymon.types.DataFrame  {"data":{column:{label:value}}}     Series: {"data":{label:value}}
    raymon.types.Image      {"data":base64 of JPEG or PNG,"lossless":bool}
    raymon.types.Native     {"data":…}

What raymon itself loses stays lost: index labels are text in JSON and are read as numbers or dates where all of
them are; floats carry ten decimals; a Series has no name; an array of dtype object holds addresses and is refused.
"""

from __future__ import annotations

import ast
import json
from io import StringIO
from typing import Any

from tailrace.array_codec import array_of_bytes, read_dtype, read_shape, simple_dtype
from tailrace.image_codec import open_image
from tailrace.scalar_codec import from_base64
from tailrace.schemas.errors import DataError


def read_numpy(params: dict[str, Any]) -> Any:
    """The array of `raymon.types.Numpy`."""
    shape = read_shape(_literal(params.get("shape"), "shape"))
    described = params.get("dtype")
    if isinstance(described, str) and described.startswith("["):
        described = _literal(described, "dtype")
    dtype = read_dtype(described) if isinstance(described, list) else simple_dtype(described)
    return array_of_bytes(from_base64(params.get("data")), dtype, shape, "C")


def read_series(params: dict[str, Any]) -> Any:
    """The Series of `raymon.types.Series`."""
    # As the only column of a frame: of a series, pandas would take any large number for a date.
    column = _table({"data": {"v": params.get("data")}} if isinstance(params.get("data"), dict) else params)
    return _read(column)["v"].rename(None)


def read_frame(params: dict[str, Any]) -> Any:
    """The DataFrame of `raymon.types.DataFrame`.

    Columns whose names speak of a time (`date`, `…_at`, `timestamp…`) are read as times, as raymon does; texts
    of digits stay texts, unlike there.
    """
    return _read(_table(params))


def read_image(params: dict[str, Any]) -> Any:
    """The image of `raymon.types.Image`; of a JPEG, its pixels as decoded."""
    return open_image(from_base64(params.get("data")), ["JPEG", "PNG"])


def _read(table: StringIO) -> Any:
    import pandas

    return pandas.read_json(table, dtype=False, precise_float=True)


def _table(params: dict[str, Any]) -> StringIO:
    data = params.get("data")
    if not isinstance(data, dict):
        raise DataError(f"raymon's tables are objects, not {type(data).__name__}")
    return StringIO(json.dumps(data))


def _literal(text: Any, what: str) -> Any:
    if not isinstance(text, str) or len(text) > 10_000:
        raise DataError(f"the {what} of an array of raymon must be a short text, not {text!r:.100}")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as exc:
        raise DataError(f"{text!r:.100} is not the {what} of an array") from exc
