//! Lines into rows: what each kind of record holds, in the three dialects that services write by the million.
//!
//! A line becomes a row only where the Python decoders would make the very same row of it. Whatever is rare, odd or wrong is
//! refused: they read it then, and say what is wrong with it.

use xxhash_rust::xxh3::xxh3_64;

use crate::columns::{Common, Interned, Own, Tags, Texts};
use crate::instant;
use crate::json::{text_as_number, Cursor, Number, Piece};

/// As `schemas.limits` has them.
const MAX_NAME: usize = 1024;
const MAX_TAGS: usize = 10_000;
/// Bytes of lines in one batch; the rest is refused, since Arrow counts the bytes of a column with 31 bits.
const MOST_BYTES: usize = 512 << 20;

const TAILRACE: &[u8] = b"{\"v\":";
const RAYMON_FILE: &[u8] = b"{\"type\": ";
const RAYMON_API: &[u8] = b"{\"dtype\":";

/// The codes of the column `tags.kind`.
const NULL: i8 = 0;
const STRING: i8 = 1;
const NUMBER: i8 = 2;
const BOOL: i8 = 3;

/// How the value of a field is written, and what it may be.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// A text of 1 to `MAX_NAME` characters.
    Name,
    Text,
    /// A text or null.
    Maybe,
    /// One of the types of LLM events.
    EventType,
    /// Any JSON value, as it is written.
    Payload,
    /// A text or null; its JSON goes into the next column.
    User,
}

struct Field {
    key: &'static [u8],
    rule: Rule,
    column: usize,
    required: bool,
}

const fn field(key: &'static [u8], rule: Rule, column: usize) -> Field {
    Field { key, rule, column, required: false }
}

const fn required(key: &'static [u8], rule: Rule, column: usize) -> Field {
    Field { key, rule, column, required: true }
}

/// A kind of record of tailrace v1.
struct Kind {
    name: &'static [u8],
    table: usize,
    fields: &'static [Field],
    /// What a column holds where the line does not say.
    defaults: &'static [(usize, &'static [u8])],
    phase: i8,
    /// Lines of a monitoring session may belong to no trace.
    needs_trace: bool,
}

const LOGS: usize = 0;
const TAG_LINES: usize = 1;
const OBJECTS: usize = 2;
const TRACES: usize = 3;
const EVENT_LINES: usize = 4;
const PREDICTIONS: usize = 5;
const MOST_COLUMNS: usize = 11;

const INTERNED: u8 = 0;
const TEXT: u8 = 1;
const PAYLOAD: u8 = 2;
const PHASE: u8 = 3;

/// The tables with the columns that only they have; the tags of `tag_lines` are a matter of their own.
pub const TABLES: [(&str, &[(&str, u8)]); 6] = [
    ("logs", &[("level", INTERNED), ("message", TEXT)]),
    ("tag_lines", &[]),
    ("objects", &[("ref", TEXT), ("type", INTERNED), ("data", PAYLOAD)]),
    (
        "traces",
        &[
            ("name", TEXT),
            ("conversation_id", TEXT),
            ("session_id", TEXT),
            ("user_id", TEXT),
            ("user", PAYLOAD),
            ("metadata", PAYLOAD),
        ],
    ),
    (
        "event_lines",
        &[
            ("event_id", TEXT),
            ("phase", PHASE),
            ("parent_id", TEXT),
            ("event_type", TEXT),
            ("name", TEXT),
            ("input", PAYLOAD),
            ("attributes", PAYLOAD),
            ("output", PAYLOAD),
            ("status", TEXT),
            ("error", TEXT),
            ("usage", PAYLOAD),
        ],
    ),
    (
        "predictions",
        &[("deployment", TEXT), ("prediction_id", TEXT), ("features", PAYLOAD), ("prediction", PAYLOAD)],
    ),
];

