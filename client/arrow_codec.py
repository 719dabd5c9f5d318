"""Arrow and Polars data as JSON and back, in Arrow's own streaming format.

    {"form":"table"|"batch"|"array"|"chunked","ipc":base64}     pyarrow Table, RecordBatch, Array, ChunkedArray
    {"form":"frame"|"series","ipc":base64}                      polars DataFrame, Series

Values, types, nulls, dictionaries, field and schema metadata come back; NaN keeps its bits. The buffers are compressed
with zstd where that is built in. Of a Table whose columns are cut into chunks differently, the cuts are
not kept, nor are bytes of the buffers that no value refers to. Each library reads what it wrote: some types of either have no equal in
the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from tailrace.scalar_codec import from_base64, to_base64
from tailrace.schemas.errors import DataError

if TYPE_CHECKING:
    import polars


def encode_arrow(data: Any) -> dict[str, Any]:
    """The JSON form of Arrow data.

    Raises:
        DataError: It is none, or of a type that the streaming format does not have.
    """
    import pyarrow as pa

    if isinstance(data, pa.Table):
        form, schema, batches = "table", data.schema, data.to_batches()
    elif isinstance(data, pa.RecordBatch):
        form, schema, batches = "batch", data.schema, [data]
    elif isinstance(data, pa.ChunkedArray):
        form, schema = "chunked", pa.schema([("", data.type)])
        batches = [pa.record_batch([chunk], schema=schema) for chunk in data.chunks]
    elif isinstance(data, pa.Array):
        form, schema = "array", pa.schema([("", data.type)])
        batches = [pa.record_batch([data], schema=schema)]
    else:
        raise DataError(
            f"Arrow takes a pyarrow Table, RecordBatch, Array or ChunkedArray, not {type(data).__name__}"
        )
    sink = pa.BufferOutputStream()
    codec = "zstd" if pa.Codec.is_available("zstd") else None
    try:
        with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
            for batch in batches:
                stream.write_batch(batch)
    except (pa.ArrowException, NotImplementedError) as exc:
        raise DataError(f"Arrow data of this type cannot be written: {exc}") from exc
    return {"form": form, "ipc": to_base64(memoryview(sink.getvalue()))}


def decode_arrow(encoded: Any) -> Any:
    """The Table, RecordBatch, Array or ChunkedArray of a JSON form.

    Raises:
        DataError: It is not one, or its buffers contradict each other.
    """
    import pyarrow as pa

    form, raw = _parts(encoded, ("table", "batch", "array", "chunked"))
    try:
        stream = pa.ipc.open_stream(raw)
        _read_names(stream.schema)
        batches = list(stream)
        for batch in batches:
            batch.validate(full=True)  # buffers are read without a check, and then may point anywhere
    except (pa.ArrowException, OSError, ValueError, EOFError) as exc:
        raise DataError(f"the Arrow data cannot be read: {exc}") from exc
    if form == "table":
        return pa.Table.from_batches(batches, stream.schema)
    if form != "chunked" and len(batches) != 1:
        raise DataError(f"one {form} was stored, but {len(batches)} are there")
    if form == "batch":
        return batches[0]
    if len(stream.schema) != 1:
        raise DataError(f"an array is stored as one column, not {len(stream.schema)}")
    columns = [batch.column(0) for batch in batches]
    return columns[0] if form == "array" else pa.chunked_array(columns, stream.schema.field(0).type)


def _read_names(fields: Iterable[Any]) -> None:
    """Names are read without a check too, and would fail whoever looks at them later: UnicodeDecodeError, a ValueError."""
    for field in fields:
        _ = field.name
        kind = field.type
        _read_names(kind.field(index) for index in range(kind.num_fields))


def encode_polars(data: Any) -> dict[str, Any]:
    """The JSON form of a polars DataFrame or Series.

    Raises:
        DataError: It is neither, or has a column of Python objects.
    """
    import polars

    if isinstance(data, polars.Series):
        form, frame = "series", data.to_frame()
    elif isinstance(data, polars.DataFrame):
        form, frame = "frame", data
    else:
        hint = ": collect() it first" if isinstance(data, polars.LazyFrame) else ""
        raise DataError(f"Polars takes a polars DataFrame or Series, not {type(data).__name__}{hint}")
    if any(dtype == polars.Object for dtype in frame.dtypes):
        raise DataError("a polars column of Python objects has no form of its own: log it as a list")
    file = BytesIO()
    frame.write_ipc_stream(file, compression="zstd")
    return {"form": form, "ipc": to_base64(file.getbuffer())}


def decode_polars(encoded: Any) -> polars.DataFrame | polars.Series:
    """The DataFrame or Series of a JSON form.

    Raises:
        DataError: It is not one.
    """
    import polars

    form, raw = _parts(encoded, ("frame", "series"))
    try:
        frame = polars.read_ipc_stream(raw)
    except BaseException as exc:
        # Polars meets some malformed input with a panic, which is no Exception.
        if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
            raise DataError(f"the polars data cannot be read: {exc}"[:500]) from exc
        raise
    if form == "frame":
        return frame
    if frame.width != 1:
        raise DataError(f"a series is stored as one column, not {frame.width}")
    return frame.to_series()


def _parts(encoded: Any, forms: tuple[str, ...]) -> tuple[str, bytes]:
    if not isinstance(encoded, dict):
        raise DataError(f"Arrow data must be an object, not {type(encoded).__name__}")
    form = encoded.get("form")
    if form not in forms:
        raise DataError(f"the form must be one of {', '.join(forms)}, not {form!r:.100}")
    return form, from_base64(encoded.get("ipc"))
