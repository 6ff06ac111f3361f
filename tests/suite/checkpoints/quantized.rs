//! Weights in FP8 with their scales.

use super::*;
use safetensors::Dtype;

/// How a scale is shared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shared {
    Matrix,
    Row,
    Block(usize, usize),
}

/// The number that a byte is in E4M3, by the format's definition.
fn e4m3(byte: u8) -> f32 {
    let (sign, exponent, mantissa) = (byte >> 7, i32::from(byte >> 3 & 15), f64::from(byte & 7));
    let size =
        if exponent == 0 { mantissa / 8.0 * 2f64.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7) };
    (if sign == 0 { size } else { -size }) as f32
}

/// The byte whose number is nearest, of those of `positive`, which ascend with their bytes.
fn nearest(x: f32, positive: &[f32]) -> u8 {
    let above = positive.partition_point(|value| *value < x.abs()).min(positive.len() - 1);
    let below = above.saturating_sub(1);
    let byte = if x.abs() - positive[below] < positive[above] - x.abs() { below } else { above };
    byte as u8 | if x < 0.0 { 128 } else { 0 }
}

/// The matrices in the layers of a folder, quantised; with the numbers that they then are.
fn quantized(tensors: &Tensors, shared: Shared, scale_name: &str, dtype: Dtype) -> (Tensors, Tensors) {
    let (mut stored, mut plain) = (tensors.clone(), tensors.clone());
    let positive: Vec<f32> = (0..127).map(e4m3).collect();
    for (name, tensor) in tensors.iter().filter(|(name, t)| name.contains("layers.") && t.shape.len() == 2) {
        let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
        let (values, block) = (
            tensor.values(),
            match shared {
                Shared::Matrix => [rows, columns],
                Shared::Row => [1, columns],
                Shared::Block(down, across) => [down, across],
            },
        );
        let [down, across] = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
        let at = |i: usize| i / columns / block[0] * across + i % columns / block[1];
        let mut scales = vec![0f32; down * across];
        values.iter().enumerate().for_each(|(i, v)| scales[at(i)] = scales[at(i)].max(v.abs() / 448.0));
        let (scales, scale_bytes) = rounded(&scales, dtype);
        let bytes: Vec<u8> = values.iter().enumerate().map(|(i, v)| nearest(v / scales[at(i)], &positive)).collect();
        let numbers: Vec<f32> = bytes.iter().enumerate().map(|(i, byte)| e4m3(*byte) * scales[at(i)]).collect();
        plain.insert(name.clone(), Stored::floats(&tensor.shape, &numbers));
        stored.insert(name.clone(), Stored { dtype: Dtype::F8_E4M3, shape: tensor.shape.clone(), data: bytes });
        let shape = match shared {
            Shared::Matrix => vec![],
            _ => vec![down, across],
        };
        let module = name.strip_suffix("weight").expect("a weight");
        stored.insert(format!("{module}{scale_name}"), Stored { dtype, shape, data: scale_bytes });
    }
    (stored, plain)
}

/// Scales as a dtype holds them.
fn rounded(scales: &[f32], dtype: Dtype) -> (Vec<f32>, Vec<u8>) {
    match dtype {
        Dtype::F32 => (scales.to_vec(), scales.iter().flat_map(|s| s.to_le_bytes()).collect()),
        Dtype::BF16 => {
            let halves: Vec<half::bf16> = scales.iter().map(|s| half::bf16::from_f32(*s)).collect();
            (halves.iter().map(|h| h.to_f32()).collect(), halves.iter().flat_map(|h| h.to_le_bytes()).collect())
        }
        _ => {
            let exponents: Vec<u8> = scales.iter().map(|s| (s.log2().ceil() + 127.0) as u8).collect();
            (exponents.iter().map(|e| 2f32.powi(i32::from(*e) - 127)).collect(), exponents)
        }
    }
}

