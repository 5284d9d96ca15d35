//! Points in time on the wire: RFC 3339, UTC, milliseconds. Times are for people to read; nothing
//! is ever ordered by them.

use std::fmt;

use jiff::fmt::temporal::DateTimePrinter;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z; stored as such, written as `2026-01-31T09:30:00.000Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
pub struct Timestamp(i64);

/// Three digits of a second, always.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

impl Timestamp {
    /// 9999-12-30T22:00:00Z: what is later cannot be written.
    pub const LAST: Self = Self(plain::LAST);

    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The one way in which servers write times, if it is a time of the years 0 to 9999.
    #[must_use]
    pub fn usual(self) -> Option<[u8; 24]> {
        plain::write(self.0)
    }

    /// Reads the one way in which servers write times, `2026-01-31T09:30:00.000Z`; `None` for whatever is
    /// not exactly of this shape, which may be a time all the same.
    #[must_use]
    pub fn of_usual(text: &[u8]) -> Option<Self> {
        plain::read(text).map(Self)
    }

    /// This time moved by `millis`, backwards if negative.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = plain::write(self.0) {
            return f.write_str(plain::as_str(&text));
        }
        let time = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&PRINTER.timestamp_to_string(&time))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match plain::write(self.0) {
            Some(text) => serializer.serialize_str(plain::as_str(&text)),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimestampVisitor)
    }
}

struct TimestampVisitor;

impl Visitor<'_> for TimestampVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an RFC 3339 time such as 2026-01-31T09:30:00.000Z")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        if let Some(time) = Timestamp::of_usual(text.as_bytes()) {
            return Ok(time);
        }
        text.parse::<jiff::Timestamp>()
            .map(|time| Timestamp(time.as_millisecond()))
            .map_err(|_| E::invalid_value(de::Unexpected::Other("other text"), &self))
    }
}

/// The one way in which servers write times. Each message is written and read several times on its
/// way, and a printer and a parser for all of RFC 3339 take five times as long.
mod plain {
    /// `2026-01-31T09:30:00.000Z`, and what of it is a digit.
    const PATTERN: &[u8; 24] = b"0000-00-00T00:00:00.000Z";
    const DAY_MS: i64 = 86_400_000;
    /// From 0000-03-01, where the calendar's arithmetic begins, to 1970-01-01.
    const DAYS_TO_1970: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    /// 9999-12-30T22:00:00Z: what is later is no time for the parser of all of RFC 3339, nor for
    /// nodes that have no other.
    pub(super) const LAST: i64 = 253_402_207_200_000;

    /// `None` outside the years 0 to 9999.
    pub(super) fn write(millis: i64) -> Option<[u8; 24]> {
        let (days, of_day) = (millis.div_euclid(DAY_MS), millis.rem_euclid(DAY_MS));
        let (year, month, day) = date_of(days);
        if !(0..=9_999).contains(&year) {
            return None;
        }
        let mut text = *PATTERN;
        let mut put = |at: usize, width: usize, mut value: i64| {
            for place in text[at..at + width].iter_mut().rev() {
                *place = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, of_day / 3_600_000);
        put(14, 2, of_day / 60_000 % 60);
        put(17, 2, of_day / 1_000 % 60);
        put(20, 3, of_day % 1_000);
        Some(text)
    }

    /// Digits and marks are text.
    pub(super) fn as_str(text: &[u8; 24]) -> &str {
        str::from_utf8(text).unwrap_or_default()
    }

    /// `None` for whatever is not exactly of this shape: it may still be a time.
    pub(super) fn read(text: &[u8]) -> Option<i64> {
        let text: &[u8; 24] = text.try_into().ok()?;
        let fits = |(byte, pattern): (&u8, &u8)| match pattern {
            b'0' => byte.is_ascii_digit(),
            _ => byte == pattern,
        };
        if !text.iter().zip(PATTERN).all(fits) {
            return None;
        }
        let get = |at: usize, width: usize| {
            let digits = text[at..at + width].iter();
            digits.fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
        };
        let (year, month, day) = (get(0, 4), get(5, 2), get(8, 2));
        let (hour, minute, second) = (get(11, 2), get(14, 2), get(17, 2));
        let days = days_to(year, month, day);
        let exists = date_of(days) == (year, month, day);
        let in_day = hour < 24 && minute < 60 && second < 60;
        let seconds = (hour * 60 + minute) * 60 + second;
        let millis = days * DAY_MS + seconds * 1_000 + get(20, 3);
        (exists && in_day && millis <= LAST).then_some(millis)
    }

    // Years are counted from March here, so that the day that comes and goes is their last.

    fn date_of(days: i64) -> (i64, i64, i64) {
        let days = days + DAYS_TO_1970;
        let era = days.div_euclid(DAYS_IN_400_YEARS);
        let of_era = days.rem_euclid(DAYS_IN_400_YEARS);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        (era * 400 + year + i64::from(month <= 2), month, day)
    }

    fn days_to(year: i64, month: i64, day: i64) -> i64 {
        let year = year - i64::from(month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let from_march = (month + 9) % 12;
        let of_year = (153 * from_march + 2) / 5 + day - 1;
        let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        era * DAYS_IN_400_YEARS + days - DAYS_TO_1970
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_come_back_equal() {
        let time = Timestamp::from_millis(1_790_000_000_000);
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, "\"2026-09-21T14:13:20.000Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
    }

    #[test]
    fn the_plain_way_writes_and_reads_what_the_calendar_says() {
        let (first, last) = (-62_167_219_200_000, 253_402_207_200_000);
        // A step that meets every hour, minute and day of the year sooner or later.
        for millis in (first..=last).step_by(9_876_543_217) {
            let time = jiff::Timestamp::from_millisecond(millis).unwrap();
            let text = PRINTER.timestamp_to_string(&time);
            assert_eq!(
                plain::write(millis).as_ref().map(<[u8; 24]>::as_slice),
                Some(text.as_bytes())
            );
            assert_eq!(plain::read(text.as_bytes()), Some(millis), "{text}");
        }
        for leap in ["2024-02-29T23:59:59.999Z", "2000-02-29T00:00:00.000Z"] {
            let millis = plain::read(leap.as_bytes()).unwrap();
            assert_eq!(Timestamp::from_millis(millis).to_string(), leap);
        }
        assert_eq!(plain::write(first - 1), None);
    }

    #[test]
    fn what_is_no_time_is_refused_and_other_ways_to_write_one_are_not() {
        let read = |text: &str| serde_json::from_str::<Timestamp>(&format!("\"{text}\""));
        for other in ["2026-09-21T14:13:20Z", "2026-09-21T16:13:20.000+02:00"] {
            assert_eq!(read(other).unwrap().as_millis(), 1_790_000_000_000);
        }
        for wrong in [
            "2026-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-00-10T00:00:00.000Z",
            "2026-01-00T00:00:00.000Z",
            "2026-01-01T24:00:00.000Z",
            "2026-01-01T00:60:00.000Z",
            "9999-12-31T23:59:59.999Z",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for taken in ["9999-12-30T22:00:00.999Z", "-009998-01-01T00:00:00.000Z"] {
            assert_eq!(read(taken).unwrap().to_string(), taken);
        }
    }
}
