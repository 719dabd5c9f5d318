"""Data types: what `Trace.log` takes, and `load`, which gives it back.

A data type describes itself by `to_dict()` as `{"type": name, "params": JSON}`. On the wire that is an `object`
record with the `type` and, as `data`, the `params`. The forms are described in `array_codec`, `frame_codec`,
`image_codec` and `arrow_codec`; none of them needs more than numpy, pandas, Pillow, polars or pyarrow itself, and none
is ever unpickled.

    >>> from tailrace import Trace
    >>> from tailrace.testing import MemoryLogger
    >>> logger = MemoryLogger()
    >>> Trace(logger=logger).log("features", Native({"age": 41, "rooms": [1, None]}))
    >>> load(logger.raw[0]).data
    {'age': 41, 'rooms': [1, None]}

A type of one's own is any class with `to_dict()`. Its reader is handed to `load` by name: nothing is registered
anywhere, and nothing is imported because the data names it.

    >>> class Basket:
    ...     def __init__(self, items):
    ...         self.items = items
    ...     def to_dict(self):
    ...         return {"type": "shop.Basket", "params": {"items": self.items}}
    >>> Trace(logger=logger).log("basket", Basket(["pear", "fig"]))
    >>> basket = load(logger.raw[1], types={"shop.Basket": lambda params: Basket(params["items"])})
    >>> type(basket).__name__, basket.items
    ('Basket', ['pear', 'fig'])
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tailrace.schemas.errors import DataError, NotFound
from tailrace.schemas.stand_in import MARK

if TYPE_CHECKING:
    import numpy
    import pandas
    import PIL.Image
    import polars
    import pyarrow

__all__ = [
    "Arrow",
    "DataFrame",
    "DataType",
    "Image",
    "Native",
    "Numpy",
    "Polars",
    "Series",
    "load",
    "wrap",
]

_MAX_REPR = 2_000


@runtime_checkable
class DataType(Protocol):
    """A data object of one's own.

    `to_dict()` returns `{"type": name, "params": anything JSON can hold}`; the name is what `load(…, types=…)` finds
    the reader by. Anything else that it returns is taken for the params, and the class's name for the type.
    """

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON."""
        ...


class Native:
    """Anything JSON can hold.

    Args:
        data: What `load(…).data` gives back; tuples come back as lists, and keys as strings.
    """

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON."""
        return {"type": "tailrace.Native", "params": {"data": self.data}}


class Numpy:
    """A numpy array: dtype, shape, memory order and every bit come back.

    Args:
        data: The array. It is read when it is logged, not before.
    """

    __slots__ = ("data",)

    def __init__(self, data: numpy.ndarray[Any, Any]) -> None:
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON.

        Raises:
            DataError: It is not an array, is masked, or has Python objects inside a structure.
        """
        from tailrace.array_codec import encode_array

        return _described("tailrace.Numpy", encode_array, self.data)


class Series:
    """A pandas Series: dtype, index, name and every value come back.

    Args:
        data: The Series. It is read when it is logged, not before.
    """

    __slots__ = ("data",)

    def __init__(self, data: pandas.Series[Any]) -> None:
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON.

        Raises:
            DataError: It is not a Series.
        """
        from tailrace.frame_codec import encode_series

        return _described("tailrace.Series", encode_series, self.data)


class DataFrame:
    """A pandas DataFrame: dtypes, index, column names and every value come back; `attrs` do not.

    Args:
        data: The DataFrame. It is read when it is logged, not before.
    """

    __slots__ = ("data",)

    def __init__(self, data: pandas.DataFrame) -> None:
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON.

        Raises:
            DataError: It is not a DataFrame.
        """
        from tailrace.frame_codec import encode_frame

        return _described("tailrace.DataFrame", encode_frame, self.data)


