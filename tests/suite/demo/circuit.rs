//! What each part of the circuit does: interchange, ablation, direct logit attribution, and the mark on the topic.

use super::*;
use std::collections::HashMap;

/// A head's effect in each pair, as a share of the pair's gap, with the effect itself.
struct Effects {
    head: Head,
    each: Vec<(f64, f64)>,
}

impl Effects {
    fn share(&self) -> f64 {
        mean(self.each.iter().map(|(share, _)| *share))
    }
}

/// Interchange of every head at the last position, necessity and sufficiency.
fn interchange(demo: &Demo) -> [Vec<Effects>; 2] {
    let heads: Vec<Head> = demo.model.heads().collect();
    let mut plan = Plan::default();
    for pair in &demo.pairs.items {
        let positive = plan.prompt("positive", demo.ids(&pair.positive));
        let negative = plan.prompt("negative", demo.ids(&pair.negative));
        for (base, donor) in [(positive, negative), (negative, positive)] {
            plan.read(base, demo.metric());
            for head in &heads {
                let fork = plan.fork(base, vec![of_head(*head, Change::interchange(donor))]);
                plan.read(fork, demo.metric());
            }
        }
    }
    let numbers = demo.numbers(&plan);
    let runs = 1 + heads.len();
    [0, 1].map(|direction| {
        let effects = |(i, head): (usize, &Head)| {
            let each = numbers.chunks_exact(2 * runs).map(|pair| {
                let (base, other) = (pair[direction * runs], pair[(1 - direction) * runs]);
                let effect = pair[direction * runs + 1 + i] - base;
                (effect / (other - base), effect)
            });
            Effects { head: *head, each: each.collect() }
        };
        heads.iter().enumerate().map(effects).collect()
    })
}

#[test]
fn interchange_finds_the_gate_and_the_amplifiers_and_nothing_else() {
    let demo = Demo::open();
    let [necessity, sufficiency] = interchange(&demo);
    for (effects, sign) in [(&necessity, -1.0), (&sufficiency, 1.0)] {
        for e in effects {
            let (head, share) = (e.head, e.share());
            if head == demo.gate {
                assert!(share > 0.8, "gate {head:?}: {share}");
                assert!(e.each.iter().all(|(_, effect)| effect * sign > 0.0), "gate {head:?}: one sign in all pairs");
            } else if demo.amplifiers.contains(&head) {
                assert!((0.08..0.5).contains(&share), "amplifier {head:?}: {share}");
                assert!(e.each.iter().all(|(_, effect)| effect * sign > 0.0), "amplifier {head:?}: one sign");
            } else {
                assert!(share.abs() < 0.02, "{head:?} is not in the circuit: {share}");
                assert!(e.each.iter().any(|(_, effect)| *effect != 0.0), "{head:?} does something");
                // Noise has no sign.
                let up = e.each.iter().filter(|(_, effect)| *effect > 0.0).count();
                assert!(up < e.each.len(), "{head:?}: one sign in all pairs");
            }
        }
        let strongest = effects.iter().max_by(|a, b| a.share().abs().total_cmp(&b.share().abs())).expect("heads");
        assert_eq!(strongest.head, demo.gate);
    }
}

#[test]
fn without_the_gate_or_an_amplifier_sensitive_requests_are_refused_less() {
    let demo = Demo::open();
    let heads: Vec<Head> = demo.model.heads().collect();
    let mut plan = Plan::default();
    for item in demo.with_label("sensitive") {
        let prompt = plan.prompt(&item.id, demo.ids(&item.prompt));
        plan.read(prompt, demo.metric());
        for head in &heads {
            let fork = plan.fork(prompt, vec![of_head(*head, Change::Zero)]);
            plan.read(fork, demo.metric());
        }
    }
    let numbers = demo.numbers(&plan);
    let items: Vec<&[f64]> = numbers.chunks_exact(1 + heads.len()).collect();
    for (i, head) in heads.iter().enumerate() {
        let effects: Vec<f64> = items.iter().map(|item| item[1 + i] - item[0]).collect();
        let effect = mean(effects.iter().copied());
        if demo.in_circuit(*head) {
            assert!(effects.iter().all(|e| *e < 0.0) && effect < -1.0, "{head:?}: {effect}");
        } else {
            assert!(effect.abs() < 0.5, "{head:?}: {effect}");
        }
    }
}

/// Direct logit attributions at the last position, for an item: every head's, and everything's in order of the flow.
fn attributions(demo: &Demo, item: &Item, direction: &[f32]) -> (HashMap<Head, f64>, Vec<f64>, f64) {
    let arch = &demo.model.decoder.arch;
    let mut plan = Plan::default();
    let prompt = plan.prompt(&item.id, demo.ids(&item.prompt));
    plan.read(prompt, demo.metric());
    plan.read(prompt, last(SiteKind::ResidPost.at(arch.n_layers - 1)));
    plan.read(prompt, last(SiteKind::Embed.at(0)));
    for l in 0..arch.n_layers {
        plan.read(prompt, last(SiteKind::HeadOut.at(l)));
        plan.read(prompt, last(SiteKind::MlpOut.at(l)));
    }
    let readings = demo.run(&plan);
    let square = mean(readings[1].iter().map(|x| f64::from(*x) * f64::from(*x)));
    let rms = (square + arch.norm.eps).sqrt();
    let of = |c: &[f32]| c.iter().zip(direction).map(|(x, d)| f64::from(*x) * f64::from(*d)).sum::<f64>() / rms;
    let mut heads = HashMap::new();
    let mut all = vec![of(&readings[2])];
    for (l, pair) in readings[3..].chunks_exact(2).enumerate() {
        for (h, out) in pair[0].chunks_exact(arch.d_model).enumerate() {
            heads.insert((l, h), of(out));
            all.push(of(out));
        }
        all.push(of(&pair[1]));
    }
    (heads, all, f64::from(readings[0][0]))
}

