//! How values are written in tables and sentences, one way for all reports.
//!
//! A true minus sign, spaces that do not break, and [`EMPTY`] where there is no value. Tables in HTML sort by what
//! these write. Which value is written how is left to [`super::listing`] and the analyses.

/// What stands where there is no value.
pub const EMPTY: &str = "–";

/// Below this a p-value is only said to be below it.
const SMALLEST_P: f64 = 0.001;

/// Numbers from here on are written with an exponent.
const LARGEST_WRITTEN_OUT: f64 = 1e9;

/// Whole numbers from here on are written in groups of three digits.
const SMALLEST_GROUPED: u64 = 10_000;

/// `0.25`, `−1.50`, `∞`; what rounds to zero has no sign.
pub fn number(x: impl Into<Option<f64>>, digits: usize) -> String {
    with_sign(x.into(), digits, "")
}

/// `0.50`, `−0.125`: a number of a grid, with as many digits as it has, two to four.
pub fn exact(x: impl Into<Option<f64>>) -> String {
    let x = x.into();
    let whole = |digits: &usize| x.is_some_and(|x| (x * 10f64.powi(*digits as i32)).fract().abs() < 1e-9);
    number(x, (2..4).find(whole).unwrap_or(if x.is_some_and(f64::is_finite) { 4 } else { 2 }))
}

/// `+0.25`, `−1.50`, `0.00`: an effect, whose direction counts.
pub fn signed(x: impl Into<Option<f64>>, digits: usize) -> String {
    with_sign(x.into(), digits, "+")
}

/// `48.9 %` of 0.489.
pub fn share(x: impl Into<Option<f64>>) -> String {
    match present(x.into()) {
        Some(share) => format!("{}\u{a0}%", number(100.0 * share, 1)),
        None => EMPTY.to_owned(),
    }
}

/// `0.042`, `< 0.001`.
pub fn p_value(x: impl Into<Option<f64>>) -> String {
    match present(x.into()) {
        Some(p) if p < SMALLEST_P => format!("<\u{a0}{SMALLEST_P}"),
        p => number(p, 3),
    }
}

/// `[−0.50, 0.25]`; empty unless both ends are there.
pub fn interval(low: impl Into<Option<f64>>, high: impl Into<Option<f64>>, digits: usize) -> String {
    match present(low.into()).zip(present(high.into())) {
        Some((low, high)) => format!("[{},\u{a0}{}]", number(low, digits), number(high, digits)),
        None => EMPTY.to_owned(),
    }
}

/// `[12.5, 40.0] %`: an interval of a share; `[0.25, 0.34] %` where one digit would make one number of both ends.
pub fn share_interval(ends: Option<(f64, f64)>) -> String {
    let (low, high) = ends.map(|(low, high)| (100.0 * low, 100.0 * high)).unzip();
    let digits = if low != high && number(low, 1) == number(high, 1) { 2 } else { 1 };
    let text = interval(low, high, digits);
    if text == EMPTY { text } else { format!("{text}\u{a0}%") }
}

/// `−28.1 points` of −0.281: a difference of shares, which is no share itself.
pub fn points(x: impl Into<Option<f64>>) -> String {
    match present(x.into()) {
        Some(share) => format!("{}\u{a0}points", signed(100.0 * share, 1)),
        None => EMPTY.to_owned(),
    }
}

/// `[−45.4, −10.5] points`
pub fn points_interval(ends: Option<(f64, f64)>) -> String {
    let (low, high) = ends.map(|(low, high)| (100.0 * low, 100.0 * high)).unzip();
    let text = interval(low, high, 1);
    if text == EMPTY { text } else { format!("{text}\u{a0}points") }
}