static KINDS: [Kind; 7] = [
    Kind {
        name: b"text",
        table: LOGS,
        fields: &[required(b"message", Rule::Text, 1), field(b"level", Rule::Text, 0)],
        defaults: &[(0, b"info")],
        phase: 0,
        needs_trace: true,
    },
    Kind { name: b"tags", table: TAG_LINES, fields: &[], defaults: &[], phase: 0, needs_trace: true },
    Kind {
        name: b"object",
        table: OBJECTS,
        fields: &[
            required(b"ref", Rule::Name, 0),
            field(b"type", Rule::Text, 1),
            field(b"data", Rule::Payload, 2),
        ],
        defaults: &[],
        phase: 0,
        needs_trace: true,
    },
    Kind {
        name: b"trace",
        table: TRACES,
        fields: &[
            field(b"name", Rule::Maybe, 0),
            field(b"conversation_id", Rule::Maybe, 1),
            field(b"session_id", Rule::Maybe, 2),
            field(b"user", Rule::User, 3),
            field(b"metadata", Rule::Payload, 5),
        ],
        defaults: &[],
        phase: 0,
        needs_trace: true,
    },
    Kind {
        name: b"event_start",
        table: EVENT_LINES,
        fields: &[
            required(b"event_id", Rule::Name, 0),
            field(b"parent_id", Rule::Maybe, 2),
            required(b"event_type", Rule::EventType, 3),
            field(b"name", Rule::Maybe, 4),
            field(b"input", Rule::Payload, 5),
            field(b"attributes", Rule::Payload, 6),
        ],
        defaults: &[],
        phase: 1,
        needs_trace: true,
    },
    Kind {
        name: b"event_end",
        table: EVENT_LINES,
        fields: &[
            required(b"event_id", Rule::Name, 0),
            field(b"output", Rule::Payload, 7),
            field(b"status", Rule::Text, 8),
            field(b"error", Rule::Maybe, 9),
            field(b"usage", Rule::Payload, 10),
        ],
        defaults: &[(8, b"ok")],
        phase: 2,
        needs_trace: true,
    },
    Kind {
        name: b"prediction",
        table: PREDICTIONS,
        fields: &[
            required(b"deployment", Rule::Name, 0),
            field(b"prediction_id", Rule::Maybe, 1),
            field(b"features", Rule::Payload, 2),
            field(b"prediction", Rule::Payload, 3),
        ],
        defaults: &[],
        phase: 0,
        needs_trace: false,
    },
];

/// Names of the kinds, in the order of `Survey::kinds`, and of the dialects, in that of `Survey::dialects`.
pub fn kind_names() -> Vec<String> {
    KINDS.iter().map(|kind| String::from_utf8_lossy(kind.name).into_owned()).collect()
}
pub const DIALECTS: [&str; 3] = ["tailrace", "raymon-file", "raymon-api"];
const PREFIXES: [&[u8]; 3] = [TAILRACE, RAYMON_FILE, RAYMON_API];

const EVENT_TYPES: [&[u8]; 7] =
    [b"MESSAGE", b"TOOL", b"GENERATION", b"AGENT", b"RETRIEVAL", b"SYSTEM", b"CUSTOM"];

/// A line that was read, but is in no column yet: nothing has to be taken back where its end is wrong.
#[derive(Default)]
struct Line {
    project_id: Option<Piece>,
    trace_id: Option<Piece>,
    ts: Option<i64>,
    trace_ts: Option<Option<i64>>,
    own: [Option<Piece>; MOST_COLUMNS],
    tags: Vec<Tag>,
    has_tags: bool,
    /// Bits of `Kind::fields`.
    seen: u32,
}

#[derive(Clone, Copy)]
struct Tag {
    name: Piece,
    type_: Option<Piece>,
    group: Piece,
    kind: i8,
    text: Piece,
    number: f64,
}

pub struct Table {
    pub common: Common,
    pub own: Vec<Own>,
    pub tags: Option<Tags>,
}

/// Rows of all tables, gathered from blocks of lines.
pub struct Rows {
    pub tables: Vec<Table>,
    reader: Reader,
    bytes: usize,
}

/// What became of a block: how many lines it has, how many of them became rows, and where the others stand.
pub struct Taken {
    pub lines: usize,
    pub rows: usize,
    /// Number of the line, from 0, and the bytes from where to where it goes, without its line feed.
    pub others: Vec<(usize, usize, usize)>,
}

