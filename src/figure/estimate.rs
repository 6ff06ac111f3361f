//! A number with the interval around it: what an analysis has to show for a head, a layer or a concept.

use super::axis::{drawable, drawable_interval};
use super::style::written;

/// A number with what is known about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// The ends of its interval; without an end that is finite none is drawn.
    pub interval: Option<(f64, f64)>,
    /// Whether it is set off from the others, as significant for example; none where that was not asked of it.
    pub marked: Option<bool>,
}

impl Estimate {
    /// A number without an interval, not marked.
    pub fn new(value: f64) -> Estimate {
        Estimate { value, interval: None, marked: Some(false) }
    }

    /// The same with an interval.
    pub fn within(self, low: f64, high: f64) -> Estimate {
        Estimate { interval: Some((low, high)), ..self }
    }

    /// The same, marked or not.
    pub fn marked(self, marked: bool) -> Estimate {
        Estimate { marked: Some(marked), ..self }
    }

    /// The same, of which it was not asked whether it is to be marked.
    pub fn untested(self) -> Estimate {
        Estimate { marked: None, ..self }
    }

    /// Whether it is marked.
    pub(super) fn is_marked(self) -> bool {
        self.marked == Some(true)
    }

    /// The estimate with what can be drawn of it; none where its number cannot.
    pub(super) fn drawable(self) -> Option<Estimate> {
        drawable(self.value)?;
        Some(Estimate { interval: drawable_interval(self.interval), ..self })
    }

    /// What a tip says: `0.412 [0.203, 0.618]; q < 0.05`, with what a mark says where it is marked.
    /// Shares are told in percent.
    pub(super) fn told(self, mark: Option<&str>, shares: bool) -> String {
        let told = |x: f64| if shares { written(100.0 * x) } else { written(x) };
        let unit = if shares { "\u{a0}%" } else { "" };
        let interval = self.interval.map(|(low, high)| format!(" [{}, {}]{unit}", told(low), told(high)));
        let mark = mark.filter(|_| self.is_marked()).map(|meaning| format!("; {meaning}"));
        format!("{}{unit}{}{}", told(self.value), interval.unwrap_or_default(), mark.unwrap_or_default())
    }

    /// The numbers that an axis must have room for.
    pub(super) fn values(self) -> impl Iterator<Item = f64> {
        let (low, high) = self.interval.unwrap_or((self.value, self.value));
        [self.value, low, high].into_iter()
    }
}

/// Whether an interval is drawn with any of them.
pub(super) fn has_intervals(mut drawable: impl Iterator<Item = Estimate>) -> bool {
    drawable.any(|estimate| estimate.interval.is_some())
}