class Image:
    """A Pillow image: mode, size, palette and every pixel come back; metadata does not.

    Args:
        data: The image. It is read when it is logged, not before.
        lossy: JPEG of quality 95 instead, for the modes that JPEG has (L, RGB).
    """

    __slots__ = ("data", "lossy")

    def __init__(self, data: PIL.Image.Image, lossy: bool = False) -> None:
        self.data = data
        self.lossy = lossy

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON.

        Raises:
            DataError: It is not an image.
        """
        from tailrace.image_codec import encode_image

        return {"type": "tailrace.Image", "params": encode_image(self.data, self.lossy)}


class Polars:
    """A polars DataFrame or Series: schema, nulls and every value come back.

    Args:
        data: The DataFrame or Series. It is read when it is logged, not before.
    """

    __slots__ = ("data",)

    def __init__(self, data: polars.DataFrame | polars.Series) -> None:
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON.

        Raises:
            DataError: It is neither (a LazyFrame has no values yet), or has a column of Python objects.
        """
        from tailrace.arrow_codec import encode_polars

        return {"type": "tailrace.Polars", "params": encode_polars(self.data)}


class Arrow:
    """A pyarrow Table, RecordBatch, Array or ChunkedArray: schema, metadata, nulls and every value come back.

    Args:
        data: The Arrow data. It is read when it is logged, not before.
    """

    __slots__ = ("data",)

    def __init__(
        self,
        data: pyarrow.Table | pyarrow.RecordBatch | pyarrow.Array | pyarrow.ChunkedArray,
    ) -> None:
        self.data = data

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON.

        Raises:
            DataError: It is none of these, or of a type that Arrow's streaming format does not have.
        """
        from tailrace.arrow_codec import encode_arrow

        return {"type": "tailrace.Arrow", "params": encode_arrow(self.data)}


def wrap(data: Any) -> DataType:
    """The wrapper for a bare value; a data type is returned as it is.

    Arrays, frames and images are recognised by the names of their classes: nothing is imported for that.

    >>> wrap([1, 2]).to_dict()
    {'type': 'tailrace.Native', 'params': {'data': [1, 2]}}
    """
    kind = type(data)
    if kind in (dict, list, str, int, float, bool, type(None)):
        return Native(data)
    if kind in (Native, Numpy, Series, DataFrame, Image, Polars, Arrow):
        return data  # type: ignore[no-any-return]
    for cls in kind.__mro__:
        wrapper = _WRAPPERS.get((cls.__module__.partition(".")[0], cls.__name__))
        if wrapper is not None:
            return wrapper(data)
    return data if callable(getattr(kind, "to_dict", None)) else Native(data)


def object_fields(data: Any) -> tuple[str, Any, str]:
    """Type and params of anything that is logged, and why it had to be altered (empty: it had not). Never raises."""
    try:
        described = wrap(data).to_dict()
        if not isinstance(described, Mapping) or not isinstance(described.get("type"), str):
            return f"{type(data).__module__}.{type(data).__qualname__}", described, ""
        params = described.get("params")
        lost = params.get("altered") if isinstance(params, dict) else None
        return described["type"], params, f"{lost} values of a {described['type']}" if lost else ""
    except Exception as exc:
        reason = f"{type(data).__name__} cannot be logged as it is: {exc or type(exc).__name__}"
        try:
            text = repr(data)[:_MAX_REPR]
        except Exception:
            text = f"<{type(data).__name__}>"
        return "tailrace.Native", {"data": {"unwritable": reason, "repr": text}}, reason


def load(
    described: Mapping[str, Any] | str | bytes,
    types: Mapping[str, Callable[[Any], Any]] | None = None,
    objects: str | os.PathLike[str] | None = None,
) -> Any:
    """The wrapper of a stored object; its `.data` is what was logged.

    >>> load({"type": "tailrace.Native", "params": {"data": [1, None]}}).data
    [1, None]

    Args:
        described: `{"type": …, "params": …}`, a whole `object` record (`type` and `data`), or the JSON text of
            either. The types of raymon ≤ 0.0.36 are read as well.
        types: Readers for types of one's own: name → function of the params. They are asked first. Nothing is
            ever imported because the data names it.
        objects: Where to look for an object that was too large for its line: the directory of the log, or a copy of
            the folder `<log>.objects`. The place that the service wrote to is tried as well. Found or not, nothing
            but a file with the content that the line names by its hash is read.

    Raises:
        DataError: The text is not JSON, the type is unknown, the params are malformed, or the object was truncated.
        NotFound: The object was too large for its line, and its file is not here; the message says where it is.
    """
    try:
        if isinstance(described, str | bytes | bytearray):
            described = json.loads(described)
        name, params = _fields_of(described)
        if isinstance(params, dict) and MARK in params:
            from tailrace.oversized import resolved

            params = resolved(params, () if objects is None else (objects,))
        if types is not None and name in types:
            return types[name](params)
        reader = _READERS.get(name)
        if reader is None:
            raise DataError(f"unknown type {name!r:.200}: give a reader for it in load(…, types={{…}})")
        if not isinstance(params, dict):
            raise DataError(f"the params of a {name} must be an object, not {type(params).__name__}")
        return reader(params)
    except (DataError, NotFound):
        raise
    except ImportError as exc:
        raise DataError(
            f"{exc}: to read this object, pip install {exc.name} (tailrace[data] has numpy, pandas and Pillow)"
        ) from exc
    except Exception as exc:
        raise DataError(f"malformed object: {type(exc).__name__}: {exc}"[:500]) from exc


def _fields_of(described: Any) -> tuple[str, Any]:
    if not isinstance(described, Mapping):
        raise DataError(f"an object must be a JSON object, not {type(described).__name__}")
    name = described.get("type")
    key = "params" if "params" in described else "data"
    if not isinstance(name, str) or key not in described:
        raise DataError("an object needs a `type` and `params`")
    return name, described[key]


def _described(name: str, encode: Callable[[Any, Any], dict[str, Any]], data: Any) -> dict[str, Any]:
    from tailrace.scalar_codec import Scalars

    scalars = Scalars()
    params = encode(data, scalars)
    if scalars.altered:
        params["altered"] = scalars.altered
    return {"type": name, "params": params}


def _load_native(params: dict[str, Any]) -> Native:
    if "data" not in params:
        raise DataError("a Native needs `data`")
    return Native(params["data"])


def _load_numpy(params: dict[str, Any]) -> Numpy:
    from tailrace.array_codec import decode_array

    return Numpy(decode_array(params))


def _load_series(params: dict[str, Any]) -> Series:
    from tailrace.frame_codec import decode_series

    return Series(decode_series(params))


def _load_frame(params: dict[str, Any]) -> DataFrame:
    from tailrace.frame_codec import decode_frame

    return DataFrame(decode_frame(params))


def _load_image(params: dict[str, Any]) -> Image:
    from tailrace.image_codec import decode_image

    return Image(decode_image(params), lossy=params.get("format") == "JPEG")


def _load_polars(params: dict[str, Any]) -> Polars:
    from tailrace.arrow_codec import decode_polars

    return Polars(decode_polars(params))


def _load_arrow(params: dict[str, Any]) -> Arrow:
    from tailrace.arrow_codec import decode_arrow

    return Arrow(decode_arrow(params))


def _load_raymon_numpy(params: dict[str, Any]) -> Numpy:
    from tailrace.raymon_types import read_numpy

    return Numpy(read_numpy(params))


def _load_raymon_series(params: dict[str, Any]) -> Series:
    from tailrace.raymon_types import read_series

    return Series(read_series(params))


def _load_raymon_frame(params: dict[str, Any]) -> DataFrame:
    from tailrace.raymon_types import read_frame

    return DataFrame(read_frame(params))


def _load_raymon_image(params: dict[str, Any]) -> Image:
    from tailrace.raymon_types import read_image

    return Image(read_image(params), lossy=params.get("lossless") is not True)


_WRAPPERS: dict[tuple[str, str], Callable[[Any], DataType]] = {
    ("numpy", "ndarray"): Numpy,
    ("pandas", "DataFrame"): DataFrame,
    ("pandas", "Series"): Series,
    ("PIL", "Image"): Image,
    ("polars", "DataFrame"): Polars,
    ("polars", "Series"): Polars,
    ("polars", "LazyFrame"): Polars,
    ("pyarrow", "Table"): Arrow,
    ("pyarrow", "RecordBatch"): Arrow,
    ("pyarrow", "Array"): Arrow,
    ("pyarrow", "ChunkedArray"): Arrow,
}

_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "tailrace.Native": _load_native,
    "tailrace.Numpy": _load_numpy,
    "tailrace.Series": _load_series,
    "tailrace.DataFrame": _load_frame,
    "tailrace.Image": _load_image,
    "tailrace.Polars": _load_polars,
    "tailrace.Arrow": _load_arrow,
    "raymon.types.Native": _load_native,
    "raymon.types.Numpy": _load_raymon_numpy,
    "raymon.types.Series": _load_raymon_series,
    "raymon.types.DataFrame": _load_raymon_frame,
    "raymon.types.Image": _load_raymon_image,
}