impl Rows {
    /// Args: the longest line that is a record.
    pub fn new(limit: usize) -> Self {
        let tables = TABLES.iter().map(|(name, columns)| Table {
            common: Common::default(),
            own: columns.iter().map(|&(_, kind)| match kind {
                INTERNED => Own::Interned(Interned::default()),
                TEXT => Own::Text(Texts::default()),
                PAYLOAD => Own::Payload(Texts::default()),
                _ => Own::Phase(Vec::new()),
            }).collect(),
            tags: (*name == TABLES[TAG_LINES].0).then(Tags::default),
        });
        Rows { tables: tables.collect(), reader: Reader::new(limit), bytes: 0 }
    }

    /// Appends the rows of lines; the last one may lack its line feed.
    pub fn add(&mut self, block: &[u8]) -> Taken {
        let mut taken = Taken { lines: 0, rows: 0, others: Vec::new() };
        let is_text = std::str::from_utf8(block).is_ok();
        let mut start = 0;
        while start < block.len() {
            let end = memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |length| start + length);
            if self.line(block, start, end, is_text).is_some() {
                taken.rows += 1;
            } else {
                taken.others.push((taken.lines, start, end));
            }
            taken.lines += 1;
            start = end + 1;
        }
        taken
    }

    fn line(&mut self, block: &[u8], start: usize, end: usize, is_text: bool) -> Option<()> {
        if self.bytes + (end - start) > MOST_BYTES {
            return None;
        }
        let found = self.reader.read(block, start, end, is_text)?;
        let Reader { line, scratch, .. } = &self.reader;
        let kind = found.kind;
        let of = |piece: Piece| piece.of(block, scratch);
        self.bytes += end - start;
        let table = &mut self.tables[kind.table];
        table.common.project_id.push(of(line.project_id.unwrap_or_default()));
        table.common.trace_id.push(of(line.trace_id.unwrap_or_default()));
        table.common.trace_ts.push(found.trace_ts);
        table.common.ts.push(found.ts);
        table.common.line_hash.push(xxh3_64(&block[start..end]));
        for (index, column) in table.own.iter_mut().enumerate() {
            let text = match line.own[index] {
                Some(piece) => of(piece),
                None => kind.defaults.iter().find(|(at, _)| *at == index).map_or(&b""[..], |(_, text)| text),
            };
            match column {
                Own::Interned(values) => values.push(text),
                Own::Text(values) | Own::Payload(values) => values.push(text),
                Own::Phase(values) => values.push(kind.phase),
            }
        }
        if let Some(tags) = &mut table.tags {
            for (place, tag) in line.tags.iter().enumerate() {
                let texts = [of(tag.name), tag.type_.map_or(&b"label"[..], of), of(tag.group)];
                tags.push(place, texts, tag.kind, of(tag.text), tag.number);
            }
            tags.end_line();
        }
        Some(())
    }
}

/// What is read of one line after the other.
pub struct Reader {
    line: Line,
    scratch: Vec<u8>,
    limit: usize,
}

/// A line that is a record; its texts are in `Reader::line`.
struct Found {
    dialect: usize,
    kind: &'static Kind,
    ts: i64,
    trace_ts: i64,
}

/// What lines say that are all records.
#[derive(Default)]
pub struct Survey {
    pub lines: usize,
    pub dialects: [usize; DIALECTS.len()],
    pub kinds: [usize; KINDS.len()],
    pub earliest: i64,
    pub latest: i64,
}

impl Reader {
    /// Args: the longest line that is a record.
    pub fn new(limit: usize) -> Self {
        Reader { line: Line::default(), scratch: Vec::new(), limit }
    }

    /// What the lines of a block say, `None` where one of them is not for us.
    pub fn survey(&mut self, block: &[u8]) -> Option<Survey> {
        let is_text = std::str::from_utf8(block).is_ok();
        let mut survey = Survey { earliest: i64::MAX, latest: i64::MIN, ..Survey::default() };
        let mut start = 0;
        while start < block.len() {
            let end = memchr::memchr(b'\n', &block[start..]).map_or(block.len(), |length| start + length);
            let found = self.read(block, start, end, is_text)?;
            survey.lines += 1;
            survey.dialects[found.dialect] += 1;
            survey.kinds[KINDS.iter().position(|kind| kind.name == found.kind.name)?] += 1;
            survey.earliest = survey.earliest.min(found.ts);
            survey.latest = survey.latest.max(found.ts);
            start = end + 1;
        }
        Some(survey)
    }

