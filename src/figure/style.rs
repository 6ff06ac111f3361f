//! What all figures share: sizes, colours, ticks and how numbers are written.

/// A colour by its red, green and blue parts, as it is printed on white.
///
/// A page shows the colours that [`role`](Color::role) names in its own way, so that figures can be read on a dark ground too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub u8, pub u8, pub u8);

/// Title: 8 pt in print.
pub const TITLE_SIZE: f32 = 56.0;
/// Axis labels: 7 pt in print.
pub const LABEL_SIZE: f32 = 50.0;
/// Ticks, legends and remarks: 6.2 pt in print.
pub const TICK_SIZE: f32 = 44.0;

/// Text and axes.
pub const INK: Color = Color(26, 26, 26);
/// Text of less weight.
pub const FAINT_INK: Color = Color(90, 90, 90);
/// Lines between cells and behind curves.
pub const GRID: Color = Color(222, 222, 222);
/// White.
pub const PAPER: Color = Color(255, 255, 255);
/// Ranges that belong to no series.
pub const BAND: Color = Color(206, 206, 206);
/// What series are compared to.
pub const CONTROL: Color = Color(140, 140, 140);
/// The ground of what has no value.
pub const EMPTY_GROUND: Color = Color(240, 240, 240);
/// The stripes of what has no value.
pub const EMPTY_STRIPE: Color = Color(204, 204, 204);

/// What the colours that are no data's are for, as classes in SVG.
const ROLES: [(Color, &str); 9] = [
    (INK, "ink"),
    (FAINT_INK, "faint"),
    (GRID, "grid"),
    (PAPER, "paper"),
    (BAND, "band"),
    (CONTROL, "control"),
    (EMPTY_GROUND, "empty"),
    (EMPTY_STRIPE, "stripe"),
    // The last series is as dark as ink.
    (SERIES[6], "ink"),
];

impl Color {
    /// What the colour is for, where it is not for data: pages have colours of their own for these.
    pub fn role(self) -> Option<&'static str> {
        ROLES.iter().find(|(color, _)| *color == self).map(|(_, role)| *role)
    }

    /// `#1a1a1a`.
    pub fn hex(self) -> String {
        let Color(red, green, blue) = self;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }
}

/// Labels of so many letters need no powers of ten.
const PLAIN_DIGITS: usize = 6;

/// Colours for series that colour-blind readers can tell apart (Okabe and Ito).
pub const SERIES: [Color; 7] = [
    Color(0, 114, 178),
    Color(213, 94, 0),
    Color(0, 158, 115),
    Color(204, 121, 167),
    Color(86, 180, 233),
    Color(230, 159, 0),
    Color(0, 0, 0),
];

/// ColorBrewer's RdBu from blue (negative) through near white to red (positive), safe for colour-blind readers.
const DIVERGING: [Color; 11] = [
    Color(5, 48, 97),
    Color(33, 102, 172),
    Color(67, 147, 195),
    Color(146, 197, 222),
    Color(209, 229, 240),
    Color(247, 247, 247),
    Color(253, 219, 199),
    Color(244, 165, 130),
    Color(214, 96, 77),
    Color(178, 24, 43),
    Color(103, 0, 31),
];

