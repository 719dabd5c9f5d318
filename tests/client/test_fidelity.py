"""Bit by bit: frames with any columns and index, images of any mode, Arrow and Polars data, NaNs with a payload."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from polars.testing.parametric import dataframes

import tailrace
from tailrace import DataError, Trace, load
from tailrace.scalar_codec import from_base64, to_base64
from tailrace.testing import MemoryLogger

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")

PAYLOADS = [0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0DEADBEEF0001, 0xFFFFFFFFFFFFFFFF]
"""NaNs that are not Python's own: a payload, the sign, a signalling one."""


def logged(value: Any, altered: bool = False) -> tuple[dict[str, Any], bytes]:
    """Log a bare value; the record, and the line."""
    logger = MemoryLogger()
    Trace(logger=logger).log("r", value)
    assert logger.stats().altered == altered, logger.stats().last_problem
    return logger.lines[0], logger.raw[0]


def round_trip(value: Any, altered: bool = False) -> Any:
    return load(logged(value, altered)[1]).data


def float_of(bits: int) -> float:
    number: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return number


def bits_of(number: float) -> int:
    bits: int = struct.unpack("<Q", struct.pack("<d", number))[0]
    return bits


# --- pandas


def raw_bits(draw: st.DrawFn, dtype: str, rows: int) -> np.ndarray[Any, Any]:
    """Any bits at all, as a column of a dtype."""
    size = np.dtype(dtype).itemsize * rows
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).copy()


NUMPY = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "c8", "c16"]
TIMES = ["M8[s]", "M8[ms]", "M8[us]", "M8[ns]", "m8[s]", "m8[ms]", "m8[us]", "m8[ns]"]
ZONES = ["UTC", "Europe/Brussels", "Asia/Kathmandu", "America/St_Johns", "+05:30"]
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)


@st.composite
def columns(draw: st.DrawFn, rows: int) -> Any:
    """An array that a Series can hold."""
    kind = draw(st.sampled_from(["numpy", "times", "bool", "zone", "nullable", "category", "string", "period", "interval", "object", "arrow"]))  # fmt: skip
    mask = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), dtype=bool)
    if kind == "numpy":
        return raw_bits(draw, draw(st.sampled_from(NUMPY)), rows)
    if kind == "times":
        return raw_bits(draw, draw(st.sampled_from(TIMES)), rows)
    if kind == "bool":
        return mask
    if kind == "zone":
        seconds = draw(st.lists(st.integers(-(2**33), 2**33), min_size=rows, max_size=rows))
        unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
        moments = np.array(seconds, "i8").astype("M8[s]").astype(f"M8[{unit}]")
        return pd.array(pd.DatetimeIndex(moments, tz="UTC").tz_convert(draw(st.sampled_from(ZONES))))
    if kind == "nullable":
        dtype = draw(st.sampled_from(["i1", "i8", "u2", "u8", "f4", "f8"]))
        made = pd.arrays.FloatingArray if dtype[0] == "f" else pd.arrays.IntegerArray
        data = raw_bits(draw, dtype, rows)
        data[mask] = 0  # what is under the mask is no data
        return draw(st.sampled_from([made(data, mask), pd.arrays.BooleanArray(mask & ~mask, mask)]))
    if kind == "category":
        labels = draw(
            st.sampled_from([["b", "a", "z"], [3, 1], pd.to_datetime(["2026-01-01", "2025-01-01"])])
        )
        codes = draw(st.lists(st.integers(-1, len(labels) - 1), min_size=rows, max_size=rows))
        return pd.Categorical.from_codes(codes, categories=pd.Index(labels), ordered=draw(st.booleans()))
    if kind == "string":
        texts = draw(st.lists(st.none() | TEXT, min_size=rows, max_size=rows))
        return pd.array(texts, dtype=draw(st.sampled_from(["string", "str", pd.StringDtype("python")])))
    if kind == "period":
        ordinals = draw(st.lists(st.integers(-1000, 1000), min_size=rows, max_size=rows))
        return pd.PeriodIndex.from_ordinals(
            ordinals, freq=draw(st.sampled_from(["D", "M", "Q-NOV", "h", "2D"]))
        ).array
    if kind == "interval":
        starts = draw(st.lists(st.integers(-5, 5), min_size=rows, max_size=rows))
        closed: Any = draw(st.sampled_from(["left", "right", "both", "neither"]))
        return pd.arrays.IntervalArray.from_arrays(
            np.array(starts, "i8"), np.array(starts, "i8") + 2, closed=closed
        )
    if kind == "arrow":
        types = {
            pa.int16(): 1,
            pa.float64(): 0.5,
            pa.decimal128(10, 2): 1,
            pa.large_string(): "x",
            pa.bool_(): True,
        }
        type_, value = draw(st.sampled_from(list(types.items())))
        return pd.arrays.ArrowExtensionArray(
            pa.array([None if missing else value for missing in mask], type_)
        )
    cells = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | TEXT
        | st.binary(max_size=3)
        | st.tuples(TEXT)
    )
    found = np.empty(rows, dtype=object)
    found[:] = draw(st.lists(cells, min_size=rows, max_size=rows))
    return found


