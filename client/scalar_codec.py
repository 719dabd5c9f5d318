"""Single Python values as JSON and back, of the same type: the cells of object arrays and columns, and names.

What JSON has is written as it is: None, booleans, finite floats, strings, lists, dicts with string keys.
Everything else is an object with the key `$`, which names the type, and `v`:

    {"$":"float","v":"nan"|"inf"|"-inf"}    {"$":"int","v":"0x7b…"}          {"$":"complex","v":["1.0","nan"]}
    {"$":"tuple","v":[…]}                   {"$":"set","v":[…]}              {"$":"dict","v":[[key,value],…]}
    {"$":"bytes","v":base64}                {"$":"decimal","v":"1.10"}       {"$":"uuid","v":"…"}
    {"$":"datetime","v":ISO,"zone"?,"fold"?} {"$":"date","v":ISO}            {"$":"time","v":ISO}
    {"$":"timedelta","v":[days,seconds,microseconds]}                        {"$":"numpy","v":[dtype,base64]}
    {"$":"Timestamp","v":[dtype,base64],"tz"?}  {"$":"Timedelta","v":[dtype,base64]}  {"$":"NaT"}  {"$":"NA"}
    {"$":"repr","v":text}    a value of any other class: reads back as this text

A NaN with other bits than Python's own is `nan:` and its bits in hexadecimal.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from struct import error as StructError
from struct import pack, unpack
from typing import Any
from uuid import UUID

from tailrace.jsonable import isinstance_of
from tailrace.schemas.errors import DataError

_MAX_DEPTH = 60
_MAX_REPR = 2_000
_NAN_BITS = pack(">d", float("nan"))
_SMALL = 2**53  # above it, a reader whose numbers are doubles would round


def to_base64(raw: bytes | memoryview) -> str:
    """Bytes as base64 on one line."""
    return b2a_base64(raw, newline=False).decode("ascii")


def from_base64(text: Any) -> bytes:
    """The bytes of a base64 text.

    Raises:
        DataError: It is not one.
    """
    if not isinstance(text, str):
        raise DataError(f"expected base64 text, found {type(text).__name__}")
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError as exc:
        raise DataError(f"broken base64: {exc}") from exc


class Scalars:
    """Encodes values and counts those that lose their type (`altered`)."""

    def __init__(self) -> None:
        self.altered = 0

    def encode(self, value: Any, depth: int = 0) -> Any:
        """The JSON form of a value. Never raises for a class it does not know: the text of it is written."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -_SMALL <= value <= _SMALL else {"$": "int", "v": hex(value)}
        if kind is float:
            return value if value - value == 0 else {"$": "float", "v": _float_text(value)}
        if depth >= _MAX_DEPTH:
            return self._text(value)
        if kind is list:
            return [self.encode(item, depth + 1) for item in value]
        if kind is dict:
            return self._dict(value, depth + 1)
        return self._rare(value, kind, depth + 1)

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        if "$" not in value and all(type(key) is str for key in value):
            return {key: self.encode(item, depth) for key, item in value.items()}
        pairs = [[self.encode(key, depth), self.encode(item, depth)] for key, item in value.items()]
        return {"$": "dict", "v": pairs}

    def _rare(self, value: Any, kind: type, depth: int) -> Any:
        if kind is tuple or kind is set:
            return {"$": kind.__name__, "v": [self.encode(item, depth) for item in value]}
        if kind is bytes:
            return {"$": "bytes", "v": to_base64(value)}
        if kind is complex:
            return {"$": "complex", "v": [_float_text(value.real), _float_text(value.imag)]}
        if kind is Decimal or kind is UUID:
            return {"$": kind.__name__.lower(), "v": str(value)}
        if kind is date or (kind is time and value.tzinfo is None):
            return {"$": kind.__name__, "v": value.isoformat()}
        if kind is timedelta:
            return {"$": "timedelta", "v": [value.days, value.seconds, value.microseconds]}
        if kind is datetime:
            return self._datetime(value)
        if isinstance_of(value, "numpy", "generic"):
            return self._numpy(value)
        if kind.__module__.partition(".")[0] == "pandas":
            return self._pandas(value, kind)
        return self._text(value)

    def _datetime(self, value: datetime) -> Any:
        if value.tzinfo is None or type(value.tzinfo) is timezone:
            encoded: dict[str, Any] = {"$": "datetime", "v": value.isoformat()}
        elif getattr(value.tzinfo, "key", None):
            naive = value.replace(tzinfo=None, fold=0)
            encoded = {"$": "datetime", "v": naive.isoformat(), "zone": value.tzinfo.key}  # type: ignore[attr-defined]
        else:
            return self._text(value)
        return {**encoded, "fold": 1} if value.fold else encoded

    def _numpy(self, value: Any) -> Any:
        if value.dtype.hasobject or value.dtype.names:
            return self._text(value)
        return {"$": "numpy", "v": [value.dtype.str, to_base64(value.tobytes())]}

    def _pandas(self, value: Any, kind: type) -> Any:
        if kind.__name__ == "NaTType":
            return {"$": "NaT"}
        if kind.__name__ == "NAType":
            return {"$": "NA"}
        if kind.__name__ == "Timedelta":
            return {"$": "Timedelta", "v": self._numpy(value.asm8)["v"]}
        if kind.__name__ == "Timestamp":
            encoded: dict[str, Any] = {"$": "Timestamp", "v": self._numpy(value.asm8)["v"]}
            if value.tzinfo is None:
                return encoded
            zone = zone_name(value.tzinfo)
            if zone is not None:
                return {**encoded, "tz": zone}
        return self._text(value)

    def _text(self, value: Any) -> Any:
        self.altered += 1
        try:
            return {"$": "repr", "v": repr(value)[:_MAX_REPR]}
        except Exception:
            return {"$": "repr", "v": f"<{type(value).__name__}>"}


