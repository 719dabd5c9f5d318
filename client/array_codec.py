"""Numpy arrays as JSON and back, bit by bit: dtype, byte order, shape, memory order and every NaN.

    {"dtype":"<f8","shape":[2,3],"order":"C","data":base64 of the elements in memory order}
    {"dtype":[["a","<i4"],["b","<f8",[3]]],…}                 a structured dtype, as numpy's own file format has it
    {"dtype":"object","shape":[2],"values":[…]}               elements as in `scalar_codec`, in C order
    {"dtype":"string","shape":[2],"values":[…],"na"?:…}       numpy's StringDType

Refused: masked arrays, and structured dtypes with Python objects in them. Subclasses of ndarray are stored as
plain arrays. Reading never unpickles, and allocates no more than the bytes that are there.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from tailrace.scalar_codec import Scalars, decode, from_base64, to_base64
from tailrace.schemas.errors import DataError

if TYPE_CHECKING:
    import numpy

_MAX_EMPTY_ELEMENTS = 1 << 20
"""How many elements of zero bytes an array may claim: no data vouches for their number."""


def encode_array(array: Any, scalars: Scalars) -> dict[str, Any]:
    """The JSON form of an array.

    Args:
        array: A numpy array.
        scalars: Encodes, and counts, the elements of an object array.

    Raises:
        DataError: It is not an array, or is one of those that are refused.
    """
    import numpy

    if not isinstance(array, numpy.ndarray):
        raise DataError(f"Numpy takes a numpy array, not {type(array).__name__}")
    if isinstance(array, numpy.ma.MaskedArray):
        raise DataError("a masked array has no faithful form: log its data and its mask as two objects")
    array = numpy.asarray(array)
    dtype = array.dtype
    shape = list(array.shape)
    if dtype.kind == "O":
        return {"dtype": "object", "shape": shape, "values": [scalars.encode(item) for item in array.flat]}
    if dtype.kind == "T":
        encoded = {"dtype": "string", "shape": shape, "values": [scalars.encode(item) for item in array.flat]}
        return {**encoded, "na": scalars.encode(dtype.na_object)} if hasattr(dtype, "na_object") else encoded
    if dtype.hasobject:
        raise DataError(f"an array of {dtype} holds Python objects inside a structure")
    described = numpy.lib.format.dtype_to_descr(dtype)
    if read_dtype(described) != dtype:
        raise DataError(f"the dtype {dtype} has no faithful description")
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return {
        "dtype": described,
        "shape": shape,
        "order": order,
        "data": to_base64(array.tobytes("F" if order == "F" else "C")),
    }


def decode_array(encoded: Any) -> numpy.ndarray[Any, Any]:
    """The array of a JSON form, writable.

    Raises:
        DataError: It is not one, or its bytes are more or fewer than its shape needs.
    """
    import numpy

    if not isinstance(encoded, dict):
        raise DataError(f"an array must be an object, not {type(encoded).__name__}")
    described = encoded.get("dtype")
    shape = read_shape(encoded.get("shape"))
    if described == "object" or described == "string":
        values = encoded.get("values")
        if not isinstance(values, list) or len(values) != prod(shape):
            raise DataError(f"an array of shape {shape} needs a list of {prod(shape)} values")
        flat: Any = numpy.empty(len(values), dtype=object)
        for position, value in enumerate(values):
            flat[position] = decode(value)
        if described == "string":
            na = {"na_object": decode(encoded["na"])} if "na" in encoded else {}
            flat = flat.astype(numpy.dtypes.StringDType(**na))  # type: ignore[attr-defined,unused-ignore]
        return flat.reshape(shape)  # type: ignore[no-any-return]
    dtype = read_dtype(described)
    order = encoded.get("order", "C")
    if order not in ("C", "F"):
        raise DataError(f"the order of an array is C or F, not {order!r:.100}")
    return array_of_bytes(from_base64(encoded.get("data")), dtype, shape, order)


def array_of_bytes(raw: bytes, dtype: Any, shape: tuple[int, ...], order: Any) -> numpy.ndarray[Any, Any]:
    """An array over a copy of exactly the bytes that it needs.

    Raises:
        DataError: There are more or fewer, or numpy cannot make such an array.
    """
    import numpy

    needed = prod(shape) * dtype.itemsize
    if len(raw) != needed:
        raise DataError(f"shape {shape} of {dtype} needs {needed} bytes, found {len(raw)}")
    if dtype.itemsize == 0 and prod(shape) > _MAX_EMPTY_ELEMENTS:
        raise DataError(f"an array of {prod(shape)} elements without a byte is not read")
    try:
        if not raw:
            return numpy.zeros(shape, dtype, order)
        return numpy.ndarray(shape, dtype, buffer=bytearray(raw), order=order)
    except (ValueError, TypeError, MemoryError) as exc:
        raise DataError(f"shape {shape} of {dtype}: {exc}") from exc


def read_shape(described: Any) -> tuple[int, ...]:
    """A shape from a list of lengths.

    Raises:
        DataError: It is not a list of at most 64 numbers that are not negative.
    """
    if not isinstance(described, list | tuple) or len(described) > 64:
        raise DataError(f"a shape must be a list of lengths, not {described!r:.100}")
    if not all(type(length) is int and 0 <= length < 2**62 for length in described):
        raise DataError(f"a shape must be a list of lengths, not {described!r:.100}")
    return tuple(described)


def simple_dtype(described: Any) -> numpy.dtype[Any]:
    """A dtype without fields from its text, for example `<f8` or `<M8[ns]`.

    Raises:
        DataError: It is not the text of one, or one that holds Python objects.
    """
    import numpy

    if not isinstance(described, str) or not described or len(described) > 40 or "," in described:
        raise DataError(f"{described!r:.100} is not a dtype")
    try:
        dtype: numpy.dtype[Any] = numpy.dtype(described)
    except (TypeError, ValueError, SyntaxError) as exc:
        raise DataError(f"{described!r:.100} is not a dtype: {exc}") from exc
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise DataError(f"{described!r:.100} is not the dtype of a plain array")
    return dtype


def read_dtype(described: Any) -> numpy.dtype[Any]:
    """A dtype from its text, or from the list of its fields.

    Raises:
        DataError: It is not the description of one, or one that holds Python objects.
    """
    import numpy

    if not isinstance(described, list):
        return simple_dtype(described)
    try:
        # numpy has no type information for what this function takes.
        dtype: numpy.dtype[Any] = numpy.lib.format.descr_to_dtype(_fields(described, 0))
    except DataError:
        raise
    except (TypeError, ValueError, LookupError, MemoryError) as exc:
        raise DataError(f"the fields {described!r:.200} are not a dtype: {exc}") from exc
    if dtype.hasobject:
        raise DataError("a structured dtype with Python objects is not read")
    return dtype


def _fields(described: Any, depth: int) -> list[tuple[Any, ...]]:
    """The list form that numpy takes, of which JSON has turned the tuples into lists."""
    if depth > 20:
        raise DataError("a structured dtype is nested deeper than 20 levels")
    fields = []
    for field in described:
        if not isinstance(field, list | tuple) or len(field) not in (2, 3):
            raise DataError(f"{field!r:.100} is not a field of a dtype")
        name, kind, *shape = field
        if isinstance(name, list | tuple):
            name = tuple(name)
        kind = _fields(kind, depth + 1) if isinstance(kind, list) else simple_dtype(kind).str
        fields.append((name, kind, *(read_shape(lengths) for lengths in shape)))
    return fields