def index_of(array: Any, name: Any = None) -> pd.Index[Any]:
    made: Any = pd.Index
    return made(array, dtype=array.dtype, name=name)  # type: ignore[no-any-return]


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 4))
    names = st.none() | TEXT | st.integers()
    if draw(st.booleans()):
        array = draw(columns(rows))
        index = index_of(array, draw(names)) if array.dtype.kind != "c" else pd.RangeIndex(rows)
    elif draw(st.booleans()):
        index = pd.RangeIndex(5, 5 + 3 * rows, 3)
    else:
        levels = [draw(st.lists(st.sampled_from(options), min_size=rows, max_size=rows)) for options in (["a", "b"], [1.5, 2.5], pd.to_datetime(["2026-01-01", "2026-01-02"]).tolist())]  # fmt: skip
        index = pd.MultiIndex.from_arrays(levels, names=[draw(names), None, draw(TEXT)])
    count = draw(st.integers(0, 3))
    made = pd.DataFrame(
        {position: pd.Series(draw(columns(rows)), index=index) for position in range(count)}, index=index
    )
    made.columns = draw(
        st.sampled_from([made.columns, pd.Index([f"c{n}" for n in range(count)]), pd.Index(["same"] * count)])
    )
    return made


def same_column(found: Any, column: Any) -> None:
    """Of one dtype, and of the same bits where there are bits."""
    assert repr(found.dtype) == repr(column.dtype)
    assert type(found.array) is type(column.array)
    if isinstance(column.dtype, np.dtype) and column.dtype != object:
        assert np.asarray(found).tobytes() == np.asarray(column).tobytes()
    elif column.dtype == object:
        assert [exact(cell) for cell in found] == [exact(cell) for cell in column]
    elif isinstance(column.array, pd.arrays.FloatingArray | pd.arrays.IntegerArray | pd.arrays.BooleanArray):
        assert found.array._mask.tobytes() == column.array._mask.tobytes()
        assert found.array._data.tobytes() == column.array._data.tobytes()
    elif isinstance(column.dtype, pd.CategoricalDtype):
        assert found.array.codes.tobytes() == column.array.codes.tobytes()
        assert found.array.categories.equals(column.array.categories)
    else:
        assert found.array.equals(column.array)


def exact(cell: Any) -> tuple[type, Any]:
    if isinstance(cell, float):
        return type(cell), bits_of(cell)
    return type(cell), repr(cell)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames())
def test_any_frame_comes_back_bit_by_bit(frame: pd.DataFrame) -> None:
    """Property: every column, the index (its class, levels, codes, names) and the column names; NaN payloads too."""
    found = round_trip(frame)
    assert found.shape == frame.shape
    assert type(found.index) is type(frame.index)
    if isinstance(frame.index, pd.MultiIndex):
        pd.testing.assert_index_equal(found.index, frame.index, exact=True)
        assert [list(map(int, codes)) for codes in found.index.codes] == [
            list(map(int, c)) for c in frame.index.codes
        ]
    else:
        same_column(found.index, frame.index)
    assert [exact(name) for name in found.index.names] == [exact(name) for name in frame.index.names]
    pd.testing.assert_index_equal(found.columns, frame.columns, exact=True)
    for position in range(frame.shape[1]):
        same_column(found.iloc[:, position], frame.iloc[:, position])


