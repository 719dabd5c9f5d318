//! Record batches of Kafka's message format 2: the compiled form of what `tailrace.shipper.record_batch` does in Python.

use memchr::{memchr, memrchr};
use pyo3::pybacked::PyBackedBytes;

/// Of a batch, before its first record.
pub const HEAD_BYTES: usize = 61;
/// So much is compressed at once with snappy, whose blocks know nothing of one another.
const SNAPPY_BYTES: usize = 64 << 10;
/// How snappy-java begins, which is what Kafka's clients expect: its name, its version, and the oldest that reads it.
const XERIAL: &[u8] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

/// Lines that follow on one another in a file: the file's id, the position of their first byte in it, and their bytes.
pub type Chunk = (PyBackedBytes, u64, PyBackedBytes);

/// How records are compressed.
pub enum Codec {
    Plain,
    Snappy(snap::raw::Encoder),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    /// A codec by its name in Kafka; `None` where this code does not have it, or not at this level.
    pub fn named(name: &str, level: i32) -> Option<Codec> {
        match name {
            "none" => Some(Codec::Plain),
            "snappy" => Some(Codec::Snappy(snap::raw::Encoder::new())),
            "zstd" => zstd::bulk::Compressor::new(level).ok().map(Codec::Zstd),
            _ => None,
        }
    }

    /// Compresses to the beginning of `out`, which gets room for `room` bytes of data, and says how many bytes that takes.
    fn compress(&mut self, data: &[u8], room: usize, out: &mut Vec<u8>) -> Result<usize, String> {
        match self {
            Codec::Plain => Err("there is nothing to compress with".into()),
            Codec::Snappy(encoder) => {
                let block_bound = snap::raw::max_compress_len(SNAPPY_BYTES) + 4;
                let most = XERIAL.len() + room.div_ceil(SNAPPY_BYTES) * block_bound;
                if out.len() < most {
                    out.resize(most, 0);
                }
                let mut end = XERIAL.len();
                out[..end].copy_from_slice(XERIAL);
                for block in data.chunks(SNAPPY_BYTES) {
                    let begin = end + 4;
                    let size = encoder.compress(block, &mut out[begin..]).map_err(|error| error.to_string())?;
                    out[end..begin].copy_from_slice(&(size as u32).to_be_bytes());
                    end = begin + size;
                }
                Ok(end)
            }
            Codec::Zstd(compressor) => {
                out.clear();
                out.reserve(zstd::zstd_safe::compress_bound(room));
                compressor.compress_to_buffer(data, out).map_err(|error| error.to_string())
            }
        }
    }
}

/// Lines of one chunk that share a record.
struct Record {
    chunk: usize,
    start: usize,
    end: usize,
    /// Of the record without this number itself.
    size: usize,
}

/// Makes batches of chunks, one after the other.
pub struct Batches {
    chunks: Vec<Chunk>,
    message_bytes: usize,
    batch_bytes: usize,
    codec: Codec,
    headers: Vec<u8>,
    /// Which chunk is next, and which byte of it.
    next: (usize, usize),
    /// Those of the batch.
    records: Vec<Record>,
    /// Bytes of these records, uncompressed.
    framed_size: usize,
    framed: Vec<u8>,
    compressed: Vec<u8>,
}

