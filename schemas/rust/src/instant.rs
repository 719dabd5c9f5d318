//! Times as our client and Python's `str(datetime)` write them, and when a trace began. Microseconds since 1970-01-01T00:00:00Z.

const SECOND: i64 = 1_000_000;
/// 1900-01-01, and the last microsecond of 2299: what ClickHouse's DateTime64 holds.
const EARLIEST: i64 = -2_208_988_800 * SECOND;
const LATEST: i64 = 10_413_792_000 * SECOND - 1;
/// A UUIDv7 is believed only if it is no later than this after its line, and no earlier than `OLDEST_TRACE` before it.
const SKEW: i64 = 24 * 3600 * SECOND;
const OLDEST_TRACE: i64 = 400 * 24 * 3600 * SECOND;

/// `2026-11-20T08:00:00.000001Z`, also with a space for the T, `+00:00` for the Z, and without a fraction. `None` for all else,
/// which `timestamps.TimestampParser` reads.
pub fn parse(text: &[u8]) -> Option<i64> {
    if text.len() < 20 || text[4] != b'-' || text[7] != b'-' || text[13] != b':' || text[16] != b':' {
        return None;
    }
    if !matches!(text[10], b'T' | b' ') {
        return None;
    }
    let year = digits(&text[0..4])?;
    let month = digits(&text[5..7])?;
    let day = digits(&text[8..10])?;
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    if hour > 23 || minute > 59 || second > 59 || !(1..=12).contains(&month) {
        return None;
    }
    if day < 1 || day > days_of(year, month) {
        return None;
    }
    let (micros, zone) = match text[19] {
        b'.' if text.len() > 26 => (digits(&text[20..26])?, &text[26..]),
        _ => (0, &text[19..]),
    };
    if !matches!(zone, b"Z" | b"+00:00") {
        return None;
    }
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let instant = seconds * SECOND + micros;
    (EARLIEST..=LATEST).contains(&instant).then_some(instant)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of a date of the Gregorian calendar, which begins its years in March here, so that a leap day is the last of its year.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// When a trace began, as its id says: the first 48 bits of a UUIDv7 are milliseconds (RFC 9562, section 5.7). `None` where it says
/// nothing credible.
pub fn trace_start(trace_id: &[u8], ts: i64) -> Option<i64> {
    let hyphens = match trace_id.len() {
        36 => true,
        32 => false,
        _ => return None,
    };
    let (version, variant) = if hyphens { (14, 19) } else { (12, 16) };
    if trace_id[version] != b'7' || !matches!(trace_id[variant].to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b') {
        return None;
    }
    let mut millis: i64 = 0;
    let mut seen = 0;
    for (place, &byte) in trace_id.iter().enumerate() {
        if hyphens && matches!(place, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = (byte as char).to_digit(16)?;
        if seen < 12 {
            millis = millis * 16 + i64::from(digit);
        }
        seen += 1;
    }
    let started = millis * 1000;
    (ts - OLDEST_TRACE <= started && started <= ts + SKEW).then_some(started)
}
