//! The components of the residual stream, and what each contributes to a logit difference in one run.

use crate::run::Reading;

/// What reports call a component, by its layer and name: `L4.H1`, `L5 mlp`, `embedding`.
pub fn label(layer: i64, name: &str) -> String {
    match name.strip_prefix("head.") {
        Some(head) => format!("L{layer}.H{head}"),
        None if name == "embed" => "embedding".to_string(),
        None => format!("L{layer} {name}"),
    }
}

/// A component of the residual stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The layer; -1 for the embedding, the number of layers for the final norm.
    pub layer: i64,
    /// `embed`, `head.H`, `mlp`, `bias`
    pub name: String,
}

impl Component {
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
    all
}

/// Leaves out biases that the family has not: zeros in every item, which would only make the family of tests larger.
pub fn without_empty(components: Vec<Component>, attributions: Vec<Vec<f64>>) -> (Vec<Component>, Vec<Vec<f64>>) {
    let there = |c: usize| components[c].name != "bias" || attributions.iter().any(|a| a[c] != 0.0);
    let kept: Vec<usize> = (0..components.len()).filter(|c| there(*c)).collect();
    let attributions = attributions.iter().map(|a| kept.iter().map(|c| a[*c]).collect()).collect();
    (kept.iter().map(|c| components[*c].clone()).collect(), attributions)
}

/// The attributions of one item, in the order of its components.
pub fn attributions(reading: &Reading, components: &[Component], n_heads: usize) -> Vec<f64> {
    let values = reading.values();
    let layers = values.len() / (n_heads + 2) - 1;
    let cell = |layer: usize, column: usize| values.get(layer * (n_heads + 2) + column).map_or(0.0, |v| f64::from(*v));
    let of = |c: &Component| match (usize::try_from(c.layer), c.name.as_str()) {
        (Err(_), _) => cell(layers, 0),
        (Ok(layer), "bias") if layer == layers => cell(layers, 1),
        (Ok(layer), "bias") => cell(layer, n_heads + 1),
        (Ok(layer), "mlp") => cell(layer, n_heads),
        (Ok(layer), head) => cell(layer, head.trim_start_matches("head.").parse().unwrap_or(0)),
    };
    components.iter().map(of).collect()
}
