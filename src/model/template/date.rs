//! The day that a chat template takes for today, and the dates that it writes: at midnight, and as Python's `strftime` writes
//! them under Linux in English, which is what `transformers` calls.

use chrono::{NaiveDate, NaiveTime};
use std::fmt;
use std::str::FromStr;

/// Directives of numbers, before which a flag says how to pad.
const NUMBERS: &str = "CGHIMSUVWYdegjklmsuwy";
/// Directives of all else, which no flag changes.
const TEXTS: &str = "%ABDFPRTXabchnprtx";

/// A day of the calendar, written `YYYY-MM-DD`. A parameter of what is computed, like a seed: never the clock's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(NaiveDate);

impl Default for Day {
    /// 26 July 2024, which Llama 3's templates write where they are given no date.
    fn default() -> Self {
        const DAY: NaiveDate = NaiveDate::from_ymd_opt(2024, 7, 26).expect("a day of the calendar");
        Day(DAY)
    }
}

impl Day {
    /// Midnight of the day, by the `strftime` pattern. A directive that Python does not know stays as it is.
    pub(in crate::model::template) fn format(self, pattern: &str) -> String {
        self.0.and_time(NaiveTime::MIN).format(&chronos(pattern)).to_string()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // chrono also takes other lengths of the three numbers.
        let as_written = |day: &Day| text.len() == "2024-07-26".len() && day.to_string() == text;
        let day = text.parse().ok().map(Day).filter(as_written);
        day.ok_or_else(|| format!("`{text}` is no day; write it as 2024-07-26"))
    }
}

/// The pattern by which chrono writes what Python writes by `pattern`. The two know different directives and flags, and Python
/// writes nothing for the zone of a moment that has none.
fn chronos(pattern: &str) -> String {
    let mut out = String::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let flag = characters.next_if(|character| "-_0".contains(*character));
        match characters.next() {
            Some(letter) if NUMBERS.contains(letter) => out.extend(['%'].into_iter().chain(flag).chain([letter])),
            Some(letter) if TEXTS.contains(letter) => out.extend(['%', letter]),
            // Microseconds, of which there are none at midnight.
            Some('f') if flag.is_none() => out.push_str("000000"),
            Some('z' | 'Z') => {}
            unknown => out.extend("%%".chars().chain(flag).chain(unknown)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Day;

    fn written(day: &str, pattern: &str) -> String {
        day.parse::<Day>().expect(day).format(pattern)
    }

    #[test]
    fn every_directive_is_written_as_python_writes_it() {
        // By `datetime.datetime(2023, 1, 1).strftime(...)`, with the letters of each case in order.
        let all = |letters: std::ops::RangeInclusive<char>, flag: &str| {
            let pattern: Vec<String> = letters.map(|letter| format!("%{flag}{letter}")).collect();
            written("2023-01-01", &pattern.join("|"))
        };
        assert_eq!(
            all('a'..='z', ""),
            "Sun|Jan|Sun Jan  1 00:00:00 2023|01| 1|000000|22|Jan|%i|001| 0|12|01|\n|%o|AM|%q|12:00:00 AM|1672531200|\t|7|%v|0|\
             01/01/23|23|"
        );
        assert_eq!(
            all('A'..='Z', ""),
            "Sunday|January|20|01/01/23|%E|2023-01-01|2022|00|12|%J|%K|%L|00|%N|%O|am|%Q|00:00|00|00:00:00|01|52|00|00:00:00|\
             2023|"
        );
        assert_eq!(
            all('a'..='z', "-"),
            "Sun|Jan|Sun Jan  1 00:00:00 2023|1|1|%-f|22|Jan|%-i|1|0|12|1|\n|%-o|AM|%-q|12:00:00 AM|1672531200|\t|7|%-v|0|\
             01/01/23|23|"
        );
        assert_eq!(
            all('A'..='Z', "-"),
            "Sunday|January|20|01/01/23|%-E|2023-01-01|2022|0|12|%-J|%-K|%-L|0|%-N|%-O|am|%-Q|00:00|0|00:00:00|1|52|0|00:00:00|\
             2023|"
        );
        assert_eq!(written("2024-07-26", "%_m|%_H|%0e|%0k|%_d"), " 7| 0|26|00|26");
        assert_eq!(written("2024-07-26", "%-d. %B %Y, %d %b %Y"), "26. July 2024, 26 Jul 2024");
    }

    #[test]
    fn what_is_no_directive_stays_as_it_is() {
        let same = ["%", "%-", "a%", "%é", "%-é", "%:z", "%.f", "%3f", "%+", "% d", "no directive"];
        for pattern in same {
            assert_eq!(written("2024-07-26", pattern), pattern);
        }
        assert_eq!(written("2024-07-26", "100%% %%Y %Q%d"), "100% %Y %Q26");
    }

    #[test]
    fn days_before_and_after_leap_days_are_counted() {
        for (day, written_so) in
            [("1969-12-31", "Wed 365"), ("2000-02-29", "Tue 060"), ("2000-12-31", "Sun 366"), ("2100-03-01", "Mon 060")]
        {
            assert_eq!(written(day, "%a %j"), written_so);
        }
    }

    #[test]
    fn a_day_is_written_as_it_is_read() {
        for text in ["2024-07-26", "1970-01-01", "1969-12-31", "2000-02-29", "2100-03-01", "9999-12-31", "1000-01-01"] {
            assert_eq!(text.parse::<Day>().expect(text).to_string(), text);
        }
        assert_eq!(Day::default().format("%d %b %Y, %H:%M"), "26 Jul 2024, 00:00");
        assert_eq!("2024-07-26".parse(), Ok(Day::default()));
    }

    #[test]
    fn what_is_no_day_is_refused_with_the_form_of_one() {
        for text in [
            "",
            "today",
            "2024-7-26",
            "26-07-2024",
            "2023-02-29",
            "2024-04-31",
            "2024-13-01",
            "2024-00-10",
            "+024-07-26",
            "2024-07-26T00:00",
            "20240726--",
            "-999-01-01",
            "-0999-01-01",
            "+12024-07-26",
        ] {
            let why = text.parse::<Day>().expect_err(text);
            assert!(why.contains(text) && why.contains("2024-07-26"), "{why}");
        }
    }
}