@pytest.mark.parametrize("bits", PAYLOADS)
def test_nans_keep_their_payload_wherever_they_stand(bits: int) -> None:
    """Property: in arrays, columns, object cells, complex numbers, nested cells; JSON itself has one NaN only."""
    nan = float_of(bits)
    array = np.array([bits], "u8").view("f8")
    assert round_trip(array).view("u8")[0] == bits
    assert round_trip(pd.Series(array)).to_numpy().view("u8")[0] == bits
    assert bits_of(round_trip(np.array([nan, "x"], dtype=object))[0]) == bits
    assert bits_of(round_trip(pd.Series([[nan], "x"], dtype=object))[0][0]) == bits
    assert bits_of(round_trip(np.array([complex(nan, 1), "x"], dtype=object))[0].real) == bits
    assert round_trip(pa.array(array)).to_numpy().view("u8")[0] == bits
    assert round_trip(pl.Series(array)).to_numpy().view("u8")[0] == bits
    assert np.isnan(round_trip({"native": nan})["native"])


# --- images


MODES = sorted({*PILImage.MODES, "I;16B", "I;16L", "I;16N"})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_images_of_any_mode_and_size_come_back(data: st.DataObject) -> None:
    """Property: mode, size and every byte of the pixels, whatever they are."""
    mode = data.draw(st.sampled_from(MODES))
    size = data.draw(st.tuples(st.integers(1, 19), st.integers(1, 7)))
    length = len(PILImage.new(mode, size).tobytes())
    image = PILImage.frombytes(mode, size, data.draw(st.binary(min_size=length, max_size=length)))
    pixels = image.tobytes()
    found = round_trip(image)
    assert (found.mode, found.size) == (image.mode, image.size)
    assert found.tobytes() == pixels
    assert found.getpalette() == image.getpalette()


# --- Arrow


def arrow_arrays() -> dict[str, pa.Array]:
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int8()), pa.array(["x", "y"]))
    return {
        "numbers": pa.array([1, None, -3], pa.int8()),
        "no values": pa.array([], pa.float16()),
        "null": pa.nulls(3),
        "booleans": pa.array([True, None, False]),
        "texts": pa.array(["", "ü", None]),
        "views": pa.array(["a long text of more than twelve bytes", None], pa.string_view()),
        "bytes": pa.array([b"\xff\x00", None], pa.large_binary()),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "decimal": pa.array([1, None], pa.decimal256(60, 5)),
        "times": pa.array([1, None], pa.timestamp("ns", "Europe/Brussels")),
        "durations": pa.array([1, None], pa.duration("us")),
        "months": pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        "lists": pa.array([[1, None], None, []], pa.large_list(pa.int16())),
        "fixed lists": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
        "structs": pa.array([{"a": 1, "b": "x"}, None]),
        "maps": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
        "dictionary": dictionary,
        "union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["x", "y"])),
        "slice": pa.array(range(1000))[100:105],
        "long": pa.array(["repeated"] * 10_000),
    }  # fmt: skip


@pytest.mark.parametrize("name", arrow_arrays())
def test_arrow_data_comes_back(name: str) -> None:
    """Property: as an array, in a batch, in a table and in chunks: type, nulls, values, metadata, class."""
    array = arrow_arrays()[name]
    found = round_trip(array)
    assert type(found) is type(array)
    assert (found.type, found.null_count) == (array.type, array.null_count)
    assert found.equals(array)
    field = pa.field("c", array.type, metadata={b"unit": b"\xff"})
    schema = pa.schema([field, pa.field("c", array.type)], metadata={b"k": b"v"})
    batch = pa.record_batch([array, array], schema=schema)
    table = pa.Table.from_batches([batch, batch.slice(0, 1)], schema)
    for whole in (batch, table, table.slice(0, 0), batch.slice(0, 0), pa.Table.from_batches([], schema)):
        back = round_trip(whole)
        assert type(back) is type(whole)
        assert back.schema.equals(whole.schema, check_metadata=True)
        assert back.equals(whole)
    for chunked in (pa.chunked_array([array, array.slice(0, 0), array]), pa.chunked_array([], array.type)):
        back = round_trip(chunked)
        assert isinstance(back, pa.ChunkedArray)
        assert [len(chunk) for chunk in back.chunks] == [len(chunk) for chunk in chunked.chunks]
        assert back.equals(chunked)