def _float_text(value: float) -> str:
    bits = pack(">d", value)
    return f"nan:{bits.hex()}" if value != value and bits != _NAN_BITS else repr(value)


def _read_float(text: str) -> float:
    if not text.startswith("nan:"):
        return float(text)
    value: float = unpack(">d", bytes.fromhex(text.removeprefix("nan:")))[0]
    return value


def decode(encoded: Any) -> Any:
    """The value of a JSON form.

    Raises:
        DataError: It is not one.
    """
    if isinstance(encoded, list):
        return [decode(item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if "$" not in encoded:
        return {key: decode(item) for key, item in encoded.items()}
    kind, value = encoded["$"], encoded.get("v")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise DataError(f"unknown kind of value {kind!r:.100}")
    try:
        return reader(value, encoded)
    except DataError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, StructError) as exc:
        raise DataError(f"{value!r:.100} is not a {kind}: {exc}") from exc


def _read_datetime(value: Any, encoded: dict[str, Any]) -> datetime:
    moment = datetime.fromisoformat(value)
    if "zone" in encoded:
        from zoneinfo import ZoneInfo

        moment = moment.replace(tzinfo=ZoneInfo(encoded["zone"]))
    return moment.replace(fold=1) if encoded.get("fold") == 1 else moment


def _read_numpy(value: Any, _: Any) -> Any:
    import numpy

    from tailrace.array_codec import simple_dtype

    dtype, raw = simple_dtype(value[0]), from_base64(value[1])
    if len(raw) != dtype.itemsize:
        raise DataError(f"a {dtype} takes {dtype.itemsize} bytes, found {len(raw)}")
    return numpy.ndarray((), dtype, buffer=bytearray(raw))[()] if raw else dtype.type()


def _read_timestamp(value: Any, encoded: dict[str, Any]) -> Any:
    import pandas

    moment = pandas.Timestamp(_read_numpy(value, None))
    return moment.tz_localize("UTC").tz_convert(zone_of(encoded["tz"])) if "tz" in encoded else moment


def _read_timedelta(value: Any, _: Any) -> Any:
    import pandas

    return pandas.Timedelta(_read_numpy(value, None))


def _read_missing(name: str) -> Any:
    import pandas

    return getattr(pandas, name)


_READERS: dict[str, Any] = {
    "float": lambda v, _: _read_float(v),
    "int": lambda v, _: int(v, 16),
    "complex": lambda v, _: complex(_read_float(v[0]), _read_float(v[1])),
    "tuple": lambda v, _: tuple(decode(v)),
    "set": lambda v, _: set(decode(v)),
    "dict": lambda v, _: {decode(key): decode(item) for key, item in v},
    "bytes": lambda v, _: from_base64(v),
    "decimal": lambda v, _: Decimal(v),
    "uuid": lambda v, _: UUID(v),
    "datetime": _read_datetime,
    "date": lambda v, _: date.fromisoformat(v),
    "time": lambda v, _: time.fromisoformat(v),
    "timedelta": lambda v, _: timedelta(*v),
    "numpy": _read_numpy,
    "Timestamp": _read_timestamp,
    "Timedelta": _read_timedelta,
    "NaT": lambda v, _: _read_missing("NaT"),
    "NA": lambda v, _: _read_missing("NA"),
    "repr": lambda v, _: v,
}


def zone_name(zone: Any) -> str | None:
    """A name from which `zone_of` makes the same time zone, or None if there is none."""
    key = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(key, str):
        return key
    if type(zone) is timezone:
        return "offset:" + repr(zone.utcoffset(None).total_seconds())
    return None


def zone_of(name: Any) -> Any:
    """The time zone of a name.

    Raises:
        DataError: This machine does not know it.
    """
    if not isinstance(name, str):
        raise DataError(f"the name of a time zone must be text, not {name!r:.100}")
    try:
        if name.startswith("offset:"):
            return timezone(timedelta(seconds=float(name.removeprefix("offset:"))))
        from zoneinfo import ZoneInfo

        return ZoneInfo(name)
    except (ValueError, KeyError, OSError) as exc:
        raise DataError(f"unknown time zone {name!r:.100}") from exc
