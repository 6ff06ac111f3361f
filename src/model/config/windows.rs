//! Which layers' attention slides, and by which window.

use super::{ConfigError, Reader};
use serde_json::Value;

/// How a family has its attention slide.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Windows {
    /// Whether it does at all. If not, a window that is given is another's.
    pub used: bool,
    /// The window where none is given. `null` says that there is none.
    pub default: Option<usize>,
    /// In which layers, where `layer_types` does not say.
    pub slides: Slides,
}

/// Which layers slide.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) enum Slides {
    All,
    /// The first, the third, and so on.
    EverySecond,
    /// All but every n-th, by `sliding_window_pattern`; this is its default.
    AllButEvery(usize),
    /// Those from `max_window_layers` on; this is its default.
    From(usize),
    /// None: what `layer_types` says is of something else.
    None,
}

/// Which layers slide, and by which window.
#[derive(Clone, Debug)]
pub(in crate::model) struct Sliding {
    pub window: Option<usize>,
    /// One entry per layer.
    pub layers: Vec<bool>,
}

impl Reader<'_> {
    /// Which of `n` layers slide.
    pub(in crate::model) fn windows(&self, windows: &Windows, n: usize) -> Result<Sliding, ConfigError> {
        const KEY: &str = "sliding_window";
        let n = self.bounded_layers(n)?;
        let window = match (self.opt_size(KEY)?, windows.default) {
            (_, _) if !windows.used => None,
            (None, Some(default)) if !self.given(KEY) => Some(self.assumed(KEY, default)),
            (given, _) => given,
        };
        // Where `layer_types` is given, the older keys that it is made of say nothing more.
        for key in ["max_window_layers", "sliding_window_pattern", "_sliding_window_pattern"] {
            self.take(key);
        }
        if matches!(windows.slides, Slides::None) {
            self.take("layer_types");
            return Ok(Sliding { window: None, layers: vec![false; n] });
        }
        let layers = match self.layer_types(n)? {
            None => self.slides(windows.slides, n, window.is_some())?,
            Some(typed) => match typed.iter().position(|slides| *slides).filter(|_| window.is_none()) {
                None => typed,
                Some(l) => {
                    let why = format!("layer {l} is `sliding_attention`, but no window is in use");
                    return Err(self.key("layer_types", why));
                }
            },
        };
        Ok(Sliding { window, layers })
    }

    /// Whether each layer slides where `layer_types` does not say it.
    fn slides(&self, slides: Slides, n: usize, windowed: bool) -> Result<Vec<bool>, ConfigError> {
        Ok(match slides {
            Slides::EverySecond => (0..n).map(|l| l.is_multiple_of(2)).collect(),
            Slides::AllButEvery(default) => {
                let every = self.opt_size("sliding_window_pattern")?.or(self.opt_size("_sliding_window_pattern")?);
                let every = every.unwrap_or_else(|| self.assumed("sliding_window_pattern", default));
                if every == 0 {
                    return Err(self.key("sliding_window_pattern", "must be positive"));
                }
                (0..n).map(|l| !(l + 1).is_multiple_of(every)).collect()
            }
            Slides::From(default) if windowed => {
                let from = self.opt_size("max_window_layers")?;
                let from = from.unwrap_or_else(|| self.assumed("max_window_layers", default));
                (0..n).map(|l| l >= from).collect()
            }
            Slides::All | Slides::From(_) => vec![true; n],
            Slides::None => vec![false; n],
        })
    }

    /// `layer_types`, as whether each layer's attention slides.
    fn layer_types(&self, n: usize) -> Result<Option<Vec<bool>>, ConfigError> {
        let Some(value) = self.take("layer_types") else { return Ok(None) };
        let types = value.as_array().ok_or_else(|| self.key("layer_types", "expected a list"))?;
        if types.len() != n {
            return Err(self.key("layer_types", format!("has {} entries for {n} layers", types.len())));
        }
        let slides = |t: &Value| match t.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(self.key("layer_types", format!("unknown type {t}; known are full_attention, sliding_attention"))),
        };
        types.iter().map(slides).collect::<Result<_, _>>().map(Some)
    }
}
