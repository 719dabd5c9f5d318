//! JSON as RFC 8259 has it, and nothing beyond: whoever reads more (NaN, a byte order mark, lone surrogates) reads it elsewhere.
//!
//! Every function that can fail answers `None`: this line is not for us. Nothing here says what is wrong with it.

/// Deeper values are left to the Python decoders, which have a limit of their own and a name for what exceeds it.
const DEEPEST: usize = 64;

/// A piece of text: bytes of the block that is read, or of the scratch buffer, where escapes were resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    start: usize,
    end: usize,
    scratch: bool,
}

impl Piece {
    pub const EMPTY: Piece = Piece { start: 0, end: 0, scratch: false };

    pub fn of<'a>(self, block: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        let from = if self.scratch { scratch } else { block };
        &from[self.start..self.end]
    }

    pub fn len(self) -> usize {
        self.end - self.start
    }
}

/// What a JSON number is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer of at most 18 digits.
    Integer(i64),
    /// Anything with a fraction or an exponent.
    Float(f64),
}

/// A position in a block, that moves on over one value after the other.
pub struct Cursor<'a> {
    block: &'a [u8],
    at: usize,
    end: usize,
    /// Where texts with escapes are written out. It only grows while a line is read.
    pub scratch: &'a mut Vec<u8>,
}

impl<'a> Cursor<'a> {
    /// A cursor over `block[at..end]`, which must be UTF-8.
    pub fn new(block: &'a [u8], at: usize, end: usize, scratch: &'a mut Vec<u8>) -> Self {
        Cursor { block, at, end, scratch }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    /// Back, or on, to a position that it had before.
    pub fn go_to(&mut self, position: usize) {
        self.at = position;
    }

    /// What it moved over since it had this position.
    pub fn since(&self, position: usize) -> Piece {
        Piece { start: position, end: self.at, scratch: false }
    }

    pub fn text(&self, piece: Piece) -> &[u8] {
        piece.of(self.block, self.scratch)
    }

    fn rest(&self) -> &'a [u8] {
        &self.block[self.at..self.end]
    }

    pub fn peek(&self) -> Option<u8> {
        if self.at < self.end { Some(self.block[self.at]) } else { None }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// Moves over one byte, which must be `wanted`.
    pub fn take(&mut self, wanted: u8) -> Option<()> {
        if self.peek()? != wanted {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// Moves over a literal such as `null` where it stands here.
    pub fn take_if(&mut self, literal: &[u8]) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    /// Space, a byte, space.
    pub fn take_between(&mut self, wanted: u8) -> Option<()> {
        self.skip_space();
        self.take(wanted)?;
        self.skip_space();
        Some(())
    }

    /// After a member of an object or array: `true` where another follows, `false` where it ends.
    pub fn another(&mut self, close: u8) -> Option<bool> {
        self.skip_space();
        match self.peek()? {
            b',' => {
                self.at += 1;
                self.skip_space();
                Some(true)
            }
            byte if byte == close => {
                self.at += 1;
                Some(false)
            }
            _ => None,
        }
    }

    /// The name of a member, and what stands between it and its value. Names with escapes are not for us.
    pub fn key(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let start = self.at;
        let length = plain_length(self.rest());
        self.at += length;
        self.take(b'"')?;
        self.take_between(b':')?;
        Some(&self.block[start..start + length])
    }

    /// A string, its escapes resolved.
    pub fn string(&mut self) -> Option<Piece> {
        self.take(b'"')?;
        let start = self.at;
        self.at += plain_length(self.rest());
        if self.peek()? == b'"' {
            self.at += 1;
            return Some(Piece { start, end: self.at - 1, scratch: false });
        }
        let written = self.scratch.len();
        self.scratch.extend_from_slice(&self.block[start..self.at]);
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(Piece { start: written, end: self.scratch.len(), scratch: true });
                }
                b'\\' => self.escape()?,
                _ => return None, // a control character
            }
            let length = plain_length(self.rest());
            self.scratch.extend_from_slice(&self.block[self.at..self.at + length]);
            self.at += length;
        }
    }

