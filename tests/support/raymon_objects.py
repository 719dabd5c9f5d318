"""The data objects that the raymon corpus holds, by reference.

Imported by raymon's interpreter, which logs them, and by the tests, which compare what they read with them; so this
needs numpy, pandas and Pillow, and nothing of either library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

NATIVE = {
    "foo": "bar",
    "whatever": ["you", "want"],
    "all_native_types": 1,
    "nested": {"deep": [None, True, 1.5, "naïve – 日本語 \U0001f600"]},
    "escapes": 'quote " backslash \\ newline \n tab \t',
}


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of every dtype that raymon can log."""
    floats = np.linspace(-1, 1, 24, dtype=np.float64).reshape(2, 3, 4)
    floats[0, 0, 0], floats[1, 2, 3], floats[1, 0, 0] = np.nan, np.inf, -np.inf
    return {
        "numpy-ref": np.array([[1, 2], [3, 4]]),
        "numpy-floats": floats,
        "numpy-float32": np.arange(5, dtype=np.float32) / 3,
        "numpy-bool": np.array([True, False, True]),
        "numpy-uint8": np.arange(256, dtype=np.uint8).reshape(16, 16),
        "numpy-big-endian": np.arange(4, dtype=">i4"),
        "numpy-complex": np.array([1 + 2j, np.nan * 1j]),
        "numpy-structured": np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
        "numpy-empty": np.zeros((0, 3)),
        "numpy-scalar": np.array(3.25),
    }


def frames() -> dict[str, pd.DataFrame]:
    """Frames that survive the JSON that raymon makes of them."""
    return {
        "pandas-ref": pd.DataFrame(np.array([[1, 2], [3, 4]]), columns=["a", "b"]),
        "pandas-mixed": pd.DataFrame(
            {
                "n": [1, 2, 3],
                "x": [0.5, np.nan, -2.25],
                "s": ["alpha", "007", "ünï"],
                "ok": [True, False, True],
            },
            index=[10, 20, 30],
        ),
        "pandas-labels": pd.DataFrame({"v": [1.5, 2.5]}, index=["first", "second"]),
    }


def series() -> dict[str, pd.Series[Any]]:
    """Series without a name (raymon does not keep it)."""
    return {
        "series-ref": pd.Series([1, 1_600_000_000, 3]),
        "series-nan": pd.Series([1.5, np.nan, 2.25], index=["a", "b", "c"]),
        "series-text": pd.Series(["x", "12", "z"]),
    }


def image() -> Image.Image:
    """A small RGB image with smooth colours, of which JPEG loses little."""
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return Image.fromarray(
        np.dstack([np.tile(ramp, (48, 1)), np.full((48, 64), 90, np.uint8), ramp[None, ::-1].repeat(48, 0)])
    )


def objects() -> dict[str, Any]:
    """All of them: `image-lossless` is equal after loading, `image-ref` went through JPEG."""
    return {
        "native-ref": NATIVE,
        "native-nan": {"missing": float("nan"), "above": float("inf")},
        **arrays(),
        **frames(),
        **series(),
        "image-ref": image(),
        "image-lossless": image(),
    }


def assert_same(ref: str, loaded: Any, logged: Any) -> None:
    """A loaded object is the one that was logged, to the bit; an image that went through JPEG nearly."""
    if isinstance(logged, np.ndarray):
        assert loaded.dtype == logged.dtype
        assert loaded.shape == logged.shape
        assert loaded.tobytes() == logged.tobytes()
    elif isinstance(logged, pd.DataFrame):
        pd.testing.assert_frame_equal(loaded, logged)
    elif isinstance(logged, pd.Series):
        pd.testing.assert_series_equal(loaded, logged)
    elif isinstance(logged, Image.Image):
        assert (loaded.mode, loaded.size) == (logged.mode, logged.size)
        difference = np.abs(np.asarray(loaded, dtype=int) - np.asarray(logged, dtype=int))
        assert difference.max() <= (0 if ref == "image-lossless" else 16)
    else:
        assert repr(loaded) == repr(logged)  # NaN is not equal to itself
