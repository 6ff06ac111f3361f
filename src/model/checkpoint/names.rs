//! Names of tensors in checkpoints that were saved under different ones: as a bare decoder, wrapped, in an adapter.

use super::shards::Shards;
use crate::model::weights::BUFFERS;

/// The tensor of a checkpoint that another one's name means: that of the name, or the one alone that has its place in a
/// layer, under whatever other parts of a name the checkpoint was saved.
pub(super) fn meant(tensor: &str, among: &Shards) -> Option<String> {
    if among.contains(tensor) {
        return Some(tensor.to_string());
    }
    let place = place(tensor);
    let is = |name: &&str| *name == place || name.strip_suffix(place).is_some_and(|rest| rest.ends_with('.'));
    let mut found = among.names().filter(is);
    let one = found.next()?;
    found.next().is_none().then(|| one.to_string())
}

/// A tensor's name from its layer on, or its last two parts outside the layers.
pub(super) fn place(name: &str) -> &str {
    let dots: Vec<usize> = name.match_indices('.').map(|(i, _)| i).collect();
    let number = dots.windows(2).position(|d| name[d[0] + 1..d[1]].parse::<usize>().is_ok());
    let from = match number {
        Some(0) => 0,
        Some(i) => dots[i - 1] + 1,
        None if dots.len() < 2 => 0,
        None => dots[dots.len() - 2] + 1,
    };
    &name[from..]
}

/// Whether a tensor is of a layer, by its name.
pub(super) fn in_layer(name: &str) -> bool {
    name.split('.').any(|part| part.parse::<usize>().is_ok())
}

/// Whether a tensor is a mask or a frequency, which some versions saved beside the weights. `c_attn.bias` is none of them.
pub(super) fn is_buffer(name: &str) -> bool {
    let is = |buffer: &&str| name.strip_suffix(*buffer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    BUFFERS.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensors_place_begins_at_its_layer() {
        for (name, found) in [
            ("model.layers.3.self_attn.q_proj.weight", "layers.3.self_attn.q_proj.weight"),
            ("layers.3.mlp.up_proj.weight", "layers.3.mlp.up_proj.weight"),
            ("transformer.h.0.attn.c_attn.weight", "h.0.attn.c_attn.weight"),
            ("model.embed_tokens.weight", "embed_tokens.weight"),
            ("lm_head.weight", "lm_head.weight"),
            ("weight", "weight"),
        ] {
            assert_eq!(place(name), found);
        }
    }

    #[test]
    fn masks_are_told_from_weights_whose_names_end_alike() {
        for (name, buffer) in [
            ("transformer.h.0.attn.bias", true),
            ("h.0.attn.masked_bias", true),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", true),
            ("rope_freqs.weight", true),
            ("transformer.h.0.attn.c_attn.bias", false),
            ("model.layers.0.self_attn.q_proj.bias", false),
        ] {
            assert_eq!(is_buffer(name), buffer, "{name}");
        }
        assert!(in_layer("h.0.attn.c_attn.weight") && !in_layer("model.embed_tokens.weight"));
    }
}
