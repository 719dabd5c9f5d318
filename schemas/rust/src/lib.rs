//! The compiled form of what `tailrace.ingestor.decode` and `columns` do in Python, lines of a log file into Arrow columns, and
//! of `tailrace.shipper.record_batch`, lines into record batches of Kafka.

mod columns;
mod instant;
mod json;
mod lines;
mod records;

use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict};

use columns::{Interned, Own, Texts};
use lines::{kind_names, Reader, Rows, Table, DIALECTS, TABLES};
use records::{Batches, Chunk, Codec, HEAD_BYTES};

/// Number, start and end of each line that did not become a row.
type Others = Vec<(usize, usize, usize)>;

/// Gathers the rows of one batch.
///
/// Args:
///     max_line_bytes: A longer line is refused.
#[pyclass]
struct Columns {
    rows: Rows,
}

#[pymethods]
impl Columns {
    #[new]
    fn new(max_line_bytes: usize) -> Self {
        Columns { rows: Rows::new(max_line_bytes) }
    }

    /// Appends the rows of some lines, without the interpreter's lock.
    ///
    /// Args:
    ///     block: Lines with a line feed between them; the last one may have one.
    ///
    /// Returns:
    ///     How many lines these are, how many of them became rows, and of each other line its number in the block, from 0, and the
    ///     bytes from where to where it goes, without its line feed.
    ///
    /// Raises:
    ///     RuntimeError: This code is wrong somewhere; the rows are lost, and what was added has to be decoded elsewhere.
    fn add(&mut self, py: Python<'_>, block: &[u8]) -> PyResult<(usize, usize, Others)> {
        let rows = &mut self.rows;
        let taken = py.detach(move || guarded(|| rows.add(block)))?;
        Ok((taken.lines, taken.rows, taken.others))
    }

    /// All rows: for each table that got some, how many, and its columns by name.
    ///
    /// A column is its form and its parts: `("int8" | "int64" | "uint64" | "float64", values)`, `("text" | "binary", offsets, bytes)`,
    /// `("interned", codes, offsets, bytes)`; each part the bytes that Arrow has for it. Names that begin with `tags.` are of
    /// `tags`, whose offsets are the column `tags`.
    fn tables<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tables = PyDict::new(py);
        for (table, (name, columns)) in self.rows.tables.iter().zip(TABLES) {
            let count = table.common.ts.len();
            if count > 0 {
                tables.set_item(name, (count, described(py, table, columns)?))?;
            }
        }
        Ok(tables)
    }
}

fn described<'py>(py: Python<'py>, table: &Table, columns: &[(&str, u8)]) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    let common = &table.common;
    found.set_item("project_id", interned(py, &common.project_id))?;
    found.set_item("trace_id", interned(py, &common.trace_id))?;
    found.set_item("trace_ts", ("int64", bytes_of(py, &common.trace_ts, i64::to_le_bytes)))?;
    found.set_item("ts", ("int64", bytes_of(py, &common.ts, i64::to_le_bytes)))?;
    found.set_item("line_hash", ("uint64", bytes_of(py, &common.line_hash, u64::to_le_bytes)))?;
    for (column, (name, _)) in table.own.iter().zip(columns) {
        match column {
            Own::Interned(values) => found.set_item(*name, interned(py, values))?,
            Own::Text(values) => found.set_item(*name, texts(py, "text", values))?,
            Own::Payload(values) => found.set_item(*name, texts(py, "binary", values))?,
            Own::Phase(values) => found.set_item(*name, ("int8", bytes_of(py, values, i8::to_le_bytes)))?,
        }
    }
    if let Some(tags) = &table.tags {
        found.set_item("tags", ("int32", bytes_of(py, &tags.ends, i32::to_le_bytes)))?;
        found.set_item("tags.name", interned(py, &tags.name))?;
        found.set_item("tags.type", interned(py, &tags.kind_of))?;
        found.set_item("tags.group", interned(py, &tags.group))?;
        found.set_item("tags.kind", ("int8", bytes_of(py, &tags.kind, i8::to_le_bytes)))?;
        found.set_item("tags.str", texts(py, "text", &tags.text))?;
        found.set_item("tags.num", ("float64", bytes_of(py, &tags.number, f64::to_le_bytes)))?;
    }
    Ok(found)
}

type Three<'py> = (&'static str, Bound<'py, PyBytes>, Bound<'py, PyBytes>);
type Four<'py> = (&'static str, Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

fn texts<'py>(py: Python<'py>, form: &'static str, values: &Texts) -> Three<'py> {
    (form, bytes_of(py, &values.offsets, i32::to_le_bytes), PyBytes::new(py, &values.bytes))
}

