//! A GGUF file as the Hugging Face folder that it was made from: names, config.json, shards, f32.

use gatelens::model::gguf::{Gguf, TensorInfo, dequantize};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes `config.json` and the weights in `shards` files, with their index where there are several.
pub fn convert(from: &Path, to: &Path, shards: usize) {
    let gguf = Gguf::open(from).expect("a GGUF file");
    let arch = gguf.str("general.architecture").expect("an architecture").to_string();
    std::fs::write(to.join("config.json"), config(&gguf, &arch).to_string()).expect("written");
    let tensors: Vec<(&TensorInfo, String)> = gguf.tensors().map(|t| (t, hf_name(&t.name))).collect();
    let per_shard = tensors.len().div_ceil(shards);
    let mut weight_map = Map::new();
    for (i, part) in tensors.chunks(per_shard).enumerate() {
        let file = if shards == 1 { "model.safetensors".to_string() } else { format!("model-{i}.safetensors") };
        part.iter().for_each(|(_, name)| drop(weight_map.insert(name.clone(), file.clone().into())));
        write_shard(&gguf, &arch, part, &to.join(file));
    }
    if shards > 1 {
        let index = json!({ "weight_map": weight_map });
        std::fs::write(to.join("model.safetensors.index.json"), index.to_string()).expect("written");
    }
}

fn config(gguf: &Gguf, arch: &str) -> Value {
    let n = |key: &str| gguf.u64(&format!("{arch}.{key}")).expect(key);
    json!({
        "model_type": arch,
        "hidden_size": n("embedding_length"),
        "num_hidden_layers": n("block_count"),
        "num_attention_heads": n("attention.head_count"),
        "num_key_value_heads": n("attention.head_count_kv"),
        "intermediate_size": n("feed_forward_length"),
        "max_position_embeddings": n("context_length"),
        "vocab_size": gguf.tensor("token_embd.weight").expect("an embedding").shape[0],
        "rms_norm_eps": gguf.f64(&format!("{arch}.attention.layer_norm_rms_epsilon")).expect("an epsilon"),
        "rope_theta": gguf.f64(&format!("{arch}.rope.freq_base")).expect("a base"),
        "hidden_act": "silu",
        "tie_word_embeddings": gguf.opt_tensor("output.weight").is_none(),
    })
}

fn hf_name(name: &str) -> String {
    let ends = [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
    let parts = [
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    let (stem, kind) = name.rsplit_once('.').expect("a name with a kind");
    let found = |list: &[(&str, &str)], key: &str| list.iter().find(|(g, _)| *g == key).map(|(_, h)| (*h).to_string());
    match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => format!("model.layers.{layer}.{}.{kind}", found(&parts, part).expect(part)),
        None => format!("{}.{kind}", found(&ends, stem).expect(stem)),
    }
}

fn write_shard(gguf: &Gguf, arch: &str, tensors: &[(&TensorInfo, String)], path: &Path) {
    let mut header = Map::new();
    let mut at = 0;
    for (info, name) in tensors {
        let end = at + info.elements() * 4;
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": info.shape, "data_offsets": [at, end] }));
        at = end;
    }
    let header = Value::Object(header).to_string();
    let mut out = BufWriter::new(File::create(path).expect("a file"));
    out.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
    out.write_all(header.as_bytes()).expect("written");
    for (info, _) in tensors {
        let mut values = vec![0f32; info.elements()];
        dequantize(info.kind, gguf.bytes(info).expect("bytes"), &mut values).expect("values");
        if arch == "llama" && (info.name.contains("attn_q.") || info.name.contains("attn_k.")) {
            values = halves(&values, gguf, &info.name, info.shape[0]);
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        out.write_all(&bytes).expect("written");
    }
}

/// Undoes what the converter of llama.cpp does to queries and keys: `w.reshape(heads, 2, d / 2, in).swapaxes(1, 2)`.
fn halves(values: &[f32], gguf: &Gguf, name: &str, rows: usize) -> Vec<f32> {
    let key = if name.contains("attn_q.") { "llama.attention.head_count" } else { "llama.attention.head_count_kv" };
    let d = rows / gguf.u64(key).expect("a count") as usize;
    let width = values.len() / rows;
    let mut out = vec![0f32; values.len()];
    for row in 0..rows {
        let (head, i) = (row / d, row % d);
        let to = head * d + (i % 2) * (d / 2) + i / 2;
        out[to * width..(to + 1) * width].copy_from_slice(&values[row * width..(row + 1) * width]);
    }
    out
}