    fn read(&mut self, block: &[u8], start: usize, end: usize, is_text: bool) -> Option<Found> {
        let content = &block[start..end];
        if content.len() > self.limit || (!is_text && std::str::from_utf8(content).is_err()) {
            return None;
        }
        self.scratch.clear();
        self.line.clear();
        let dialect = PREFIXES.iter().position(|prefix| content.starts_with(prefix))?;
        let line = &mut self.line;
        let mut cursor = Cursor::new(block, start + PREFIXES[dialect].len(), end, &mut self.scratch);
        cursor.skip_space();
        let kind = match dialect {
            0 => tailrace(&mut cursor, line)?,
            1 => raymon_file(&mut cursor, line)?,
            _ => raymon_api(&mut cursor, line)?,
        };
        let ts = line.ts?;
        line.project_id?;
        let trace_id = match line.trace_id {
            Some(piece) => piece.of(block, &self.scratch),
            None if kind.needs_trace => return None,
            None => b"",
        };
        if kind.fields.iter().enumerate().any(|(bit, field)| field.required && line.seen >> bit & 1 == 0) {
            return None;
        }
        if kind.table == TAG_LINES && !line.has_tags {
            return None;
        }
        let trace_ts =
            instant::trace_start(trace_id, ts).unwrap_or_else(|| line.trace_ts.flatten().unwrap_or(ts));
        Some(Found { dialect, kind, ts, trace_ts })
    }
}

impl Line {
    fn clear(&mut self) {
        let mut tags = std::mem::take(&mut self.tags);
        tags.clear();
        *self = Line { tags, ..Line::default() };
    }

    /// One of the fields that every record has; `false` where it is another.
    fn common(&mut self, key: &[u8], time: &[u8], cursor: &mut Cursor, needs_trace: bool) -> Option<bool> {
        if key == time {
            once(&self.ts)?;
            self.ts = Some(instant_of(cursor)?);
        } else if key == b"project_id" {
            once(&self.project_id)?;
            self.project_id = Some(name(cursor)?);
        } else if key == b"trace_id" {
            once(&self.trace_id)?;
            self.trace_id = Some(if needs_trace { name(cursor)? } else { cursor.string()? });
        } else {
            return Some(false);
        }
        Some(true)
    }
}

/// Fields that stand in a line more than once are left to the Python decoders.
fn once<T>(value: &Option<T>) -> Option<()> {
    value.is_none().then_some(())
}

/// `{"v":1,"kind":"text","ts":…,"project_id":…,"trace_id":…, …}`
fn tailrace(cursor: &mut Cursor, line: &mut Line) -> Option<&'static Kind> {
    cursor.take(b'1')?;
    if !cursor.another(b'}')? || cursor.key()? != b"kind" {
        return None;
    }
    let name = cursor.string()?;
    let kind = kind_named(cursor, name)?;
    let mut expected = 0; // fields come in the order of the type nearly always
    while cursor.another(b'}')? {
        let key = cursor.key()?;
        if line.common(key, b"ts", cursor, kind.needs_trace)? {
            continue;
        }
        if key == b"trace_ts" {
            once(&line.trace_ts)?;
            line.trace_ts = Some(if cursor.take_if(b"null") { None } else { Some(instant_of(cursor)?) });
        } else if kind.table == TAG_LINES && key == b"tags" {
            tags(cursor, line)?;
        } else if matches!(key, b"v" | b"kind" | b"jcr" | b"dtype") {
            return None;
        } else {
            let count = kind.fields.len();
            match (expected..expected + count).map(|at| at % count).find(|&at| kind.fields[at].key == key) {
                Some(at) => {
                    if line.seen >> at & 1 == 1 {
                        return None;
                    }
                    line.seen |= 1 << at;
                    own(cursor, line, &kind.fields[at])?;
                    expected = at + 1;
                }
                None => {
                    cursor.raw()?;
                }
            }
        }
    }
    cursor.is_at_end().then_some(kind)
}