fn interned<'py>(py: Python<'py>, values: &Interned) -> Four<'py> {
    let (_, offsets, bytes) = texts(py, "text", &values.values);
    ("interned", bytes_of(py, &values.codes, i32::to_le_bytes), offsets, bytes)
}

/// Numbers as Arrow lays them out, which on every machine that wheels are built for is how they lie in memory.
fn bytes_of<'py, T: Copy, const N: usize>(
    py: Python<'py>,
    values: &[T],
    to_bytes: fn(T) -> [u8; N],
) -> Bound<'py, PyBytes> {
    let mut bytes = Vec::with_capacity(values.len() * N);
    for &value in values {
        bytes.extend_from_slice(&to_bytes(value));
    }
    PyBytes::new(py, &bytes)
}

/// A panic as an exception that callers expect; by itself it would be a `BaseException`, and end the process.
fn guarded<T>(work: impl FnOnce() -> T) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| PyRuntimeError::new_err("the compiled decoder failed"))
}

/// What lines say that are all records: how many, by dialect and by kind, and the first and the last of their times in microseconds
/// since the epoch. `None` where any of them is no record, or may be none.
///
/// Args:
///     block: Lines with a line feed between them; the last one may have one.
///     max_line_bytes: A longer line is no record.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn survey(
    py: Python<'_>,
    block: &[u8],
    max_line_bytes: usize,
) -> PyResult<Option<(usize, HashMap<&'static str, usize>, HashMap<String, usize>, i64, i64)>> {
    let Some(found) = py.detach(move || guarded(|| Reader::new(max_line_bytes).survey(block)))? else {
        return Ok(None);
    };
    let dialects = DIALECTS.into_iter().zip(found.dialects).filter(|(_, count)| *count > 0).collect();
    let kinds = kind_names().into_iter().zip(found.kinds).filter(|(_, count)| *count > 0).collect();
    Ok(Some((found.lines, dialects, kinds, found.earliest, found.latest)))
}

/// How many line feeds there are in a block.
#[pyfunction]
fn count_line_feeds(block: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', block).count()
}

/// Lines as record batches of Kafka's format 2, whose heads are left empty: compressed without the interpreter's lock.
///
/// A record holds lines that follow on one another, without the last line feed; its key, `<id>@<position>`, says where the first
/// of them stands. Where nothing but blank lines would be in a record there is none.
///
/// Args:
///     chunks: The file's id, the position of the first byte in the file, and the lines, of each.
///     message_bytes: Of a record's lines at most, or one line.
///     batch_bytes: Of a batch before compression at most, or one record.
///     codec: "none", "snappy" or "zstd".
///     level: Of zstd.
///     headers: Of every record, as they are written there.
///     before: So many bytes are left in front of each batch, for whoever sends it.
///
/// Returns:
///     Of each batch its bytes, how many records are in it, and the CRC-32C of what comes behind the 61 bytes of its head.
///
/// Raises:
///     ValueError: There is no such codec here, or not at this level.
///     RuntimeError: This code is wrong somewhere.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn record_batches<'py>(
    py: Python<'py>,
    chunks: Vec<Chunk>,
    message_bytes: usize,
    batch_bytes: usize,
    codec: &str,
    level: i32,
    headers: Vec<u8>,
    before: usize,
) -> PyResult<Vec<(Bound<'py, PyByteArray>, usize, u32)>> {
    let codec =
        Codec::named(codec, level).ok_or_else(|| PyValueError::new_err(format!("no {codec} at level {level}")))?;
    let mut batches = Batches::new(chunks, message_bytes, batch_bytes, codec, headers);
    let mut found = Vec::new();
    while let Some(size) = py.detach(|| guarded(|| batches.begin()))?.map_err(PyRuntimeError::new_err)? {
        let records_at = before + HEAD_BYTES;
        let mut crc = 0;
        let built = PyByteArray::new_with(py, records_at + size, |bytes| {
            crc = py.detach(|| guarded(|| batches.write(&mut bytes[records_at..])))?;
            Ok(())
        })?;
        found.push((built, batches.count(), crc));
    }
    Ok(found)
}

/// The CRC-32C of some bytes and what comes behind them.
///
/// Args:
///     first: These bytes.
///     crc: Of what comes behind them.
///     size: How many bytes that is.
#[pyfunction]
fn crc32c_joined(first: &[u8], crc: u32, size: usize) -> u32 {
    crc32c::crc32c_combine(crc32c::crc32c(first), crc, size)
}

#[pymodule]
fn _lines(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(survey, module)?)?;
    module.add_function(wrap_pyfunction!(count_line_feeds, module)?)?;
    module.add_function(wrap_pyfunction!(record_batches, module)?)?;
    module.add_function(wrap_pyfunction!(crc32c_joined, module)?)?;
    module.add_class::<Columns>()
}
