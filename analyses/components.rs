//! What a logit difference is a sum of in one run: the components of the residual stream, with the final norm's scale held
//! fixed, and what the logsumexp over several tokens has beyond its weighted sum.
//!
//! The attributions themselves are computed by [`crate::run`] while a pass goes by; what they say is left to the analyses.

use super::effects::{Tested, family};
use crate::analyses::prelude::*;
use crate::stats::bca_mean;
use std::borrow::Cow;

/// The names in tables, for their documentation.
pub const NAMES: &str =
    "embed, head.H, mlp, bias, or logsumexp: what the logsumexp over several tokens has beyond its weighted sum";

/// What layers in tables are, for their documentation.
pub const LAYERS: &str = "layer; -1: embedding; the number of layers: final norm and logsumexp";

/// What reports call a component in a layer, by its layer and name: `L4.H1`, `L5 mlp`; and `embedding`, `logsumexp`.
pub fn label(layer: i64, name: &str) -> String {
    match name.strip_prefix("head.") {
        Some(head) => format!("L{layer}.H{head}"),
        None if name == "embed" => "embedding".to_string(),
        None if name == LOGSUMEXP => name.to_string(),
        None => format!("L{layer} {name}"),
    }
}

/// [`label`] of what may be the final norm's bias too, of a model of so many layers.
pub fn label_of(layer: i64, name: &str, n_layers: i64) -> String {
    if name == "bias" && layer == n_layers { "final norm bias".to_string() } else { label(layer, name) }
}

/// How many layers a table's components are of, by their MLPs.
pub fn n_layers<'a>(components: impl Iterator<Item = OfComponent<'a>>) -> i64 {
    components.filter(|c| c.component == "mlp").map(|c| c.layer + 1).max().unwrap_or(0)
}

/// What the column of writers is, for its documentation.
pub const WRITERS: &str = "what writes to the stream, as tables of edges name it: aLAYER.hHEAD, mLAYER, input; empty for biases and the \
                           logsumexp";

/// A component's name as a writer in tables of edges: `a12.h5`, `m12`, `input`; none of a bias or the logsumexp.
pub fn writer(layer: i64, name: &str) -> Option<String> {
    match (name, name.strip_prefix("head.")) {
        (_, Some(head)) => Some(format!("a{layer}.h{head}")),
        ("mlp", _) => Some(format!("m{layer}")),
        ("embed", _) => Some("input".to_string()),
        _ => None,
    }
}

rows! {
    /// The component that a row is of.
    #[derive(Copy)]
    pub struct OfComponent<'a> {
        layer: i64 = "layer; -1: embedding; the number of layers: final norm and logsumexp",
        component: &'a str =
            "embed, head.H, mlp, bias, or logsumexp: what the logsumexp over several tokens has beyond its weighted sum",
    }

    /// A component as the tables of edges name it.
    pub struct OfWriter<'a> {
        writer: Option<Cow<'a, str>> =
            "what writes to the stream, as tables of edges name it: aLAYER.hHEAD, mLAYER, input; empty for biases and the \
             logsumexp",
    }
}

impl<'a> From<&'a Component> for OfComponent<'a> {
    fn from(component: &'a Component) -> Self {
        OfComponent { layer: component.layer, component: &component.name }
    }
}

impl From<&Component> for OfWriter<'_> {
    fn from(component: &Component) -> Self {
        OfWriter { writer: component.writer().map(Cow::Owned) }
    }
}

pub(super) const LOGSUMEXP: &str = "logsumexp";

/// A component of the residual stream, or the logsumexp's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The layer; -1 for the embedding, the number of layers for the final norm and the logsumexp.
    pub layer: i64,
    /// `embed`, `head.H`, `mlp`, `bias`, `logsumexp`
    pub name: String,
}

impl Component {
    /// [`writer`]
    pub fn writer(&self) -> Option<String> {
        writer(self.layer, &self.name)
    }

    /// The head, if it is one.
    pub fn head(&self) -> Option<usize> {
        self.name.strip_prefix("head.")?.parse().ok()
    }
}

/// All components, in the order of the flow.
pub fn components(n_layers: usize, n_heads: usize) -> Vec<Component> {
    let one = |layer: usize, name: String| Component { layer: layer as i64, name };
    let mut all = vec![Component { layer: -1, name: "embed".to_string() }];
    for layer in 0..n_layers {
        all.extend((0..n_heads).map(|h| one(layer, format!("head.{h}"))));
        all.push(one(layer, "bias".to_string()));
        all.push(one(layer, "mlp".to_string()));
    }
    all.push(one(n_layers, "bias".to_string()));
    all.push(one(n_layers, LOGSUMEXP.to_string()));
    all
}