def test_arrow_data_without_columns_or_with_a_growing_dictionary_comes_back() -> None:
    """Property: rows without columns keep their number, and batches whose dictionaries differ keep their values."""
    batch = pa.record_batch([pa.array([1, 2, 3])], names=["a"]).select([])
    assert round_trip(batch).num_rows == batch.num_rows
    parts = [pa.array(values).dictionary_encode() for values in (["a", "b"], ["c", "a"], ["b"])]
    chunked = pa.chunked_array(parts, parts[0].type)
    assert round_trip(pa.table({"d": chunked})).column(0).to_pylist() == ["a", "b", "c", "a", "b"]


def test_arrow_data_is_found_inside_json_and_recognised_without_import() -> None:
    """Property: a table or frame within a dict is written as an object of its own, readable by `load`."""
    table, frame = pa.table({"a": [1]}), pl.DataFrame({"a": [1]})
    inside = round_trip({"table": table, "frame": frame})
    assert load(inside["table"]).data.equals(table)
    assert load(inside["frame"]).data.equals(frame)
    assert type(load(logged(table)[0])) is tailrace.Arrow
    assert type(load(logged(frame)[0])) is tailrace.Polars


# --- Polars


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(dataframes(max_size=5, max_cols=4, allow_null=True, excluded_dtypes=[pl.Object]))
def test_any_polars_frame_comes_back(frame: pl.DataFrame) -> None:
    """Property: schema (categories, enums, decimals, zones, nested types), nulls, and values; each column as a Series too."""
    found = round_trip(frame)
    assert isinstance(found, pl.DataFrame)
    assert found.schema == frame.schema
    assert found.equals(frame)
    for column in frame:
        back = round_trip(column)
        assert isinstance(back, pl.Series)
        assert (back.name, back.dtype) == (column.name, column.dtype)
        assert back.equals(column, check_dtypes=True, check_names=True)


@pytest.mark.parametrize(
    "wrong",
    [
        tailrace.Arrow([1]),
        tailrace.Arrow(pl.DataFrame()),  # type: ignore[arg-type]
        tailrace.Polars([1]),  # type: ignore[arg-type]
        tailrace.Polars(pl.LazyFrame({"a": [1]})),  # type: ignore[arg-type]
        tailrace.Polars(pl.Series([object()], dtype=pl.Object)),
    ],
    ids=range(5),
)
def test_what_has_no_form_falls_back_visibly(wrong: Any) -> None:
    """Property: a wrapper around something else raises `DataError` when asked, and never into a trace."""
    with pytest.raises(DataError):
        wrong.to_dict()
    assert "unwritable" in round_trip(wrong, altered=True)


def test_a_lazy_frame_is_not_collected() -> None:
    """Property: logging never runs somebody's query; that it has no values yet is said."""
    assert "collect" in round_trip(pl.LazyFrame({"a": [1]}), altered=True)["unwritable"]


@pytest.mark.parametrize("name", [b"outermost", b"inner_one"])
def test_a_damaged_name_of_a_column_is_an_error(name: bytes) -> None:
    """Property: a name that is no text, of a column or of what is in it, is found when the data are read, not when they are shown."""
    record = logged(pa.table({"outermost": [{"inner_one": 1}]}))[0]
    raw = from_base64(record["data"]["ipc"])
    assert name in raw
    record["data"]["ipc"] = to_base64(raw.replace(name, b"\x80" + name[1:]))
    with pytest.raises(DataError, match="cannot be read"):
        _ = load(json.dumps(record)).data


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_arrow_data_is_an_error_and_no_crash(data: st.DataObject) -> None:
    """Property: whatever bytes stand there, the answer is `DataError` or data that can be used."""
    frame = {"a": [1, None, 3], "s": ["x", "yy", None], "l": [[1], [], None]}
    value = data.draw(st.sampled_from([pa.table(frame), pa.array(frame["l"]), pl.DataFrame(frame)]))
    record = logged(value)[0]
    raw = bytearray(from_base64(record["data"]["ipc"]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(raw)))
    record["data"]["ipc"] = to_base64(bytes(raw[:cut]))
    record["data"]["form"] = data.draw(
        st.sampled_from([record["data"]["form"], "table", "array", "batch", "chunked", "frame", "series", 1])
    )
    try:
        found = load(json.dumps(record)).data
    except DataError:
        return
    repr(found)
