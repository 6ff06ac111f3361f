//! The day that a chat template takes for today, and `strftime` for the dates that it writes, in UTC and English, which is
//! all that they need: no time zones, no locales.

use std::fmt;
use std::str::FromStr;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_A_DAY: i64 = 86_400;

/// A day of the calendar, written `YYYY-MM-DD`. A parameter of what is computed, like a seed: never the clock's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Its first second, since 1970 in UTC.
    start: i64,
}

impl Default for Day {
    /// 26 July 2024, which Llama 3's templates write where they are given no date.
    fn default() -> Self {
        Day { start: 1_721_952_000 }
    }
}

impl Day {
    /// Midnight of the day, by the `strftime` pattern. A directive that is not known stays as it is.
    pub(in crate::model::template) fn format(self, pattern: &str) -> String {
        format(self.start, pattern)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("%Y-%m-%d"))
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no day; write it as 2024-07-26");
        if text.len() != "2024-07-26".len() {
            return Err(wrong());
        }
        let parts: Vec<i64> =
            text.split('-').map(|part| part.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
        let [year, month, day] = parts[..] else { return Err(wrong()) };
        // By Howard Hinnant's `days_from_civil`, the reverse of what [`Moment::new`] does. A day that there is not, such as
        // the 30th of February, becomes another.
        let from_march = if month > 2 { month - 3 } else { month + 9 };
        let year = year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * from_march + 2) / 5 + day - 1;
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
        Some(Day { start: days * SECONDS_A_DAY }).filter(|day| day.to_string() == text).ok_or_else(wrong)
    }
}

/// A moment, taken apart.
struct Moment {
    year: i64,
    /// 1 to 12.
    month: i64,
    /// 1 to 31.
    day: i64,
    /// 1 to 366.
    day_of_year: i64,
    /// 0 is Sunday.
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

/// `seconds` since 1970 by the `strftime` pattern. A directive that is not known stays as it is.
fn format(seconds: i64, pattern: &str) -> String {
    let moment = Moment::new(seconds);
    let mut out = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = characters.next();
        // glibc's "do not pad".
        let bare = directive == Some('-');
        if bare {
            directive = characters.next();
        }
        match directive.and_then(|letter| moment.directive(letter)) {
            Some(text) if bare => out.push_str(trim_padding(&text)),
            Some(text) => out.push_str(&text),
            None => {
                out.push('%');
                out.extend(bare.then_some('-'));
                out.extend(directive);
            }
        }
    }
    out
}

fn trim_padding(text: &str) -> &str {
    let trimmed = text.trim_start_matches(['0', ' ']);
    if trimmed.is_empty() { "0" } else { trimmed }
}

impl Moment {
    /// By Howard Hinnant's `civil_from_days` (chrono-compatible low-level date algorithms), which
    /// counts years from March so that the leap day comes last.
    fn new(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_A_DAY);
        let second = seconds.rem_euclid(SECONDS_A_DAY);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let day = from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        // The days from January to the end of February, which the count from March leaves out.
        let day_of_year = match month {
            1 => day,
            2 => 31 + day,
            _ => from_march + 60 + i64::from(leap),
        };
        Self {
            year,
            month,
            day,
            day_of_year,
            weekday: (days + 4).rem_euclid(7),
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    fn month_name(&self) -> &'static str {
        let index = usize::try_from(self.month - 1).unwrap_or_default();
        MONTHS.get(index).copied().unwrap_or_default()
    }

    fn day_name(&self) -> &'static str {
        let index = usize::try_from(self.weekday).unwrap_or_default();
        DAYS.get(index).copied().unwrap_or_default()
    }

    fn directive(&self, letter: char) -> Option<String> {
        let twelve = if self.hour % 12 == 0 { 12 } else { self.hour % 12 };
        Some(match letter {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:>2}", self.day),
            'j' => format!("{:03}", self.day_of_year),
            'B' => self.month_name().to_owned(),
            'b' | 'h' => self.month_name().chars().take(3).collect(),
            'A' => self.day_name().to_owned(),
            'a' => self.day_name().chars().take(3).collect(),
            'w' => self.weekday.to_string(),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{twelve:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => (if self.hour < 12 { "AM" } else { "PM" }).to_owned(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            'T' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Day, format};

    #[test]
    fn known_moments_are_written_as_strftime_writes_them() {
        assert_eq!(format(0, "%d %b %Y %H:%M:%S %A %j"), "01 Jan 1970 00:00:00 Thursday 001");
        // 29 February 2000 and the end of a leap year.
        assert_eq!(format(951_782_400, "%F %a %j"), "2000-02-29 Tue 060");
        assert_eq!(format(978_307_199, "%F %T %j"), "2000-12-31 23:59:59 366");
        assert_eq!(format(1_721_992_830, "%d %B %Y, %I:%M %p"), "26 July 2024, 11:20 AM");
        assert_eq!(format(-1, "%F %T"), "1969-12-31 23:59:59");
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
        ] {
            let why = text.parse::<Day>().expect_err(text);
            assert!(why.contains(text) && why.contains("2024-07-26"), "{why}");
        }
    }

    #[test]
    fn unpadded_and_unknown_directives() {
        assert_eq!(format(0, "%-d/%-m %e %y %% %Q %-Q %"), "1/1  1 70 % %Q %-Q %");
        assert_eq!(format(0, "%-H"), "0");
    }
}