/// Leaves out biases that the model has not, and the logsumexp of one token: zeros in every item.
pub fn without_empty(components: Vec<Component>, attributions: Vec<Vec<f64>>) -> (Vec<Component>, Vec<Vec<f64>>) {
    let optional = |c: &Component| c.name == "bias" || c.name == LOGSUMEXP;
    let there = |c: usize| !optional(&components[c]) || attributions.iter().any(|a| a[c] != 0.0);
    let kept: Vec<usize> = (0..components.len()).filter(|c| there(*c)).collect();
    let attributions = attributions.iter().map(|a| kept.iter().map(|c| a[*c]).collect()).collect();
    (kept.iter().map(|c| components[*c].clone()).collect(), attributions)
}

/// The attributions of one item, in the order of its components.
pub fn attributions(of: &Array, components: &[Component], n_heads: usize) -> Vec<f64> {
    let values = &of.values;
    let layers = values.len() / (n_heads + 2) - 1;
    let cell = |layer: usize, column: usize| values.get(layer * (n_heads + 2) + column).map_or(0.0, |v| f64::from(*v));
    let of = |c: &Component| match (usize::try_from(c.layer), c.name.as_str()) {
        (Err(_), _) => cell(layers, 0),
        (Ok(_), LOGSUMEXP) => cell(layers, 2),
        (Ok(layer), "bias") if layer == layers => cell(layers, 1),
        (Ok(layer), "bias") => cell(layer, n_heads + 1),
        (Ok(layer), "mlp") => cell(layer, n_heads),
        (Ok(layer), head) => cell(layer, head.trim_start_matches("head.").parse().unwrap_or(0)),
    };
    components.iter().map(of).collect()
}

/// Intervals of each component's numbers over items, and tests, of which the components of the residual stream are the family:
/// the logsumexp is of the metric's tokens, and a hypothesis on it is one on no component.
///
/// # Errors
/// If numbers are not all there.
pub fn tested(components: &[Component], numbers: &[Vec<f64>], seed: u64) -> Result<Vec<Tested>, AnalysisError> {
    let in_stream = |c: &usize| components[*c].name != LOGSUMEXP;
    let asked: Vec<usize> = (0..components.len()).filter(in_stream).collect();
    let of_family: Vec<Vec<f64>> = asked.iter().map(|c| numbers[*c].clone()).collect();
    let mut tested = vec![Tested::default(); components.len()];
    asked.iter().zip(family(&of_family, seed)?).for_each(|(c, found)| tested[*c] = found);
    for c in (0..components.len()).filter(|c| !in_stream(c)) {
        let interval = bca_mean(&numbers[c], &Bootstrap { seed, ..Bootstrap::default() });
        tested[c].interval = interval.map(|i| (i.low, i.high));
    }
    Ok(tested)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of one layer and two heads.
    fn read(values: &[f32]) -> (Vec<Component>, Vec<f64>) {
        let reading = Array { shape: vec![2, 4], values: values.to_vec() };
        let all = components(1, 2);
        let attributions = attributions(&reading, &all, 2);
        (all, attributions)
    }

    #[test]
    fn the_logsumexps_remainder_is_no_bias_and_each_cell_has_its_component() {
        let (all, values) = read(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.0]);
        let found: Vec<(String, f64)> = all.iter().map(|c| label_of(c.layer, &c.name, 1)).zip(values).collect();
        let expected = [
            ("embedding", 5.0),
            ("L0.H0", 1.0),
            ("L0.H1", 2.0),
            ("L0 bias", 4.0),
            ("L0 mlp", 3.0),
            ("final norm bias", 6.0),
            ("logsumexp", 7.0),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_string(), value)));
        let writers: Vec<Option<String>> = all.iter().map(Component::writer).collect();
        let named = |name: &str| Some(name.to_string());
        assert_eq!(writers, [named("input"), named("a0.h0"), named("a0.h1"), None, named("m0"), None, None]);
    }

    #[test]
    fn what_a_model_has_not_is_left_out_and_the_logsumexp_is_no_hypothesis() {
        let one = |x: f32| read(&[x, -x, 1.0, 0.0, 0.5, 0.0, 0.3, 0.0]);
        let (all, _) = one(1.0);
        let of_items = [1.0, 2.0, 1.5].map(|x| one(x).1).to_vec();
        let (kept, of_items) = without_empty(all, of_items);
        let names: Vec<&str> = kept.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["embed", "head.0", "head.1", "mlp", "logsumexp"]);
        let numbers: Vec<Vec<f64>> = (0..kept.len()).map(|c| of_items.iter().map(|a| a[c]).collect()).collect();
        let tested = tested(&kept, &numbers, 0).unwrap();
        assert_eq!(tested.iter().map(|t| t.q.is_some()).collect::<Vec<_>>(), [true, true, true, true, false]);
        assert!(tested.iter().all(|t| t.interval.is_some()));
    }
}