impl Batches {
    /// See `record_batches` for what these are.
    pub fn new(
        chunks: Vec<Chunk>,
        message_bytes: usize,
        batch_bytes: usize,
        codec: Codec,
        headers: Vec<u8>,
    ) -> Batches {
        Batches {
            chunks,
            message_bytes,
            batch_bytes,
            codec,
            headers,
            next: (0, 0),
            records: Vec::new(),
            framed_size: 0,
            framed: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// Begins the next batch: says how many bytes its records take; `None` when there is nothing left but blank lines.
    pub fn begin(&mut self) -> Result<Option<usize>, String> {
        self.choose();
        if self.records.is_empty() {
            return Ok(None);
        }
        if let Codec::Plain = self.codec {
            return Ok(Some(self.framed_size));
        }
        let mut framed = std::mem::take(&mut self.framed);
        framed.clear();
        // As much as any batch needs, so that memory is asked for once.
        framed.reserve(self.framed_size.max(self.batch_bytes));
        self.frame(&mut framed);
        let size = self.codec.compress(&framed, framed.capacity(), &mut self.compressed);
        self.framed = framed;
        size.map(Some)
    }

    /// How many records it holds.
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// Writes its records to as many bytes as `begin` said, and says what their CRC-32C is.
    pub fn write(&self, to: &mut [u8]) -> u32 {
        match self.codec {
            Codec::Plain => self.frame(&mut &mut *to),
            _ => to.copy_from_slice(&self.compressed[..to.len()]),
        }
        crc32c::crc32c(to)
    }

    /// Fills `records` with as many as go into a batch.
    fn choose(&mut self) {
        self.records.clear();
        self.framed_size = 0;
        while let Some((id, position, data)) = self.chunks.get(self.next.0) {
            let start = self.next.1;
            if start == data.len() {
                self.next = (self.next.0 + 1, 0);
                continue;
            }
            let after = together(data, start, self.message_bytes);
            let value = data[start..after].strip_suffix(b"\n").unwrap_or(&data[start..after]);
            if !blank(value) {
                let key_size = id.len() + 1 + digits(*position + start as u64).len();
                let size = 2
                    + varint_size(self.records.len() as u64)
                    + varint_size(key_size as u64)
                    + key_size
                    + varint_size(value.len() as u64)
                    + value.len()
                    + self.headers.len();
                let whole = varint_size(size as u64) + size;
                if !self.records.is_empty() && HEAD_BYTES + self.framed_size + whole > self.batch_bytes {
                    return;
                }
                self.framed_size += whole;
                self.records.push(Record { chunk: self.next.0, start, end: start + value.len(), size });
            }
            self.next.1 = after;
        }
    }

    /// Writes the records as they are before they are compressed.
    fn frame(&self, to: &mut impl Put) {
        for (number, record) in self.records.iter().enumerate() {
            let (id, position, data) = &self.chunks[record.chunk];
            let value = &data[record.start..record.end];
            let at = digits(*position + record.start as u64);
            varint(record.size as u64, to);
            to.put(&[0, 0]); // attributes, and the time since the batch's
            varint(number as u64, to);
            varint((id.len() + 1 + at.len()) as u64, to);
            to.put(id);
            to.put(b"@");
            to.put(at.as_bytes());
            varint(value.len() as u64, to);
            to.put(value);
            to.put(&self.headers);
        }
    }
}

fn digits(number: u64) -> String {
    number.to_string()
}

/// Where bytes are written, one after the other.
trait Put {
    fn put(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What is left of it is what is not written yet.
impl Put for &mut [u8] {
    fn put(&mut self, bytes: &[u8]) {
        let (here, behind) = std::mem::take(self).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        *self = behind;
    }
}

/// Whether there is nothing in it but what Python takes for white space.
fn blank(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' ' | b'\t'..=b'\r'))
}

/// The end of as many whole lines from `start` on as go into `most` bytes, or of one line where that is longer.
fn together(data: &[u8], start: usize, most: usize) -> usize {
    if data.len() - start <= most {
        return data.len();
    }
    match memrchr(b'\n', &data[start..start + most]) {
        Some(last) => start + last + 1,
        None => memchr(b'\n', &data[start..]).map_or(data.len(), |first| start + first + 1),
    }
}

/// A number as Kafka writes signed ones: zigzag, seven bits a byte, the low ones first.
fn varint(value: u64, to: &mut impl Put) {
    let mut rest = value << 1;
    while rest >= 0x80 {
        to.put(&[rest as u8 & 0x7f | 0x80]);
        rest >>= 7;
    }
    to.put(&[rest as u8]);
}

/// How many bytes that takes.
fn varint_size(value: u64) -> usize {
    let bits = 64 - (value << 1 | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}