/// The colour of a share of the scale from -1 (blue) through 0 (near white) to 1 (red).
pub fn diverging(share: f64) -> Color {
    let place = (share.clamp(-1.0, 1.0) + 1.0) / 2.0 * (DIVERGING.len() - 1) as f64;
    let below = (place.floor() as usize).min(DIVERGING.len() - 2);
    let (from, to, part) = (DIVERGING[below], DIVERGING[below + 1], place - below as f64);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    Color(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// Ink or paper, whichever is easier to see on that ground.
pub fn contrast(ground: Color) -> Color {
    let luma = 0.299 * f64::from(ground.0) + 0.587 * f64::from(ground.1) + 0.114 * f64::from(ground.2);
    if luma > 135.0 { INK } else { PAPER }
}

/// The distance between ticks, 1, 2 or 5 times a power of ten, that puts at most `most` of them into `span`.
pub fn nice_step(span: f64, most: usize) -> f64 {
    let rough = span / most.max(1) as f64;
    if !rough.is_finite() || rough < f64::MIN_POSITIVE {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Round values from `low` to `high`, about `most` of them.
pub fn nice_ticks(low: f64, high: f64, most: usize) -> Vec<f64> {
    let step = nice_step(high - low, most);
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    if !(first.is_finite() && last.is_finite()) || last - first > 1000.0 {
        return Vec::new();
    }
    (first as i64..=last as i64).map(|index| index as f64 * step).collect()
}

/// Every how many indices a tick stands, so that ticks keep `needed` pixels when an index has `pixels`.
pub fn index_step(pixels: f32, needed: f32) -> usize {
    let fits = |step: &usize| *step as f32 * pixels >= needed;
    [1, 2, 5, 10, 20, 50, 100, 200, 500].into_iter().find(fits).unwrap_or(1000)
}

/// The labels of an axis' ticks, all with the digits that their step needs, and a real minus sign.
///
/// Powers of ten are written only where that is shorter, and then for all of them.
pub fn tick_labels(values: &[f64], step: f64) -> Vec<String> {
    let fine = exponent(step);
    let decimals = (-fine).clamp(0, 20) as usize;
    let zero = |value: f64| value.abs() < step * 1e-6;
    let plain = |value: &f64| if zero(*value) { "0".to_owned() } else { format!("{value:.decimals$}") };
    let scientific = |value: &f64| {
        let digits = exponent(value.abs()).saturating_sub(fine).max(0) as usize;
        if zero(*value) { "0".to_owned() } else { format!("{value:.digits$e}") }
    };
    let plain: Vec<String> = values.iter().map(plain).collect();
    let scientific: Vec<String> = values.iter().map(scientific).collect();
    let longest = |labels: &[String]| labels.iter().map(|label| label.trim_start_matches('-').len()).max();
    let short = decimals < 20 && (longest(&plain) <= Some(PLAIN_DIGITS) || longest(&plain) <= longest(&scientific));
    let labels = if short { plain } else { scientific };
    labels.into_iter().map(with_minus).collect()
}

/// The power of ten of a number's first digit.
fn exponent(value: f64) -> i32 {
    (value.log10() + 1e-9).floor() as i32
}

/// A value with its sign and three digits that count.
pub fn signed(value: f64) -> String {
    let size = value.abs();
    let text = if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:+.1e}")
    } else {
        // One digit before the point takes two behind it: 1.23, 12.3, 123, 0.123.
        let decimals = (2.0 - size.log10().floor()).clamp(0.0, 5.0);
        format!("{value:+.0$}", decimals as usize)
    };
    with_minus(text)
}

/// A value with three digits that count, and a sign where it is negative.
pub fn written(value: f64) -> String {
    signed(value).trim_start_matches('+').to_owned()
}

fn with_minus(text: String) -> String {
    text.replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_centred_and_opposite_ends_differ() {
        assert_eq!(diverging(0.0), Color(247, 247, 247));
        assert_eq!(diverging(-1.0), Color(5, 48, 97));
        assert_eq!(diverging(1.0), Color(103, 0, 31));
        assert_eq!(diverging(7.0), diverging(1.0));
    }

    #[test]
    fn ticks_are_round_and_within_the_range() {
        assert_eq!(nice_ticks(-1.0, 1.0, 4), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(nice_ticks(0.0, 7.3, 5), [0.0, 2.0, 4.0, 6.0]);
        assert_eq!(nice_ticks(3.0, 3.0, 5), [3.0]);
        assert!(nice_ticks(f64::NAN, 1.0, 5).is_empty() && nice_ticks(0.0, f64::INFINITY, 5).len() <= 1);
    }

    #[test]
    fn labels_have_the_digits_that_their_step_needs() {
        assert_eq!(tick_labels(&[-0.5, 0.0, 0.5], 0.5), ["−0.5", "0", "0.5"]);
        assert_eq!(tick_labels(&[1.0, 1.2], 0.2), ["1.0", "1.2"]);
        assert_eq!(tick_labels(&[1.0, 1.1], 0.1), ["1.0", "1.1"]);
        assert_eq!(tick_labels(&[1.0, 2.0], 1.0), ["1", "2"]);
        assert_eq!(tick_labels(&[20.0, 100_000.0], 10.0), ["20", "100000"]);
        assert_eq!(tick_labels(&[-1e-17, 0.01], 0.01), ["0", "0.01"]);
    }

    #[test]
    fn very_small_and_very_large_labels_have_powers_of_ten_and_stay_apart() {
        assert_eq!(tick_labels(&[0.0, 2e-6], 2e-6), ["0", "2e−6"]);
        assert_eq!(tick_labels(&[-5e-7, 1e-6, 1.5e-6], 5e-7), ["−5e−7", "1.0e−6", "1.5e−6"]);
        assert_eq!(tick_labels(&[5e8, 1e9], 5e8), ["5e8", "1.0e9"]);
        assert_eq!(tick_labels(&[1_000_000.0, 1_000_000.5], 0.5), ["1000000.0", "1000000.5"]);
    }

    #[test]
    fn values_have_three_digits_and_their_sign() {
        assert_eq!(signed(0.5), "+0.500");
        assert_eq!(signed(-12.345), "−12.3");
        assert_eq!(signed(1234.0), "+1234");
        assert_eq!([signed(0.00251), signed(-0.0123)], ["+0.00251", "−0.0123"]);
        assert_eq!(signed(-0.00001), "−1.0e−5");
        assert_eq!(signed(0.0), "0");
        assert_eq!([written(0.5), written(-12.345)], ["0.500", "−12.3"]);
    }

    #[test]
    fn index_ticks_thin_out_when_cells_are_small() {
        assert_eq!([100.0, 20.0, 9.0].map(|pixels| index_step(pixels, 80.0)), [1, 5, 10]);
    }
}
