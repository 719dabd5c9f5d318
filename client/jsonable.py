"""Any Python value as JSON, on one line, without ever raising.

Three ways, tried in this order: orjson (nearly always); the standard encoder, when the value holds NaN or
infinities, for which orjson writes null; and a walk over the value, for what both refuse: circular or very
deep structures, lone surrogates, keys that are not strings, integers over 64 bit, unknown classes.

What JSON has no form for is written as something that a person can read, and the caller is told
(`altered`), so that it can be counted:

    NaN, Infinity, -Infinity    these tokens (they are not JSON, but the ingestor reads them inside `data`)
    int over 64 bit             its digits; over 4,000 digits: hexadecimal text, altered
    tuple, set, deque           list
    key None, bool, number      its JSON text; any other key: `str()` of it, altered
    numpy scalar, array         number, nested list
    wrapper, frame, image, …    {"type": …, "params": …} as for an object of its own
    Decimal, Path, UUID, dates  text
    bytes                       text, undecodable bytes as \\xNN, altered
    lone surrogate              \\udcNN as six characters, altered
    a container in itself       "<circular>", altered;  below 200 levels: "<too deep>", altered
    anything else               its `repr`, at most 2,000 characters, altered
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any

import orjson

_MAX_DEPTH = 200
_MAX_REPR = 2_000
_MAX_INT_BITS = 13_000  # below the 4,300 digits at which int → str raises


def encode(value: Any, *, tokens: bool = True) -> tuple[bytes, bool]:
    """JSON of a value, and whether something had to be altered. Never raises, never holds a newline.

    Args:
        value: Anything.
        tokens: Write NaN and infinities as tokens; otherwise as the strings `"NaN"`, `"Infinity"`, `"-Infinity"`.
    """
    try:
        leaves = _Leaves()
        encoded = orjson.dumps(value, leaves.for_orjson)
        altered = leaves.altered
        if b"null" in encoded and _has_null(encoded):
            # A null may stand for a number that JSON does not have.
            leaves = _Leaves()
            text = json.dumps(value, default=leaves.for_walk, separators=(",", ":"), ensure_ascii=False)
            if "NaN" in text or "Infinity" in text:
                if not tokens:
                    return _walk(value, tokens)
                encoded, altered = text.encode(), leaves.altered
        # Only a fragment that the service encoded itself can hold a newline; between tokens it means a space.
        return (encoded.replace(b"\n", b" ") if b"\n" in encoded else encoded), altered
    except Exception:
        return _walk(value, tokens)


def _has_null(encoded: bytes) -> bool:
    """Whether compact JSON may hold a null: long base64 has these four letters by chance, but not after such a mark."""
    return encoded == b"null" or b":null" in encoded or b",null" in encoded or b"[null" in encoded


def encode_text(text: Any) -> tuple[bytes, bool]:
    """JSON string of a text, or of `str()` of anything else, and whether something had to be altered."""
    try:
        return orjson.dumps(text if type(text) is str else str(text)), False
    except Exception:
        walk = _Walk(tokens=False)
        # Not `isinstance`: a class may lie about itself, or raise.
        clean = walk.text(text if issubclass(type(text), str) else walk.describe(text, str))
        return orjson.dumps(clean), True


def _walk(value: Any, tokens: bool) -> tuple[bytes, bool]:
    walk = _Walk(tokens)
    try:
        plain = walk.plain(value, 0)
        return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode(), walk.altered
    except Exception:  # a class whose own methods fail in every way
        return orjson.dumps(f"<{type(value).__name__} that cannot be written>"), True


class _Leaves:
    """What to write for an object that an encoder does not know."""

    def __init__(self) -> None:
        self.altered = False

    def for_orjson(self, value: Any) -> Any:
        """The replacement, where arrays may be left to orjson, which writes them natively."""
        if isinstance_of(value, "numpy", "ndarray") and value.dtype.kind in "biuf" and value.ndim:
            numpy = sys.modules["numpy"]
            array = numpy.ascontiguousarray(value)
            return orjson.Fragment(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))
        return self.for_walk(value)

    def for_walk(self, value: Any) -> Any:
        """The replacement, made of what the standard encoder knows."""
        module = type(value).__module__.partition(".")[0]
        if isinstance(value, float):
            return float(value)
        if isinstance(value, tuple | set | frozenset | deque):
            return list(value)
        if module == "numpy" and hasattr(value, "tolist"):
            return self._numpy(value)
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, bytes | bytearray | memoryview):
            self.altered = True
            return bytes(value).decode("utf-8", "backslashreplace")
        return self._known_class(value, module)

    def _numpy(self, value: Any) -> Any:
        if value.dtype.kind in "mMc":
            return str(value) if not value.ndim else [self._numpy(item) for item in value]
        if value.dtype.kind == "V":
            self.altered = True
            return self.describe(value)
        if value.dtype.kind == "f" and value.dtype.itemsize > 8:  # its own item() is of the same class
            self.altered = True
            return value.astype("f8").tolist()
        return value.tolist()

    def _known_class(self, value: Any, module: str) -> Any:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, datetime | date | time):
            return value.isoformat() if value == value else str(value)
        if isinstance(value, timedelta):
            return str(value)
        if module in ("decimal", "fractions", "pathlib", "uuid", "ipaddress"):
            return str(value)
        if hasattr(type(value), "__dataclass_fields__"):
            return {name: getattr(value, name) for name in type(value).__dataclass_fields__ if name[0] != "_"}
        if module in ("pandas", "PIL", "pyarrow") or hasattr(type(value), "to_dict"):
            from tailrace.types import Native, wrap

            wrapper = wrap(value)
            if wrapper is value or type(wrapper) is not Native:
                return wrapper.to_dict()
        self.altered = True
        return self.describe(value)

    @staticmethod
    def describe(value: Any, how: Any = repr) -> str:
        """A text for people, whatever the class does."""
        try:
            text = how(value)
            return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}… ({len(text)} characters)"
        except Exception:
            return f"<{type(value).__name__} that cannot be printed>"


class _Walk(_Leaves):
    """Rebuilds a value from nothing but what JSON has (and, if wanted, non-finite floats)."""

    def __init__(self, tokens: bool) -> None:
        super().__init__()
        self._tokens = tokens
        self._inside: set[int] = set()

    def plain(self, value: Any, depth: int) -> Any:
        """The value, rebuilt; a part that fails in every way is named, and the rest is kept."""
        try:
            return self._plain(value, depth)
        except Exception:
            self.altered = True
            return self.describe(value)

    def _plain(self, value: Any, depth: int) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return self._integer(int(value))
        if isinstance(value, float):
            return self._float(float(value))
        if id(value) in self._inside or depth >= _MAX_DEPTH:
            self.altered = True
            return "<circular>" if id(value) in self._inside else "<too deep>"
        self._inside.add(id(value))
        try:
            return self._compound(value, depth + 1)
        finally:
            self._inside.discard(id(value))

    def _compound(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            rebuilt: dict[str, Any] = {}
            for key, item in list(value.items()):
                rebuilt[self._key(key, rebuilt)] = self.plain(item, depth)
            return rebuilt
        if isinstance(value, list | tuple | set | frozenset | deque):
            return [self.plain(item, depth) for item in list(value)]
        if isinstance(value, orjson.Fragment):
            return self.plain(orjson.loads(orjson.dumps(value)), depth)
        try:
            leaf = self.for_walk(value)
        except Exception:
            self.altered = True
            leaf = self.describe(value)
        return self.plain(leaf, depth)

    def text(self, text: str) -> str:
        """A string that UTF-8 can hold."""
        text = str.__str__(text)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.altered = True
            return text.encode("utf-8", "backslashreplace").decode()
        return text

    def _integer(self, number: int) -> int | str:
        if number.bit_length() <= _MAX_INT_BITS:
            return number
        self.altered = True
        return hex(number)

    def _float(self, number: float) -> float | str:
        if self._tokens or number - number == 0:
            return number
        return non_finite_text(number)

    def _key(self, key: Any, taken: dict[str, Any]) -> str:
        if isinstance(key, str):
            name = self.text(key)
        elif key is None or isinstance(key, bool):
            name = {None: "null", True: "true", False: "false"}[key]
        elif isinstance(key, int | float):
            plain = self.plain(key, 0)
            name = plain if isinstance(plain, str) else repr(plain)
        else:
            self.altered = True
            name = self.text(self.describe(key, str))
        while name in taken:  # 1 and "1": keep both, visibly
            self.altered = True
            name += "_"
        return name


def isinstance_of(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a package that may not be installed; imports nothing."""
    return any(
        cls.__name__ == name and cls.__module__.partition(".")[0] == module for cls in type(value).__mro__
    )


def non_finite_text(number: float) -> str:
    """`NaN`, `Infinity` or `-Infinity`."""
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