fn kind_named(cursor: &Cursor, name: Piece) -> Option<&'static Kind> {
    let name = cursor.text(name);
    KINDS.iter().find(|kind| kind.name == name)
}

fn own(cursor: &mut Cursor, line: &mut Line, field: &Field) -> Option<()> {
    let piece = match field.rule {
        Rule::Payload => cursor.raw()?,
        Rule::Name => name(cursor)?,
        Rule::Text => cursor.string()?,
        Rule::Maybe | Rule::User if cursor.take_if(b"null") => return Some(()),
        Rule::Maybe => cursor.string()?,
        Rule::EventType => {
            let piece = cursor.string()?;
            let text = cursor.text(piece);
            if !EVENT_TYPES.contains(&text) {
                return None;
            }
            piece
        }
        Rule::User => {
            let start = cursor.position();
            let piece = cursor.string()?;
            let whole = cursor.since(start);
            // With an escape in it, it is not sure that JSON would be written like this again.
            if whole.len() != piece.len() + 2 || cursor.text(whole).contains(&0x7f) {
                return None;
            }
            line.own[field.column + 1] = Some(whole);
            piece
        }
    };
    line.own[field.column] = Some(piece);
    Some(())
}

/// A text of 1 to `MAX_NAME` characters; one that has to be counted to know is left to Python.
fn name(cursor: &mut Cursor) -> Option<Piece> {
    let piece = cursor.string()?;
    (1..=MAX_NAME).contains(&piece.len()).then_some(piece)
}

fn instant_of(cursor: &mut Cursor) -> Option<i64> {
    let piece = cursor.string()?;
    instant::parse(cursor.text(piece))
}

fn tags(cursor: &mut Cursor, line: &mut Line) -> Option<()> {
    if line.has_tags {
        return None;
    }
    line.has_tags = true;
    cursor.take(b'[')?;
    cursor.skip_space();
    if cursor.take_if(b"]") {
        return Some(());
    }
    loop {
        if line.tags.len() == MAX_TAGS {
            return None;
        }
        let tag = tag(cursor)?;
        line.tags.push(tag);
        if !cursor.another(b']')? {
            return Some(());
        }
    }
}

fn tag(cursor: &mut Cursor) -> Option<Tag> {
    let (mut tag_name, mut type_, mut group, mut value) = (None, None, None, None);
    cursor.take(b'{')?;
    cursor.skip_space();
    loop {
        match cursor.key()? {
            b"name" => {
                once(&tag_name)?;
                tag_name = Some(name(cursor)?);
            }
            b"value" => {
                once(&value)?;
                value = Some(tag_value(cursor)?);
            }
            b"type" => {
                once(&type_)?;
                type_ = Some(cursor.string()?);
            }
            b"group" => {
                once(&group)?;
                group = Some(if cursor.take_if(b"null") { Piece::EMPTY } else { cursor.string()? });
            }
            _ => {
                cursor.raw()?;
            }
        }
        if !cursor.another(b'}')? {
            break;
        }
    }
    let (mut kind, text, mut number) = value?;
    if kind == STRING && type_.is_some_and(|type_| cursor.text(type_) == b"metric") {
        if let Some(found) = text_as_number(cursor.text(text)).ok()? {
            (kind, number) = (NUMBER, found);
        }
    }
    Some(Tag { name: tag_name?, type_, group: group.unwrap_or(Piece::EMPTY), kind, text, number })
}

/// The kind of a tag's value, its text and its number. Arrays and objects are written anew by Python.
fn tag_value(cursor: &mut Cursor) -> Option<(i8, Piece, f64)> {
    let start = cursor.position();
    match cursor.peek()? {
        b'"' => Some((STRING, cursor.string()?, f64::NAN)),
        b'n' if cursor.take_if(b"null") => Some((NULL, cursor.since(start), f64::NAN)),
        b't' if cursor.take_if(b"true") => Some((BOOL, cursor.since(start), 1.0)),
        b'f' if cursor.take_if(b"false") => Some((BOOL, cursor.since(start), 0.0)),
        b'-' | b'0'..=b'9' => match cursor.number()? {
            (Number::Integer(value), text) => Some((NUMBER, text, value as f64)),
            (Number::Float(value), text) => Some((NUMBER, text, value)),
        },
        _ => None,
    }
}

