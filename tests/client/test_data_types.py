"""Arrays, series, frames and images come back as they were logged."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PILImage

import tailrace
from tailrace import DataError, Trace, load
from tailrace.testing import MemoryLogger

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")


def logged(value: Any, altered: bool = False) -> tuple[dict[str, Any], bytes]:
    """Log a bare value; the record as it stands in the file, and the line."""
    logger = MemoryLogger()
    Trace(logger=logger).log("r", value)
    assert logger.stats().altered == altered, logger.stats().last_problem
    (line,) = logger.raw
    assert line.count(b"\n") == 1
    return logger.lines[0], line


def round_trip(value: Any, altered: bool = False) -> Any:
    record, line = logged(value, altered)
    loaded = load(line)
    assert f"tailrace.{type(loaded).__name__}" == record["type"]
    again = load({"type": record["type"], "params": record["data"]})
    assert type(again) is type(loaded)
    return loaded.data


def assert_same_array(found: Any, array: Any) -> None:
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.flags.writeable
    if array.dtype.hasobject:
        assert repr(found.tolist()) == repr(array.tolist())
        assert [type(item) for item in found.flat] == [type(item) for item in array.flat]
    else:
        assert found.tobytes() == array.tobytes()
        if array.size and array.flags.f_contiguous and not array.flags.c_contiguous:
            assert found.flags.f_contiguous


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_array_comes_back_bit_by_bit(data: st.DataObject) -> None:
    """Property: dtype (structured, dates, strings, any byte order), shape (empty and 0-d too), order, and every bit."""
    dtype = data.draw(hnp.scalar_dtypes() | hnp.array_dtypes(max_size=3) | hnp.nested_dtypes(max_leaves=4))
    if dtype.subdtype is not None or dtype.itemsize > 2000:
        dtype = np.dtype("f4")
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    raw = data.draw(st.binary(min_size=16, max_size=16))
    count = int(np.prod(shape)) * dtype.itemsize
    # Any bits at all: NaNs with payloads, negative zeros, NaT. Text must be code points, so it stays empty.
    content = b"" if "U" in str(dtype.descr) else raw
    buffer = bytearray((content * (count // 16 + 1))[:count].ljust(count, b"\0"))
    array = np.ndarray(shape, dtype, buffer=buffer if count else None)
    if data.draw(st.booleans()):
        array = np.asfortranarray(array) if array.ndim else array
    elif array.ndim > 1 and data.draw(st.booleans()):
        array = array[::2, ::-1]
    assert_same_array(round_trip(array), array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["ü", "日本", ""], dtype="<U5"),
        np.array([b"a\x00b", b""]),
        np.array(["2026-01-01", "NaT"], dtype="M8[ns]"),
        np.array([1, 2], dtype="m8[3D]"),
        np.array([True, False]),
        np.array([[1, 2], [3, 4]], dtype=">i2", order="F"),
        np.array([1, 2], dtype=np.longdouble),
        np.zeros((3, 0, 2)),
        np.zeros(2, dtype="U0"),
        np.zeros(2, dtype={"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 24}),
        np.array(["x", None, 1, 2**70, 1.5, float("nan"), b"\xff", (1, "t"), {"k": [1]}, {1: 2}, {"$": 1}], dtype=object),
        np.array([[datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 2)], [Decimal("1.10"), timedelta(1, 2, 3)]], dtype=object),
        np.array([np.float32(1.5), np.datetime64("2026-01-01"), complex(1, float("nan")), UUID(int=7), {1, 2}], dtype=object),
        np.array([datetime(2026, 3, 29, 3, tzinfo=ZoneInfo("Europe/Brussels")), pd.Timestamp("2026-01-01", tz="UTC"), pd.NaT, pd.NA, pd.Timedelta(5)], dtype=object),
        np.array([["a", "long text " * 10], ["", "ü"]], dtype=np.dtypes.StringDType()),
    ],
    ids=lambda array: str(array.dtype)[:20],
)  # fmt: skip
def test_particular_arrays(array: Any) -> None:
    """Property: the dtypes that have a form of their own."""
    assert_same_array(round_trip(array), array)


def test_cells_of_unknown_classes_are_text_and_counted() -> None:
    """Property: an object array with a foreign object keeps the other cells, names the foreign one, and is counted."""
    found = round_trip(np.array(["kept", ZoneInfo("UTC")], dtype=object), altered=True)
    assert found.tolist() == ["kept", "zoneinfo.ZoneInfo(key='UTC')"]


FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "plain": lambda: pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], "c": ["x", "ü"]}),
    "empty": pd.DataFrame,
    "no rows": lambda: pd.DataFrame({"a": np.zeros(0, "i4")}),
    "no columns": lambda: pd.DataFrame(index=pd.Index(["x", "y"])),
    "narrow": lambda: pd.DataFrame({kind: np.arange(3).astype(kind) for kind in ("i1", "u2", "f4", "f8", "c8", "?")}),
    "objects": lambda: pd.DataFrame({"o": pd.Series([1, "x", None, [1, {"a": 2}], float("nan")], dtype=object)}),
    "categories": lambda: pd.DataFrame(
        {
            "c": pd.Categorical(["a", None, "b"], categories=["b", "a", "z"], ordered=True),
            "n": pd.Categorical([3, 1, 3]),
        }
    ),
    "times": lambda: pd.DataFrame(
        {
            "naive": pd.to_datetime(["2026-01-01", None, "1900-01-01"]),
            "s": pd.Series(["2026-01-01"] * 3, dtype="M8[s]"),
            "zone": pd.date_range("2026-03-28", periods=3, tz="Europe/Brussels"),
            "offset": pd.date_range("2026-03-28", periods=3, tz="+05:30"),
            "delta": pd.to_timedelta([1, None, 3]),
            "period": pd.period_range("2026-01", periods=3, freq="M"),
        }
    ),
    "nullable": lambda: pd.DataFrame(
        {
            "i": pd.array([1, None, 2**62 + 1], dtype="Int64"),
            "u": pd.array([1, None, 255], dtype="UInt8"),
            "f": pd.array([0.5, None, -0.0], dtype="Float64"),
            "b": pd.array([True, None, False], dtype="boolean"),
            "s": pd.array(["a", None, ""], dtype="string"),
            "p": pd.array(["a", None, ""], dtype=pd.StringDtype("python")),
        }
    ),
    "intervals": lambda: pd.DataFrame({"i": pd.interval_range(0, 3, closed="left")}),
    "multi": lambda: pd.DataFrame(
        np.arange(8).reshape(4, 2),
        index=pd.MultiIndex.from_product([["a", "b"], pd.to_datetime(["2026-01-01", "2026-01-02"])], names=["k", None]),
        columns=pd.MultiIndex.from_tuples([("x", 1), ("y", 2)]),
    ),
    "multi missing": lambda: pd.DataFrame({"v": [1, 2]}, index=pd.MultiIndex.from_arrays([["a", None], [1.5, np.nan]])),
    "time index": lambda: pd.DataFrame({"v": range(3)}, index=pd.date_range("2026-01-01", periods=3, freq="2h", name="t")),
    "zone index": lambda: pd.DataFrame({"v": range(3)}, index=pd.date_range("2026-03-28", periods=3, freq="D", tz="Europe/Brussels")),
    "category index": lambda: pd.DataFrame({"v": [1, 2]}, index=pd.CategoricalIndex(["a", "b"], name="c")),
    "float index": lambda: pd.DataFrame({"v": [1, 2]}, index=[0.5, np.nan]),
    "duplicates": lambda: pd.DataFrame([[1, "x"], [2, "y"]], columns=["a", "a"], index=[7, 7]),
    "names": lambda: pd.DataFrame([[1, 2, 3]], columns=pd.Index([1, "a", ("t", 2)], dtype=object, tupleize_cols=False)),
    "range": lambda: pd.DataFrame({"v": [1, 2]}, index=pd.RangeIndex(10, 2, -4, name="r")),
}  # fmt: skip


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES.keys())
def test_frames_and_their_columns_come_back(make: Callable[[], pd.DataFrame]) -> None:
    """Property: dtypes, index class, names, frequency, categories and every value; of each column as a Series as well."""
    frame = make()
    found = round_trip(frame)
    pd.testing.assert_frame_equal(found, frame, check_exact=True, check_freq=True, check_flags=False)
    assert type(found.index) is type(frame.index)
    assert list(map(repr, found.dtypes)) == list(map(repr, frame.dtypes))
    for position in range(frame.shape[1]):
        column = frame.iloc[:, position]
        pd.testing.assert_series_equal(round_trip(column), column, check_exact=True, check_freq=True)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(width=64) | st.none() | st.text(st.characters(codec="utf-8")) | st.integers() | st.booleans()),
    st.text(st.characters(codec="utf-8")) | st.none() | st.integers() | st.tuples(st.text(st.characters(codec="utf-8")), st.integers()),
)  # fmt: skip
def test_any_mixed_series_comes_back(values: list[Any], name: Any) -> None:
    """Property: an object Series keeps every cell and its type, and its name."""
    series = pd.Series(values, dtype=object, name=name)
    found = round_trip(series)
    assert found.dtype == object
    assert repr(found.tolist()) == repr(values)
    assert (found.name, type(found.name)) == (series.name, type(series.name))


def test_a_column_of_a_foreign_dtype_is_kept_as_objects_and_counted() -> None:
    """Property: an extension dtype without a form of its own keeps its values, loses its dtype, and is counted."""
    frame = pd.DataFrame({"a": [1, 2], "s": pd.arrays.SparseArray([0, 5])})
    found = round_trip(frame, altered=True)
    assert found["s"].tolist() == [0, 5]
    assert found["s"].dtype == object
    assert found["a"].dtype == np.int64


def gradient(mode: str, size: tuple[int, int] = (17, 5)) -> PILImage.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = PILImage.fromarray(pixels)
    if mode in ("I", "F", "I;16"):
        numbers = np.random.default_rng(3).integers(0, 65536, (size[1], size[0]))
        kinds: dict[str, Any] = {
            "I": (numbers * 1000).astype("i4"),
            "F": (numbers / 7).astype("f4"),
            "I;16": numbers.astype("u2"),
        }
        return PILImage.fromarray(kinds[mode])
    if mode == "PA":
        return PILImage.new("PA", size, (3, 100))
    if mode in ("LA", "La"):
        return image.convert("LA").convert(mode)
    if mode == "RGBa":
        return image.convert("RGBa")
    if mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        rgb = image.convert("RGB")
        return PILImage.frombytes("LAB", size, rgb.tobytes()) if mode == "LAB" else rgb.convert(mode)
    return image.convert("RGB").convert(mode) if mode != "RGBA" else image


@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "LA",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBX",
        "RGBa",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "I;16",
    ],
)
def test_images_of_every_mode_come_back(mode: str) -> None:
    """Property: mode, size, palette and every pixel are equal."""
    image = gradient(mode)
    assert image.mode == mode
    found = round_trip(image)
    assert (found.mode, found.size) == (image.mode, image.size)
    assert found.tobytes() == image.tobytes()
    assert found.getpalette() == image.getpalette()


def test_transparency_comes_back() -> None:
    """Property: what is transparent in a palette or RGB image is kept, and images without pixels are fine."""
    for transparency in (3, b"\x00\x80\xff"):
        image = gradient("P")
        image.info["transparency"] = transparency
        assert round_trip(image).info["transparency"] == transparency
    image = gradient("RGB")
    image.info["transparency"] = (1, 2, 3)
    assert round_trip(image).info["transparency"] == (1, 2, 3)
    assert round_trip(PILImage.new("RGB", (0, 3))).size == (0, 3)


def test_lossy_images_are_smaller_and_close() -> None:
    """Property: `lossy=True` stores a JPEG where it can, and stays lossless where JPEG has no such mode."""
    ramp = PILImage.linear_gradient("L").convert("RGB")
    record, line = logged(tailrace.Image(ramp, lossy=True))
    assert record["data"]["format"] == "JPEG"
    difference = np.asarray(load(line).data, dtype=int) - np.asarray(ramp, dtype=int)
    assert np.abs(difference).max() < 16
    rgba = gradient("RGBA")
    assert load(logged(tailrace.Image(rgba, lossy=True))[1]).data.tobytes() == rgba.tobytes()


@pytest.mark.parametrize(
    ("wrong", "name"), [([1], "Numpy"), ([1], "Series"), ([1], "DataFrame"), ([1], "Image"), (None, "Numpy")]
)
def test_a_wrapper_around_something_else_falls_back_visibly(wrong: Any, name: str) -> None:
    """Property: a wrapper that cannot take its data raises `DataError` when asked for its form, and never into a trace."""
    wrapper = getattr(tailrace, name)(wrong)
    with pytest.raises(DataError):
        wrapper.to_dict()
    assert "unwritable" in load(logged(wrapper, altered=True)[1]).data


ARRAY = {"dtype": "<f8", "shape": [2], "order": "C", "data": "AAAAAAAAAAAAAAAAAAAAAA=="}
RANGE = {"range": [0, 2, 1], "name": None}


@pytest.mark.parametrize(
    "described",
    [
        "not json",
        b"\xff",
        "[1]",
        "[" * 100_000,
        {},
        {"type": "tailrace.Numpy"},
        {"type": "tailrace.Numpy", "params": []},
        {"type": 3, "params": {}},
        {"type": "builtins.eval", "params": "1"},
        {"type": "tailrace.Native", "params": {}},
        *(
            {"type": "tailrace.Numpy", "params": {**ARRAY, **wrong}}
            for wrong in (
                {"shape": [3]},
                {"shape": [10**18]},
                {"shape": [2**61, 2**61]},
                {"shape": [-2]},
                {"shape": [2.0]},
                {"shape": "2"},
                {"shape": [True, 2]},
                {"shape": [1] * 65},
                {"shape": [1] * 64 + [2]},
                {"dtype": "O"},
                {"dtype": "|O8"},
                {"dtype": [["a", "O"]]},
                {"dtype": [["a", "<f8", [10**12]]]},
                {"dtype": [["a"]]},
                {"dtype": "f8,f8"},
                {"dtype": "(2,)f8"},
                {"dtype": "nonsense"},
                {"dtype": None},
                {"dtype": "U0", "shape": [10**12], "data": ""},
                {"order": "K"},
                {"data": "AAAA"},
                {"data": "not base64"},
                {"data": None},
                {"dtype": "object"},
                {"dtype": "object", "values": [1]},
                {"dtype": "object", "values": [1, {"$": "eval", "v": "1"}]},
                {"dtype": "object", "values": [1, {"$": "numpy", "v": ["O", "AAAAAAAAAAA="]}]},
                {"dtype": "object", "values": [1, {"$": "dict", "v": [[[], 1]]}]},
                {"dtype": "object", "values": [1, {"$": "datetime", "v": "yesterday"}]},
            )
        ),
        {"type": "tailrace.Series", "params": {"index": RANGE, "column": {**ARRAY, "shape": [1, 2]}}},
        {"type": "tailrace.Series", "params": {"index": {"range": [0, 3, 1]}, "column": ARRAY}},
        {"type": "tailrace.Series", "params": {"index": {"range": [0, 3, 0]}, "column": ARRAY}},
        {"type": "tailrace.Series", "params": {"index": RANGE, "column": ARRAY, "name": [1]}},
        {"type": "tailrace.Series", "params": {"column": ARRAY}},
        {"type": "tailrace.DataFrame", "params": {"index": RANGE, "columns": RANGE, "data": [ARRAY]}},
        {"type": "tailrace.DataFrame", "params": {"index": RANGE, "columns": RANGE, "data": ARRAY}},
        {"type": "tailrace.DataFrame", "params": {"index": {"levels": [RANGE], "codes": [ARRAY], "names": []}, "columns": RANGE, "data": []}},
        {"type": "tailrace.Series", "params": {"index": RANGE, "column": {"dtype": "category", "codes": ARRAY, "categories": RANGE}}},
        {"type": "tailrace.Series", "params": {"index": RANGE, "column": {"dtype": "masked", "data": ARRAY, "mask": ARRAY}}},
        {"type": "tailrace.Series", "params": {"index": RANGE, "column": {"dtype": "datetimetz", "data": ARRAY, "tz": "../../etc/passwd"}}},
        {"type": "tailrace.Image", "params": {"format": "PNG", "mode": "RGB", "size": [1, 1], "data": "AAAA"}},
        {"type": "tailrace.Image", "params": {"format": "raw", "mode": "RGB", "size": [2**30, 2**30], "data": "eJwDAAAAAAE="}},
        {"type": "tailrace.Image", "params": {"format": "raw", "mode": "XYZ", "size": [1, 1], "data": "eJwDAAAAAAE="}},
        {"type": "tailrace.Image", "params": {"format": "GIF", "mode": "P", "size": [1, 1], "data": ""}},
        {"type": "tailrace.Image", "params": {"format": "PNG", "mode": "L", "size": [1], "data": ""}},
    ],
    ids=lambda described: str(described)[:60],
)  # fmt: skip
def test_malformed_objects_raise_data_error(described: Any) -> None:
    """Property: whatever is stored, `load` returns a wrapper or raises `DataError` with a text; nothing else."""
    with pytest.raises(DataError, match=r"\w"):
        load(described)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_damaged_objects_never_raise_anything_else(name: str, data: st.DataObject) -> None:
    """Property: replace any part of a stored frame with any JSON: it loads, or it is a `DataError`."""
    stored = json.loads(json.dumps(tailrace.DataFrame(FRAMES[name]()).to_dict()))
    part: Any = stored["params"]
    for _ in range(data.draw(st.integers(0, 4))):
        children = sorted(part) if isinstance(part, dict) else list(range(len(part)))
        key = data.draw(st.sampled_from(children)) if children else None
        if key is None or not isinstance(part[key], dict | list):
            break
        part = part[key]
    children = sorted(part) if isinstance(part, dict) else list(range(len(part)))
    if children:
        junk = (
            st.none()
            | st.integers(-5, 5)
            | st.just("<i8")
            | st.just("")
            | st.just([])
            | st.just({})
            | st.just([1, "x"])
        )
        part[data.draw(st.sampled_from(children))] = data.draw(junk)
    try:
        load(stored)
    except DataError as exc:
        assert str(exc)