/// `480`, `134 515 008`: a whole number, in groups of three digits where it is long.
pub fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let sign = if n < 0 { "−" } else { "" };
    if n.unsigned_abs() < SMALLEST_GROUPED {
        return format!("{sign}{digits}");
    }
    let mut grouped = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 pair`, `12 pairs`: so many of what has a regular plural.
pub fn plural(n: i64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A text with its first letter in upper case.
pub fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `L23.H3`: a head by its layer and its number there, both from 0.
pub fn head(layer: i64, head: i64) -> String {
    format!("L{layer}.H{head}")
}

/// `L23.N1234`, or `L23.E3.N12` of an expert: a neuron by its layer and its number there, all from 0.
pub fn neuron(layer: i64, expert: Option<i64>, neuron: i64) -> String {
    match expert {
        Some(expert) => format!("L{layer}.E{expert}.N{neuron}"),
        None => format!("L{layer}.N{neuron}"),
    }
}

fn present(x: Option<f64>) -> Option<f64> {
    x.filter(|x| !x.is_nan())
}

fn with_sign(x: Option<f64>, digits: usize, plus: &str) -> String {
    let Some(x) = present(x) else {
        return EMPTY.to_owned();
    };
    let size = match x.abs() {
        infinite if infinite.is_infinite() => "∞".to_owned(),
        large if large >= LARGEST_WRITTEN_OUT => format!("{large:.digits$e}"),
        other => format!("{other:.digits$}"),
    };
    let zero = size.chars().all(|letter| matches!(letter, '0' | '.'));
    let sign = match x < 0.0 {
        _ if zero => "",
        true => "−",
        false => plus,
    };
    format!("{sign}{size}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_true_minus_and_effects_a_plus() {
        assert_eq!(
            [number(0.25, 2), number(-1.5, 2), signed(0.25, 2), signed(-1.5, 2)],
            ["0.25", "−1.50", "+0.25", "−1.50"]
        );
    }

    #[test]
    fn coefficients_keep_their_digits() {
        let written = [0.5, -0.125, 4.0, 0.0625, 1.0 / 3.0, f64::NAN].map(exact);
        assert_eq!(written, ["0.50", "−0.125", "4.00", "0.0625", "0.3333", EMPTY]);
    }

    #[test]
    fn what_rounds_to_zero_has_no_sign() {
        assert_eq!(
            [signed(-0.0004, 3), signed(0.0004, 3), number(-0.0, 0), signed(-0.0006, 3)],
            ["0.000", "0.000", "0", "−0.001"]
        );
    }

    #[test]
    fn no_value_is_a_dash_whatever_it_was_to_be() {
        let cells = [number(None, 1), signed(f64::NAN, 1), share(None), p_value(None), interval(1.0, None, 1)];
        assert!(cells.iter().all(|cell| cell == EMPTY), "{cells:?}");
    }

    #[test]
    fn numbers_of_any_size_stay_short() {
        assert_eq!(
            [number(f64::NEG_INFINITY, 2), signed(f64::INFINITY, 2), number(-1e300, 1), number(999_999.0, 0)],
            ["−∞", "+∞", "−1.0e300", "999999"]
        );
    }

    #[test]
    fn shares_and_p_values_and_intervals_are_as_papers_have_them() {
        assert_eq!([share(0.489), share(-0.0812), share(1.0)], ["48.9\u{a0}%", "−8.1\u{a0}%", "100.0\u{a0}%"]);
        assert_eq!(
            [p_value(0.0), p_value(0.00099), p_value(0.001), p_value(0.0423), p_value(1.0)],
            ["<\u{a0}0.001", "<\u{a0}0.001", "0.001", "0.042", "1.000"]
        );
        assert_eq!(interval(-0.5, 0.25, 2), "[−0.50,\u{a0}0.25]");
        assert_eq!(share_interval(Some((-0.015, 0.107))), "[−1.5,\u{a0}10.7]\u{a0}%");
        assert_eq!(share_interval(None), interval(None, None, 1));
        assert_eq!(share_interval(Some((0.00254, 0.0034))), "[0.25,\u{a0}0.34]\u{a0}%");
        assert_eq!(share_interval(Some((0.0, 0.0))), "[0.0,\u{a0}0.0]\u{a0}%");
        assert_eq!([points(-0.28125), points(None)], ["−28.1\u{a0}points", EMPTY]);
        assert_eq!(points_interval(Some((-0.454, -0.105))), "[−45.4,\u{a0}−10.5]\u{a0}points");
    }

    #[test]
    fn one_of_a_kind_is_singular() {
        assert_eq!(
            [plural(1, "pair"), plural(0, "pair"), plural(12_000, "head")],
            ["1 pair", "0 pairs", "12\u{202f}000 heads"]
        );
    }

    #[test]
    fn long_counts_are_grouped() {
        assert_eq!(
            [count(0), count(9_999), count(-12_345), count(134_515_008)],
            ["0", "9999", "−12\u{202f}345", "134\u{202f}515\u{202f}008"]
        );
        assert_eq!(count(i64::MIN), "−9\u{202f}223\u{202f}372\u{202f}036\u{202f}854\u{202f}775\u{202f}808");
    }
}
