"""Pandas Series, DataFrames and indexes as JSON and back, with nothing but numpy and pandas installed.

A column is an array of its own, told apart by `dtype`:

    numpy dtypes                {"dtype":"<f8",…}                          as in `array_codec`; object columns too
    category                    {"dtype":"category","codes":ARRAY,"categories":INDEX,"ordered":bool}
    datetime64 with time zone   {"dtype":"datetimetz","data":ARRAY of UTC,"tz":name}
    Int8 … UInt64, Float*, boolean  {"dtype":"masked","data":ARRAY,"mask":ARRAY}
    string, str                 {"dtype":"pandas.string","values":[text or null],"storage","na":"NA"|"nan"}
    period, interval            {"dtype":"period","ordinals":ARRAY,"freq"} · {"dtype":"interval","left","right","closed"}
    pandas.ArrowDtype           {"dtype":"arrow","form":"chunked","ipc":…}  as in `arrow_codec`
    any other extension dtype   {"dtype":"object",…,"was":name}: reads back as an object column, counted as altered

An index is a column with a name, or a range, or levels:

    {"column":COLUMN,"name":…,"freq"?} · {"range":[start,stop,step],"name":…} ·
    {"levels":[INDEX,…],"codes":[ARRAY,…],"names":[…]}

`attrs`, flags, and the class of a subclass are not kept. Names and cells of object columns are encoded by
`scalar_codec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace.array_codec import decode_array, encode_array
from tailrace.scalar_codec import Scalars, decode, zone_name, zone_of
from tailrace.schemas.errors import DataError

if TYPE_CHECKING:
    import pandas


def encode_series(series: Any, scalars: Scalars) -> dict[str, Any]:
    """The JSON form of a Series.

    Raises:
        DataError: It is not a Series.
    """
    import pandas

    if not isinstance(series, pandas.Series):
        raise DataError(f"Series takes a pandas Series, not {type(series).__name__}")
    return {
        "name": scalars.encode(series.name),
        "index": encode_index(series.index, scalars),
        "column": encode_column(series.array, scalars),
    }


def decode_series(encoded: Any) -> pandas.Series[Any]:
    """The Series of a JSON form.

    Raises:
        DataError: It is not one.
    """
    index = decode_index(_get(encoded, "index"))
    return _series(_get(encoded, "column"), index, _hashable(decode(encoded.get("name"))))


def encode_frame(frame: Any, scalars: Scalars) -> dict[str, Any]:
    """The JSON form of a DataFrame.

    Raises:
        DataError: It is not a DataFrame.
    """
    import pandas

    if not isinstance(frame, pandas.DataFrame):
        raise DataError(f"DataFrame takes a pandas DataFrame, not {type(frame).__name__}")
    return {
        "index": encode_index(frame.index, scalars),
        "columns": encode_index(frame.columns, scalars),
        "data": [encode_column(frame.iloc[:, i].array, scalars) for i in range(frame.shape[1])],
    }


def decode_frame(encoded: Any) -> pandas.DataFrame:
    """The DataFrame of a JSON form.

    Raises:
        DataError: It is not one.
    """
    import pandas

    index, columns = decode_index(_get(encoded, "index")), decode_index(_get(encoded, "columns"))
    data = _get(encoded, "data")
    if not isinstance(data, list) or len(data) != len(columns):
        raise DataError(f"a frame with {len(columns)} column names needs a list of as many columns")
    series = {position: _series(column, index, None) for position, column in enumerate(data)}
    frame = pandas.DataFrame(series, index=index, columns=range(len(data)))
    frame.columns = columns
    return frame


def encode_index(index: Any, scalars: Scalars) -> dict[str, Any]:
    """The JSON form of an index of any class."""
    import pandas

    if isinstance(index, pandas.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "name": scalars.encode(index.name)}
    if isinstance(index, pandas.MultiIndex):
        return {
            "levels": [encode_index(level, scalars) for level in index.levels],
            "codes": [encode_array(codes, scalars) for codes in index.codes],
            "names": [scalars.encode(name) for name in index.names],
        }
    encoded = {"column": encode_column(index.array, scalars), "name": scalars.encode(index.name)}
    freq = getattr(index, "freqstr", None)
    if freq is None or isinstance(index, pandas.PeriodIndex):
        return encoded
    if _offset(freq) != index.freq:  # a custom calendar has no text of its own
        scalars.altered += 1
        return encoded
    return {**encoded, "freq": freq}


def decode_index(encoded: Any) -> pandas.Index[Any]:
    """The index of a JSON form.

    Raises:
        DataError: It is not one.
    """
    import pandas

    if not isinstance(encoded, dict):
        raise DataError(f"an index must be an object, not {type(encoded).__name__}")
    if "levels" in encoded:
        levels = [decode_index(level) for level in encoded["levels"]]
        codes = [decode_array(part) for part in _get(encoded, "codes")]
        names = [_hashable(decode(name)) for name in _get(encoded, "names")]
        make: Any = pandas.MultiIndex
        return make(levels=levels, codes=codes, names=names)  # type: ignore[no-any-return]
    name = _hashable(decode(encoded.get("name")))
    if "range" in encoded:
        bounds = encoded["range"]
        if not isinstance(bounds, list) or len(bounds) != 3 or not all(type(b) is int for b in bounds):
            raise DataError(f"a range is [start, stop, step], not {bounds!r:.100}")
        return pandas.RangeIndex(bounds[0], bounds[1], bounds[2], name=name)
    array = decode_column(_get(encoded, "column"))
    index: Any = pandas.Index(array, dtype=array.dtype, name=name)
    if "freq" in encoded:
        index.freq = _offset(encoded["freq"])
    return index  # type: ignore[no-any-return]


def encode_column(array: Any, scalars: Scalars) -> dict[str, Any]:
    """The JSON form of the array behind a Series or an index."""
    import numpy
    import pandas

    if type(array) is pandas.arrays.NumpyExtensionArray:  # its subclasses have a meaning of their own
        array = array.to_numpy()
    dtype = array.dtype
    if isinstance(dtype, numpy.dtype):
        return encode_array(numpy.asarray(array), scalars)
    if isinstance(dtype, pandas.CategoricalDtype):
        return {
            "dtype": "category",
            "codes": encode_array(numpy.asarray(array.codes), scalars),
            "categories": encode_index(dtype.categories, scalars),
            "ordered": bool(dtype.ordered),
        }
    if isinstance(dtype, pandas.DatetimeTZDtype):
        zone = zone_name(dtype.tz)
        if zone is not None:
            utc = numpy.asarray(array.tz_convert("UTC").tz_localize(None))
            return {"dtype": "datetimetz", "data": encode_array(utc, scalars), "tz": zone}
    masked: Any = (pandas.arrays.IntegerArray, pandas.arrays.FloatingArray, pandas.arrays.BooleanArray)
    if isinstance(array, masked):
        mask = numpy.asarray(array.isna())
        # Values under the mask are not data; a zero there makes equal arrays equal text.
        data = array.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return {"dtype": "masked", "data": encode_array(data, scalars), "mask": encode_array(mask, scalars)}
    if isinstance(dtype, pandas.StringDtype):
        values = [None if missing else str(text) for text, missing in zip(array, array.isna(), strict=True)]
        na = "NA" if getattr(dtype, "na_value", pandas.NA) is pandas.NA else "nan"
        return {"dtype": "pandas.string", "values": values, "storage": dtype.storage, "na": na}
    if isinstance(dtype, pandas.PeriodDtype):
        freq = dtype.name.removeprefix("period[").removesuffix("]")
        if _same_period(freq, dtype):
            return {"dtype": "period", "ordinals": encode_array(array.asi8, scalars), "freq": freq}
    if isinstance(dtype, pandas.IntervalDtype):
        left, right = (encode_index(side, scalars) for side in (array.left, array.right))
        return {"dtype": "interval", "left": left, "right": right, "closed": dtype.closed}
    if isinstance(dtype, pandas.ArrowDtype):
        from tailrace.arrow_codec import encode_arrow

        return {"dtype": "arrow", **encode_arrow(array.__arrow_array__())}
    plain = numpy.empty(len(array), dtype=object)
    for position, value in enumerate(array):
        plain[position] = value
    scalars.altered += 1
    return {**encode_array(plain, scalars), "was": str(dtype)}


def decode_column(encoded: Any) -> Any:
    """The array of a JSON form: numpy's or an extension array of pandas.

    Raises:
        DataError: It is not one.
    """
    import numpy
    import pandas

    kind = _get(encoded, "dtype")
    if kind == "category":
        dtype = pandas.CategoricalDtype(
            decode_index(_get(encoded, "categories")), encoded.get("ordered") is True
        )
        return pandas.Categorical.from_codes(decode_array(_get(encoded, "codes")), dtype=dtype)
    if kind == "datetimetz":
        utc = pandas.DatetimeIndex(decode_array(_get(encoded, "data")))
        return utc.tz_localize("UTC").tz_convert(zone_of(_get(encoded, "tz"))).array
    if kind == "masked":
        return _masked(decode_array(_get(encoded, "data")), decode_array(_get(encoded, "mask")))
    if kind == "pandas.string":
        return _strings(encoded)
    if kind == "period":
        ordinals = decode_array(_get(encoded, "ordinals"))
        periods: Any = pandas.PeriodIndex
        return periods.from_ordinals(ordinals, freq=encoded.get("freq")).array
    if kind == "interval":
        left, right = decode_index(_get(encoded, "left")), decode_index(_get(encoded, "right"))
        return pandas.IntervalIndex.from_arrays(left, right, closed=encoded.get("closed", "right")).array
    if kind == "arrow":
        from tailrace.arrow_codec import decode_arrow

        return pandas.arrays.ArrowExtensionArray(decode_arrow(encoded))
    array = decode_array(encoded)
    if array.ndim != 1:
        raise DataError(f"a column has one dimension, not {array.ndim}")
    return array if array.dtype.kind in "biufcmMO" else numpy.asarray(array, dtype=object)


def _series(column: Any, index: Any, name: Any) -> pandas.Series[Any]:
    import pandas

    array = decode_column(column)
    if len(array) != len(index):
        raise DataError(f"a column of {len(array)} values stands beside an index of {len(index)}")
    series: pandas.Series[Any] = pandas.Series(array, index=index, name=name, dtype=array.dtype)
    return series


def _masked(data: Any, mask: Any) -> Any:
    import pandas

    if data.shape != mask.shape or data.ndim != 1 or mask.dtype.kind != "b":
        raise DataError("the mask of a column must be as many booleans as it has values")
    arrays = {"b": pandas.arrays.BooleanArray, "f": pandas.arrays.FloatingArray}
    return arrays.get(data.dtype.kind, pandas.arrays.IntegerArray)(data, mask)


def _strings(encoded: dict[str, Any]) -> Any:
    import numpy
    import pandas

    values = encoded.get("values")
    if not isinstance(values, list) or not all(value is None or isinstance(value, str) for value in values):
        raise DataError("a string column needs a list of texts and nulls")
    missing = numpy.nan if encoded.get("na") == "nan" else pandas.NA
    storage: Any = encoded.get("storage")
    try:
        dtype = pandas.StringDtype(storage, na_value=missing)
    except (ImportError, TypeError, ValueError):
        # No pyarrow here, or a pandas that knows one missing value only: the texts are the same.
        dtype = pandas.StringDtype("python")
    return pandas.array(values, dtype=dtype)


def _offset(freq: Any) -> Any:
    from pandas.tseries.frequencies import to_offset

    if not isinstance(freq, str):
        raise DataError(f"a frequency must be text, not {freq!r:.100}")
    try:
        return to_offset(freq)
    except ValueError as exc:
        raise DataError(f"unknown frequency {freq!r:.100}") from exc


def _same_period(freq: Any, dtype: Any) -> bool:
    import pandas

    try:
        return bool(pandas.PeriodDtype(freq) == dtype)
    except ValueError:
        return False


def _hashable(name: Any) -> Any:
    try:
        hash(name)
    except TypeError as exc:
        raise DataError(f"a name must be hashable, not {name!r:.100}") from exc
    return name


def _get(encoded: Any, key: str) -> Any:
    if not isinstance(encoded, dict) or key not in encoded:
        raise DataError(f"a part of a series or frame has no {key!r}")
    return encoded[key]