/// `{"type": "info", "jcr": {"timestamp": …, "trace_id": …, "ref": null, "data": …, "project_id": …}}`
fn raymon_file(cursor: &mut Cursor, line: &mut Line) -> Option<&'static Kind> {
    let kind = match cursor.string().map(|piece| cursor.text(piece))? {
        b"info" => LOGS,
        b"tags" => TAG_LINES,
        b"data" => OBJECTS,
        _ => return None,
    };
    let mut found = false;
    while cursor.another(b'}')? {
        match cursor.key()? {
            b"jcr" if !found => {
                found = true;
                cursor.take(b'{')?;
                cursor.skip_space();
                loop {
                    let key = cursor.key()?;
                    raymon_field(cursor, line, kind, key)?;
                    if !cursor.another(b'}')? {
                        break;
                    }
                }
            }
            b"jcr" | b"type" => return None,
            _ => {
                cursor.raw()?;
            }
        }
    }
    (found && is_whole(cursor, line, kind)).then_some(&KINDS[kind])
}

/// `{"dtype": "info", "timestamp": …, "trace_id": …, "project_id": …, "ref": …, "data": …}`
fn raymon_api(cursor: &mut Cursor, line: &mut Line) -> Option<&'static Kind> {
    let kind = match cursor.string().map(|piece| cursor.text(piece))? {
        b"info" => LOGS,
        b"tags" => TAG_LINES,
        b"object" => OBJECTS,
        _ => return None,
    };
    while cursor.another(b'}')? {
        let key = cursor.key()?;
        if matches!(key, b"jcr" | b"dtype") {
            return None;
        }
        raymon_field(cursor, line, kind, key)?;
    }
    is_whole(cursor, line, kind).then_some(&KINDS[kind])
}

/// Unlike in tailrace v1, an object must have data.
fn is_whole(cursor: &Cursor, line: &Line, table: usize) -> bool {
    cursor.is_at_end() && (table != OBJECTS || line.own[2].is_some())
}

fn raymon_field(cursor: &mut Cursor, line: &mut Line, table: usize, key: &[u8]) -> Option<()> {
    if line.common(key, b"timestamp", cursor, true)? {
        return Some(());
    }
    match (table, key) {
        (LOGS, b"data") => {
            once(&line.own[1])?;
            line.own[1] = Some(cursor.string()?);
            line.seen |= 1; // `message`, the first field of a text
        }
        (TAG_LINES, b"data") => tags(cursor, line)?,
        (OBJECTS, b"ref") => {
            once(&line.own[0])?;
            line.own[0] = Some(name(cursor)?);
            line.seen |= 1; // `ref`, the first field of an object
        }
        (OBJECTS, b"data") => {
            once(&line.own[2])?;
            let (type_, data) = payload(cursor)?;
            line.own[1] = Some(type_);
            line.own[2] = Some(data);
        }
        _ => {
            cursor.raw()?;
        }
    }
    Some(())
}

/// `{"type": "raymon.types.Numpy", "params": {…}}` as its two parts; an empty type and all of it where it is other JSON.
fn payload(cursor: &mut Cursor) -> Option<(Piece, Piece)> {
    let start = cursor.position();
    let whole = cursor.raw()?;
    let end = cursor.position();
    cursor.go_to(start);
    let parts = wrapped(cursor)?;
    cursor.go_to(end);
    Some(parts.unwrap_or((Piece::EMPTY, whole)))
}

/// The two parts, `Some(None)` where the JSON at hand is something else.
fn wrapped(cursor: &mut Cursor) -> Option<Option<(Piece, Piece)>> {
    let (mut type_, mut params) = (None, None);
    if !cursor.take_if(b"{") {
        return Some(None);
    }
    cursor.skip_space();
    if cursor.take_if(b"}") {
        return Some(None);
    }
    loop {
        match cursor.key()? {
            b"type" if cursor.peek()? == b'"' => type_ = Some(cursor.string()?),
            b"params" => params = Some(cursor.raw()?),
            _ => return Some(None),
        }
        if !cursor.another(b'}')? {
            return Some(type_.zip(params));
        }
    }
}
