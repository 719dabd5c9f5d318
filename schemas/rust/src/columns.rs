//! Columns as Arrow lays them out: offsets and bytes, or codes of the distinct texts and these.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Texts or payloads, one after the other.
pub struct Texts {
    pub offsets: Vec<i32>,
    pub bytes: Vec<u8>,
}

impl Default for Texts {
    fn default() -> Self {
        Texts { offsets: vec![0], bytes: Vec::new() }
    }
}

impl Texts {
    /// The caller sees to it that all of them together stay below 2 GiB (`lines::MOST_BYTES`).
    pub fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.offsets.push(self.bytes.len() as i32);
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }
}

/// Texts that repeat: a code for each row, and each distinct text once.
#[derive(Default)]
pub struct Interned {
    pub codes: Vec<i32>,
    pub values: Texts,
    known: HashMap<Box<[u8]>, i32, RandomState>,
}

impl Interned {
    /// Neighbours mostly agree.
    pub fn push(&mut self, text: &[u8]) {
        let guess = self.codes.last().copied();
        self.push_guessed(text, guess);
    }

    /// The same, where another code than the last one is the likely one. Answers the code.
    pub fn push_guessed(&mut self, text: &[u8], guess: Option<i32>) -> i32 {
        let code = match guess {
            Some(guess) if self.values.get(guess as usize) == text => guess,
            _ => self.code(text),
        };
        self.codes.push(code);
        code
    }

    fn code(&mut self, text: &[u8]) -> i32 {
        if let Some(&code) = self.known.get(text) {
            return code;
        }
        let code = self.values.len() as i32;
        self.values.push(text);
        self.known.insert(text.into(), code);
        code
    }
}

/// The columns that every table has.
#[derive(Default)]
pub struct Common {
    pub project_id: Interned,
    pub trace_id: Interned,
    pub trace_ts: Vec<i64>,
    pub ts: Vec<i64>,
    pub line_hash: Vec<u64>,
}

/// The tags of all lines: those of line `i` are `ends[i]..ends[i + 1]`.
pub struct Tags {
    pub ends: Vec<i32>,
    pub name: Interned,
    pub kind_of: Interned,
    pub group: Interned,
    pub kind: Vec<i8>,
    pub text: Texts,
    pub number: Vec<f64>,
    /// Codes of name, type and group of the last tag at each place of a line: lines mostly hold the same tags in the same order.
    guesses: Vec<[i32; 3]>,
}

impl Tags {
    /// Appends the tag at a place of the line that is under way.
    pub fn push(&mut self, place: usize, texts: [&[u8]; 3], kind: i8, text: &[u8], number: f64) {
        let guess = self.guesses.get(place).copied();
        let [name, type_, group] = texts;
        let codes = [
            self.name.push_guessed(name, guess.map(|codes| codes[0])),
            self.kind_of.push_guessed(type_, guess.map(|codes| codes[1])),
            self.group.push_guessed(group, guess.map(|codes| codes[2])),
        ];
        match self.guesses.get_mut(place) {
            Some(guess) => *guess = codes,
            None => self.guesses.push(codes),
        }
        self.kind.push(kind);
        self.text.push(text);
        self.number.push(number);
    }

    /// No more tags in this line.
    pub fn end_line(&mut self) {
        self.ends.push(self.kind.len() as i32);
    }
}

impl Default for Tags {
    fn default() -> Self {
        Tags {
            ends: vec![0],
            name: Interned::default(),
            kind_of: Interned::default(),
            group: Interned::default(),
            kind: Vec::new(),
            text: Texts::default(),
            number: Vec::new(),
            guesses: Vec::new(),
        }
    }
}

/// A column that only some table has.
pub enum Own {
    Interned(Interned),
    Text(Texts),
    Payload(Texts),
    Phase(Vec<i8>),
}