    fn escape(&mut self) -> Option<()> {
        self.at += 1;
        let byte = self.peek()?;
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.four_digits()?;
                if (0xd800..0xdc00).contains(&code) {
                    if !self.take_if(b"\\u") {
                        return None;
                    }
                    let low = self.four_digits()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return None;
                    }
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let character = char::from_u32(code)?;
                self.scratch.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        self.scratch.push(plain);
        Some(())
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4)?;
        let mut code = 0;
        for &digit in digits {
            code = code * 16 + (digit as char).to_digit(16)?;
        }
        self.at += 4;
        Some(code)
    }

    /// A number, and its text as Python writes it.
    pub fn number(&mut self) -> Option<(Number, Piece)> {
        let start = self.at;
        let shape = self.skip_number()?;
        let text = std::str::from_utf8(&self.block[start..self.at]).ok()?;
        let whole = Piece { start, end: self.at, scratch: false };
        if shape.is_integer {
            if shape.digits > 18 || text == "-0" {
                return None;
            }
            return Some((Number::Integer(text.parse().ok()?), whole));
        }
        let value: f64 = text.parse().ok()?;
        if !value.is_finite() {
            return None;
        }
        if shape.is_shortest(text) {
            return Some((Number::Float(value), whole));
        }
        let written = self.scratch.len();
        write_float(self.scratch, value);
        Some((Number::Float(value), Piece { start: written, end: self.scratch.len(), scratch: true }))
    }

    fn skip_digits(&mut self) -> usize {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn skip_number(&mut self) -> Option<NumberShape> {
        self.take_if(b"-");
        let leads_with_zero = self.peek()? == b'0';
        let whole = self.skip_digits();
        if whole == 0 || (leads_with_zero && whole > 1) {
            return None;
        }
        let mut fraction = 0;
        if self.take_if(b".") {
            fraction = self.skip_digits();
            if fraction == 0 {
                return None;
            }
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.skip_digits() == 0 {
                return None;
            }
        }
        Some(NumberShape {
            is_integer: fraction == 0 && !has_exponent,
            digits: whole + fraction,
            fraction,
            has_exponent,
        })
    }

    /// Any value, as the bytes that it is written in.
    pub fn raw(&mut self) -> Option<Piece> {
        let start = self.at;
        self.skip_value(0)?;
        Some(Piece { start, end: self.at, scratch: false })
    }

    fn skip_value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'{' if depth < DEEPEST => {
                self.at += 1;
                self.skip_space();
                if self.take_if(b"}") {
                    return Some(());
                }
                loop {
                    self.skip_string()?;
                    self.take_between(b':')?;
                    self.skip_value(depth + 1)?;
                    if !self.another(b'}')? {
                        return Some(());
                    }
                }
            }
            b'[' if depth < DEEPEST => {
                self.at += 1;
                self.skip_space();
                if self.take_if(b"]") {
                    return Some(());
                }
                loop {
                    self.skip_value(depth + 1)?;
                    if !self.another(b']')? {
                        return Some(());
                    }
                }
            }
            b't' => self.take_if(b"true").then_some(()),
            b'f' => self.take_if(b"false").then_some(()),
            b'n' => self.take_if(b"null").then_some(()),
            b'-' | b'0'..=b'9' => self.skip_number().map(|_| ()),
            _ => None,
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            self.at += plain_length(self.rest());
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => {
                    let before = self.scratch.len();
                    self.escape()?;
                    self.scratch.truncate(before);
                }
                _ => return None,
            }
        }
    }
}

struct NumberShape {
    is_integer: bool,
    digits: usize,
    fraction: usize,
    has_exponent: bool,
}

impl NumberShape {
    /// Whether the text of a float is surely what Python's `repr` gives of its value: with up to 15 digits, no shorter text means
    /// the same number.
    fn is_shortest(&self, text: &str) -> bool {
        if self.has_exponent || self.digits > 15 {
            return false;
        }
        let (whole, fraction) = text.split_at(text.len() - self.fraction);
        if fraction.ends_with('0') && fraction != "0" {
            return false;
        }
        // Below 0.0001 it is written with an exponent.
        !matches!(whole, "0." | "-0.") || !fraction.starts_with("0000")
    }
}

/// How many bytes come before a quote, a backslash or a control character.
///
/// Eight at a time: a byte of a word is zero where subtracting one borrows into its highest bit, and less than 32 where subtracting
/// 32 does. What is above the first such byte may be wrong, so only the first counts.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word;
    let mut length = 0;
    for word in text.chunks_exact(8) {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        let control = word.wrapping_sub(0x20 * ONES) & !word;
        let found = (control | zero_byte(word ^ (0x22 * ONES)) | zero_byte(word ^ (0x5c * ONES))) & HIGH;
        if found != 0 {
            return length + (found.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    length + text[length..].iter().take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\').count()
}

/// A finite float as Python's `repr` writes it: the shortest digits that mean it, with an exponent from 1e16 on and below 1e-4.
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: Vec<u8> = mantissa.bytes().filter(|&byte| byte != b'.').collect();
    out.extend_from_slice(sign.as_bytes());
    if (-4..16).contains(&exponent) {
        if exponent < 0 {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
            out.extend_from_slice(&digits);
        } else {
            let whole = exponent as usize + 1;
            if digits.len() <= whole {
                out.extend_from_slice(&digits);
                out.extend(std::iter::repeat_n(b'0', whole - digits.len()));
                out.extend_from_slice(b".0");
            } else {
                out.extend_from_slice(&digits[..whole]);
                out.push(b'.');
                out.extend_from_slice(&digits[whole..]);
            }
        }
        return;
    }
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    out.extend_from_slice(format!("e{sign}{:02}", exponent.abs()).as_bytes());
}

/// The number that a text is, where Python's `float` takes it for a finite one: optional sign, digits with at most one point
/// among them, optional exponent. `Err` where Python has to say.
pub fn text_as_number(text: &[u8]) -> Result<Option<f64>, ()> {
    match text {
        b"NaN" => return Ok(Some(f64::NAN)),
        b"Infinity" => return Ok(Some(f64::INFINITY)),
        b"-Infinity" => return Ok(Some(f64::NEG_INFINITY)),
        _ => {}
    }
    if !matches!(text.last(), Some(b'0'..=b'9' | b'.')) || !text.is_ascii() || text.contains(&b'_') {
        return Ok(None);
    }
    if text[0] <= b' ' {
        return Err(()); // Python strips some of these
    }
    let unsigned = match text[0] {
        b'+' | b'-' => &text[1..],
        _ => text,
    };
    let (mantissa, exponent) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let points = mantissa.iter().filter(|&&byte| byte == b'.').count();
    let digits = mantissa.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || points > 1 || digits + points != mantissa.len() {
        return Ok(None);
    }
    if let Some(exponent) = exponent {
        let digits = match exponent.first() {
            Some(b'+' | b'-') => &exponent[1..],
            _ => exponent,
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Ok(None);
        }
    }
    let number: f64 = std::str::from_utf8(text).map_err(|_| ())?.parse().map_err(|_| ())?;
    Ok(number.is_finite().then_some(number))
}
