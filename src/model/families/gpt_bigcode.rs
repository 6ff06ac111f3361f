//! StarCoder and SantaCoder: GPT-2 whose heads share one key and value, in matrices that are not transposed.

use super::{Family, InGguf, Qkv, Tensors, gpt2, in_gguf};
use crate::model::arch::Arch;
use crate::model::config::{ConfigError, Reader};

pub(super) static GPT_BIGCODE: Family = Family {
    gguf: Some(InGguf { architecture: "starcoder", describe: gpt2::describe_gguf, tensors: in_gguf::FUSED }),
    ..Family::new("gpt_bigcode", describe, Tensors { transposed: false, ..gpt2::TENSORS })
};

/// Of models whose heads have a key and value each.
static BY_HEAD: Tensors = Tensors { transposed: false, qkv: Qkv::ByHead, ..gpt2::TENSORS };

fn describe(r: &Reader) -> Result<Arch, ConfigError> {
    // These say how the reference rounds on its way.
    r.pass_over(&["attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "num_key_value_heads"]);
    let shared = r.flag("multi_query", true)?;
    let heads = if shared { 1 } else { r.size("n_head")? };
    Ok(Arch { stored: (!shared).then_some(&BY_HEAD), ..gpt2::described(r, heads)? })
}