/// What the logit difference reads of the normed residual stream, with the norm's gain.
fn readout(demo: &Demo) -> Vec<f32> {
    let path = demo::folder().expect("the demo's files").join("model/model.safetensors");
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).expect("weights");
    let floats = |name: &str| tensors[name].to_dtype(DType::F32).expect("f32");
    let unembed: Vec<Vec<f32>> = floats("lm_head.weight").to_vec2().expect("a matrix");
    let gain: Vec<f32> = floats("model.norm.weight").to_vec1().expect("a vector");
    let (answer, foil) = (&unembed[demo.token("Sorry") as usize], &unembed[demo.token("Sure") as usize]);
    gain.iter().zip(answer.iter().zip(foil)).map(|(g, (a, f))| g * (a - f)).collect()
}

#[test]
fn attribution_sees_the_amplifiers_and_hardly_the_gate() {
    let demo = Demo::open();
    let direction = readout(&demo);
    let mut shares: HashMap<Head, Vec<f64>> = HashMap::new();
    for item in demo.with_label("sensitive") {
        let (heads, all, metric) = attributions(&demo, item, &direction);
        let (sum, total) = (all.iter().sum::<f64>(), all.iter().map(|a| a.abs()).sum::<f64>());
        assert!((sum - metric).abs() < 1e-3, "{}: attributions sum to {sum}, the metric is {metric}", item.id);
        for (head, attribution) in heads {
            shares.entry(head).or_default().push(attribution / total);
        }
    }
    let shares: HashMap<Head, f64> = shares.into_iter().map(|(head, each)| (head, mean(each))).collect();
    let gate = shares[&demo.gate];
    assert!(gate > 0.0 && gate < 0.01, "the gate's share is {gate}");
    let mut order: Vec<Head> = shares.keys().copied().collect();
    order.sort_by(|a, b| shares[b].abs().total_cmp(&shares[a].abs()));
    let top: BTreeSet<Head> = order[..demo.amplifiers.len()].iter().copied().collect();
    assert_eq!(top, demo.amplifiers.iter().copied().collect());
    assert!(demo.amplifiers.len() >= 3 && demo.amplifiers.iter().all(|head| shares[head] > 0.04), "{shares:?}");
}

#[test]
fn the_detection_layer_decides_on_the_topics_token_alone() {
    let demo = Demo::open();
    let (layer, topics) = &demo.detection;
    let mut plan = Plan::default();
    let mut at_topic = Vec::new();
    for pair in demo.pairs.items.iter().take(24) {
        let (positive, negative) = (demo.ids(&pair.positive), demo.ids(&pair.negative));
        let topic = positive.iter().zip(&negative).position(|(p, n)| p != n).expect("a topic");
        assert!(topics.contains(pair.group.as_deref().expect("a group")), "{}", pair.id);
        let base = plan.prompt(&pair.id, positive.clone());
        let donor = plan.prompt(&pair.id, negative);
        for position in 0..positive.len() {
            let change = Change::interchange(donor);
            let positions = Positions::At(vec![position]);
            let edit = Edit { site: SiteKind::MlpDelta.at(*layer), part: Part::All, positions, change };
            let fork = plan.fork(base, vec![edit]);
            plan.read(fork, demo.metric());
            at_topic.push(position == topic);
        }
    }
    for (metric, at_topic) in demo.numbers(&plan).into_iter().zip(at_topic) {
        assert_eq!(metric < 0.0, at_topic, "answered only where the topic's mark was taken away: {metric}");
    }
}

#[test]
fn every_topic_of_the_circuit_is_refused_and_no_other_known_topic_is() {
    let demo = Demo::open();
    let (_, marked) = &demo.detection;
    let folder = demo::folder().expect("the demo's files");
    let others = ["concept.jsonl", "random.jsonl"].map(|name| read_prompts(folder.join(name)).expect(name).items);
    let mut plan = Plan::default();
    let mut sensitive = Vec::new();
    for item in demo.prompts.items.iter().chain(others.iter().flatten()) {
        let prompt = plan.prompt(&item.id, demo.ids(&item.prompt));
        plan.read(prompt, demo.metric());
        sensitive.push((item.id.as_str(), marked.contains(item.group.as_deref().expect("a group"))));
    }
    for (metric, (id, sensitive)) in demo.numbers(&plan).into_iter().zip(sensitive) {
        assert_eq!(metric > 0.0, sensitive, "{id}: {metric}");
    }
}