/// The same in f32.
fn wide(tensors: Tensors) -> Tensors {
    let wide = |(name, tensor): (String, Stored)| match tensor.dtype {
        Dtype::F16 => {
            let halves = tensor.data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32());
            (name, Stored::floats(&tensor.shape, &halves.collect::<Vec<_>>()))
        }
        _ => (name, tensor),
    };
    tensors.into_iter().map(wide).collect()
}

/// A family quantised, and the model of the same numbers in f32.
fn folders(family: &str, shared: Shared, scale: &str, dtype: Dtype, config: Value) -> (Folder, Folder) {
    let (stored, plain) = quantized(&wide(Folder::of(family).tensors()), shared, scale, dtype);
    let folder = Folder::of(family).key("quantization_config", config).weights(|t| *t = stored);
    (folder, Folder::of(family).weights(|t| *t = plain))
}

fn compressed(weights: Value) -> Value {
    json!({ "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights,
        "input_activations": { "num_bits": 8, "type": "float", "dynamic": true } } } })
}

/// Every published way of storing FP8, with its scheme.
fn schemes() -> Vec<(Shared, &'static str, Dtype, Value)> {
    let fp8 = |more: Value| {
        let mut config = json!({ "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic" });
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        config
    };
    let of =
        |strategy: &str| compressed(json!({ "num_bits": 8, "type": "float", "symmetric": true, "strategy": strategy }));
    let blocks = json!({ "num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 32] });
    vec![
        (Shared::Block(128, 128), "weight_scale_inv", Dtype::F32, fp8(json!({}))),
        (
            Shared::Block(16, 32),
            "weight_scale_inv",
            Dtype::BF16,
            fp8(json!({ "weight_block_size": [16, 32],
            "modules_to_not_convert": ["lm_head"] })),
        ),
        (
            Shared::Block(32, 16),
            "weight_scale_inv",
            Dtype::F8_E8M0,
            fp8(json!({ "weight_block_size": [32, 16], "scale_fmt": "ue8m0" })),
        ),
        (Shared::Matrix, "weight_scale_inv", Dtype::BF16, fp8(json!({ "weight_block_size": null }))),
        (Shared::Matrix, "weight_scale", Dtype::F32, json!({ "quant_method": "modelopt", "quant_algo": "FP8" })),
        (
            Shared::Row,
            "weight_scale",
            Dtype::F32,
            json!({ "quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0 }),
        ),
        (Shared::Matrix, "weight_scale", Dtype::BF16, of("tensor")),
        (Shared::Row, "weight_scale", Dtype::BF16, of("channel")),
        (Shared::Block(16, 32), "weight_scale", Dtype::F32, compressed(blocks)),
    ]
}

#[test]
fn quantised_weights_are_the_numbers_that_they_stand_for() {
    for family in ["llama", "phi3", "gpt_neox", "qwen3"] {
        for (shared, scale, dtype, config) in schemes() {
            let (stored, plain) = folders(family, shared, scale, dtype, config.clone());
            let found = open(stored.path());
            let expected = logits(&open(plain.path()), &prompts(family));
            assert_eq!(logits(&found, &prompts(family)), expected, "{family} {shared:?} {config}");
            let [said] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
            assert!(
                said.contains("quantised") && said.contains(config["quant_method"].as_str().expect("a name")),
                "{said}"
            );
            // The numbers are near those that were quantised.
            let exact = logits(&open(&family_dir(family)), &prompts(family));
            assert!(exact != expected);
        }
    }
}

#[test]
fn quantised_weights_are_the_same_in_shards_and_streamed() {
    // One with experts, too.
    for family in ["llama", "families/glm4_moe"] {
        let (shared, scale, dtype, config) = schemes().swap_remove(1);
        let (stored, plain) = folders(family, shared, scale, dtype, config);
        let expected = logits(&open(plain.path()), &prompts(family));
        let options = Options { max_memory: Some(1000), ..Options::default() };
        let streamed = Model::open(stored.path().to_str().expect("UTF-8"), &options).expect("a sound model");
        assert!(streamed.decoder.streamed());
        assert_eq!(logits(&streamed, &prompts(family)), expected, "{family}");
        assert_eq!(logits(&open(stored.sharded().path()), &prompts(family)), expected, "{family}");
    }
}

#[test]
fn scales_of_activations_and_caches_are_no_weights() {
    let (shared, scale, dtype, config) = schemes().swap_remove(4);
    let (stored, plain) = folders("llama", shared, scale, dtype, config);
    let stored = stored.weights(|t| {
        for l in 0..4 {
            for name in
                ["self_attn.q_proj.input_scale", "mlp.up_proj.input_scale", "self_attn.k_scale", "self_attn.v_scale"]
            {
                t.insert(format!("model.layers.{l}.{name}"), Stored::floats(&[1], &[3.0]));
            }
        }
    });
    assert_eq!(logits(&open(stored.path()), &prompts("llama")), logits(&open(plain.path()), &prompts("llama")));
    // Beside weights that are not quantised they belong to nothing.
    let name = "model.layers.1.mlp.up_proj.input_scale";
    let plain = plain.weights(|t| drop(t.insert(name.to_string(), Stored::floats(&[1], &[3.0]))));
    unopened(plain.path(), &[name]);
}

#[test]
fn a_scale_that_is_missing_or_of_another_shape_is_named() {
    const NAME: &str = "model.layers.2.mlp.up_proj.weight";
    let (shared, scale, dtype, config) = schemes().swap_remove(1);
    let changed =
        |change: &dyn Fn(&mut Tensors)| folders("llama", shared, scale, dtype, config.clone()).0.weights(|t| change(t));
    let scale = format!("{NAME}_scale_inv");
    let gone = changed(&|t| drop(t.remove(&scale)));
    unopened(gone.path(), &[NAME, &scale, "FP8 without a scale", "take the unquantised checkpoint or a GGUF"]);
    for shape in [vec![2, 2], vec![5, 3], vec![48], vec![80, 2]] {
        let other = Stored::floats(&shape, &vec![1.0; shape.iter().product()]);
        let found = changed(&|t| drop(t.insert(scale.clone(), other.clone())));
        unopened(found.path(), &[&scale, "[80, 1]", "blocks of 16 by 32, [5, 2]"]);
    }
    let whole = Stored { dtype: Dtype::I32, shape: vec![5, 2], data: vec![0; 40] };
    unopened(changed(&|t| drop(t.insert(scale.clone(), whole.clone()))).path(), &[&scale, "I32"]);
    let nan = changed(&|t| t.get_mut(NAME).expect("a tensor").data[7] = 0x7f);
    unread(nan.path(), &[NAME, "not finite"]);
}

#[test]
fn ways_of_quantising_that_are_not_read_say_which_and_what_to_take() {
    for (method, config) in [
        ("gptq", json!({ "quant_method": "gptq", "bits": 4 })),
        ("awq", json!({ "quant_method": "awq", "bits": 4 })),
        ("bitsandbytes", json!({ "quant_method": "bitsandbytes", "load_in_4bit": true })),
        ("hqq", json!({ "quant_method": "hqq" })),
        ("torchao", json!({ "quant_method": "torchao" })),
        ("fp8 e5m2", json!({ "quant_method": "fp8", "fmt": "e5m2" })),
        ("modelopt NVFP4", json!({ "quant_method": "modelopt", "quant_algo": "NVFP4" })),
        (
            "compressed-tensors pack-quantized",
            json!({ "quant_method": "compressed-tensors", "format": "pack-quantized" }),
        ),
        ("compressed-tensors \"int\" of 8 bits", compressed(json!({ "num_bits": 8, "type": "int" }))),
        ("(no `quant_method`)", json!({ "bits": 4 })),
    ] {
        let model = Folder::of("llama").key("quantization_config", config);
        unopened(model.path(), &["quantization_config", method, "take the unquantised checkpoint or a GGUF file"]);
    }
    for size in [json!([128]), json!([0, 128]), json!("128"), json!(3), json!([128, "x"])] {
        let config = json!({ "quant_method": "fp8", "weight_block_size": size });
        unopened(Folder::of("llama").key("quantization_config", config).path(), &["rows and columns of a block"]);
    }
}

/// The shapes of a GPT-OSS of whole blocks, by the ends of names.
const GPT_OSS: [(&str, &[usize]); 20] = [
    ("input_layernorm.weight", &[64]),
    ("self_attn.q_proj.weight", &[64, 64]),
    ("self_attn.q_proj.bias", &[64]),
    ("self_attn.k_proj.weight", &[32, 64]),
    ("self_attn.k_proj.bias", &[32]),
    ("self_attn.v_proj.weight", &[32, 64]),
    ("self_attn.v_proj.bias", &[32]),
    ("self_attn.o_proj.weight", &[64, 64]),
    ("self_attn.o_proj.bias", &[64]),
    ("self_attn.sinks", &[4]),
    ("post_attention_layernorm.weight", &[64]),
    ("mlp.router.weight", &[4, 64]),
    ("mlp.router.bias", &[4]),
    ("mlp.experts.gate_up_proj", &[4, 64, 192]),
    ("mlp.experts.gate_up_proj_bias", &[4, 192]),
    ("mlp.experts.down_proj", &[4, 96, 64]),
    ("mlp.experts.down_proj_bias", &[4, 64]),
    ("embed_tokens.weight", &[64, 64]),
    ("norm.weight", &[64]),
    ("lm_head.weight", &[64, 64]),
];

/// Weights of such a model, from no checkpoint.
fn gpt_oss() -> Tensors {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut tensors = Tensors::new();
    for (end, shape) in GPT_OSS {
        let names = match end {
            "embed_tokens.weight" | "norm.weight" => vec![format!("model.{end}")],
            "lm_head.weight" => vec![end.to_string()],
            _ => (0..4).map(|l| format!("model.layers.{l}.{end}")).collect(),
        };
        for name in names {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| next() * 0.3).collect();
            tensors.insert(name, Stored::floats(shape, &values));
        }
    }
    tensors
}

/// The number of half a byte in E2M1, by the format's definition.
fn e2m1(half: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(half >> 1 & 3), f32::from(half & 1));
    let size = if exponent == 0 { mantissa / 2.0 } else { (1.0 + mantissa / 2.0) * 2f32.powi(exponent - 1) };
    if half >> 3 == 0 { size } else { -size }
}

/// Such weights with their experts quantised as OpenAI's checkpoints are, and the numbers that these are.
fn packed(tensors: &Tensors) -> (Tensors, Tensors) {
    let (mut stored, mut plain) = (tensors.clone(), tensors.clone());
    for (name, tensor) in tensors.iter().filter(|(name, t)| name.contains("experts") && t.shape.len() == 3) {
        let [n, inputs, outputs] = tensor.shape[..] else { panic!("a stack") };
        let (values, mut numbers) = (tensor.values(), vec![0f32; n * inputs * outputs]);
        let (mut blocks, mut scales) = (Vec::new(), Vec::new());
        for (matrix, column) in (0..n).flat_map(|m| (0..outputs).map(move |c| (m, c))) {
            for block in 0..inputs / 32 {
                let at = |i: usize| (matrix * inputs + block * 32 + i) * outputs + column;
                let largest = (0..32).map(|i| values[at(i)].abs()).fold(0f32, f32::max);
                let exponent = largest.log2().floor() as i32 - 2;
                let nearest = |x: f32| {
                    let off = |half: &u8| (e2m1(*half) * 2f32.powi(exponent) - x).abs();
                    (0..16).min_by(|a, b| off(a).total_cmp(&off(b))).expect("a half")
                };
                let halves: Vec<u8> = (0..32).map(|i| nearest(values[at(i)])).collect();
                (0..32).for_each(|i| numbers[at(i)] = e2m1(halves[i]) * 2f32.powi(exponent));
                blocks.extend(halves.chunks(2).map(|two| two[0] | two[1] << 4));
                scales.push((exponent + 127) as u8);
            }
        }
        let shape = vec![n, outputs, inputs / 32];
        plain.insert(name.clone(), Stored::floats(&tensor.shape, &numbers));
        stored.remove(name);
        let bytes = |shape: Vec<usize>, data: Vec<u8>| Stored { dtype: Dtype::U8, shape, data };
        stored.insert(format!("{name}_blocks"), bytes([&shape[..], &[16]].concat(), blocks));
        stored.insert(format!("{name}_scales"), bytes(shape, scales));
    }
    (stored, plain)
}

/// A folder of such weights.
fn gpt_oss_folder(tensors: Tensors, quantised: bool) -> Folder {
    let folder = Folder::of("families/gpt_oss").weights(|t| *t = tensors);
    let folder = folder.key("hidden_size", json!(64)).key("intermediate_size", json!(96));
    let config = json!({ "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"] });
    if quantised { folder.key("quantization_config", config) } else { folder }
}

#[test]
fn experts_in_mxfp4_are_the_numbers_that_they_stand_for() {
    let exact = gpt_oss();
    let (stored, plain) = packed(&exact);
    let prompts = prompts("families/gpt_oss");
    let [expected, before] = [&plain, &exact].map(|t| logits(&open(gpt_oss_folder(t.clone(), false).path()), &prompts));
    assert_ne!(expected, before, "quantisation rounds");
    let folder = gpt_oss_folder(stored, true);
    let found = open(folder.path());
    assert_eq!(logits(&found, &prompts), expected);
    let [said] = &found.warnings[..] else { panic!("{:?}", found.warnings) };
    assert!(said.contains("quantised (mxfp4)"), "{said}");
    let options = Options { max_memory: Some(1000), ..Options::default() };
    let streamed = Model::open(folder.path().to_str().expect("UTF-8"), &options).expect("a sound model");
    assert!(streamed.decoder.streamed());
    assert_eq!(logits(&streamed, &prompts), expected);
    assert_eq!(logits(&open(folder.sharded().path()), &prompts), expected);
}

#[test]
fn blocks_and_scales_that_do_not_fit_are_named() {
    const NAME: &str = "model.layers.2.mlp.experts.down_proj";
    let (stored, _) = packed(&gpt_oss());
    let changed = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = stored.clone();
        change(&mut tensors);
        gpt_oss_folder(tensors, true)
    };
    let (blocks, scales) = (format!("{NAME}_blocks"), format!("{NAME}_scales"));
    let gone = changed(&|t| drop(t.remove(&scales)));
    unopened(gone.path(), &[NAME, &scales, "MXFP4 without scales", "take the unquantised checkpoint or a GGUF"]);
    let bytes =
        |shape: &[usize]| Stored { dtype: Dtype::U8, shape: shape.to_vec(), data: vec![120; shape.iter().product()] };
    for shape in [vec![4, 64, 2], vec![4, 3, 64], vec![4, 192], vec![2, 64, 3]] {
        let other = changed(&|t| drop(t.insert(scales.clone(), bytes(&shape))));
        unopened(other.path(), &[&scales, "[4, 64, 3]"]);
    }
    let floats = Stored::floats(&[4, 64, 3], &[1.0; 768]);
    unopened(changed(&|t| drop(t.insert(scales.clone(), floats.clone()))).path(), &[&scales, "F32", "U8 [4, 64, 3]"]);
    let wide = changed(&|t| {
        t.insert(blocks.clone(), bytes(&[4, 64, 6, 16]));
        t.insert(scales.clone(), bytes(&[4, 64, 6]));
    });
    unopened(wide.path(), &[NAME, "[4, 192, 64]", "[4, 96, 64]"]);
    let narrow = changed(&|t| drop(t.insert(blocks.clone(), bytes(&[4, 64, 6, 8]))));
    unopened(narrow.path(), &[&blocks, "[4, 64, 6, 8]", "[matrices, out, blocks, 16]"]);
    let nan = changed(&|t| t.get_mut(&scales).expect("scales").data[7] = 255);
    unread(nan.path(), &[NAME, "not finite"]);
}
