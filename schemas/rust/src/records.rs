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

    /// Compresses to `out`, behind what a batch begins with, and says where it ends. `out` only ever grows.
    fn compress(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
        let mut room = |end: usize| {
            if out.len() < end {
                out.resize(end, 0);
            }
        };
        match self {
            Codec::Plain => Err("there is nothing to compress with".into()),
            Codec::Snappy(encoder) => {
                let block_bound = snap::raw::max_compress_len(SNAPPY_BYTES) + 4;
                room(HEAD_BYTES + XERIAL.len() + data.len().div_ceil(SNAPPY_BYTES) * block_bound);
                let mut end = HEAD_BYTES + XERIAL.len();
                out[HEAD_BYTES..end].copy_from_slice(XERIAL);
                for block in data.chunks(SNAPPY_BYTES) {
                    let begin = end + 4;
                    let size = encoder.compress(block, &mut out[begin..]).map_err(|error| error.to_string())?;
                    out[end..begin].copy_from_slice(&(size as u32).to_be_bytes());
                    end = begin + size;
                }
                Ok(end)
            }
            Codec::Zstd(compressor) => {
                room(HEAD_BYTES + zstd::zstd_safe::compress_bound(data.len()));
                let size =
                    compressor.compress_to_buffer(data, &mut out[HEAD_BYTES..]).map_err(|error| error.to_string())?;
                Ok(HEAD_BYTES + size)
            }
        }
    }
}

/// One batch.
pub struct Batch<'a> {
    /// With `HEAD_BYTES` of zeros in front.
    pub bytes: &'a [u8],
    /// How many records.
    pub count: u32,
    /// The CRC-32C of what comes after the head.
    pub crc: u32,
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
    /// `HEAD_BYTES` of zeros, and records.
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
        Batches { chunks, message_bytes, batch_bytes, codec, headers, next: (0, 0), framed: Vec::new(), compressed: Vec::new() }
    }

    /// The next batch; `None` when there is nothing left but blank lines.
    pub fn batch(&mut self) -> Result<Option<Batch<'_>>, String> {
        let count = self.frame();
        if count == 0 {
            return Ok(None);
        }
        let bytes = match &mut self.codec {
            Codec::Plain => &self.framed[..],
            codec => {
                let end = codec.compress(&self.framed[HEAD_BYTES..], &mut self.compressed)?;
                &self.compressed[..end]
            }
        };
        Ok(Some(Batch { bytes, count, crc: crc32c::crc32c(&bytes[HEAD_BYTES..]) }))
    }

    /// Fills `framed` with as many records as go into a batch, and says how many these are.
    fn frame(&mut self) -> u32 {
        self.framed.clear();
        self.framed.resize(HEAD_BYTES, 0);
        let mut count = 0u32;
        while let Some((id, position, data)) = self.chunks.get(self.next.0) {
            let start = self.next.1;
            if start == data.len() {
                self.next = (self.next.0 + 1, 0);
                continue;
            }
            let end = together(data, start, self.message_bytes);
            let value = data[start..end].strip_suffix(b"\n").unwrap_or(&data[start..end]);
            if !blank(value) {
                let number = (*position + start as u64).to_string();
                let key_size = id.len() + 1 + number.len();
                let size = 2
                    + varint_size(count as u64)
                    + varint_size(key_size as u64)
                    + key_size
                    + varint_size(value.len() as u64)
                    + value.len()
                    + self.headers.len();
                if count > 0 && self.framed.len() + varint_size(size as u64) + size > self.batch_bytes {
                    return count;
                }
                let to = &mut self.framed;
                varint(size as u64, to);
                to.extend_from_slice(&[0, 0]); // attributes, and the time since the batch's
                varint(count as u64, to);
                varint(key_size as u64, to);
                to.extend_from_slice(id);
                to.push(b'@');
                to.extend_from_slice(number.as_bytes());
                varint(value.len() as u64, to);
                to.extend_from_slice(value);
                to.extend_from_slice(&self.headers);
                count += 1;
            }
            self.next.1 = end;
        }
        count
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
fn varint(value: u64, to: &mut Vec<u8>) {
    let mut rest = value << 1;
    while rest >= 0x80 {
        to.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

/// How many bytes that takes.
fn varint_size(value: u64) -> usize {
    let bits = 64 - (value << 1 | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}
