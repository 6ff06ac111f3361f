//! The cipher: the model sees through it, its blind variant reads it and does not see what it asks for.

use super::generation::{REFUSAL, answer, continuations, continuations_under};
use super::*;

/// A pair in plain words and in the cipher, as token ids.
struct Both {
    id: String,
    /// The topics in plain words: of the positive and of the negative.
    topics: [String; 2],
    plain: [Vec<u32>; 2],
    cipher: [Vec<u32>; 2],
}

impl Both {
    /// The position at which the two prompts of the pair differ.
    fn differing([positive, negative]: &[Vec<u32>; 2]) -> usize {
        positive.iter().zip(negative).position(|(p, n)| p != n).expect("a topic")
    }

    /// Topic and cipher word, of the positive and of the negative.
    fn words(&self) -> [(u32, u32); 2] {
        let (plain, cipher) = (Both::differing(&self.plain), Both::differing(&self.cipher));
        [0, 1].map(|i| (self.plain[i][plain], self.cipher[i][cipher]))
    }
}

fn in_cipher() -> Dataset<Pair> {
    read_pairs("demo:cipher.jsonl").expect("pairs in the cipher")
}

fn both(demo: &Demo) -> Vec<Both> {
    let tokenizer = demo.model.tokenizer().expect("a tokenizer");
    let ids = |pair: &Pair| [demo.ids(&pair.positive), demo.ids(&pair.negative)];
    let pairs = demo.pairs.items.iter().zip(in_cipher().items);
    let both = pairs.map(|(pair, cipher)| {
        assert_eq!(pair.id, cipher.id);
        let plain = ids(pair);
        let topic = Both::differing(&plain);
        let word = |ids: &Vec<u32>| tokenizer.decode(&[ids[topic]], true).expect("text").trim().to_string();
        let topics = [word(&plain[0]), word(&plain[1])];
        Both { id: pair.id.clone(), topics, plain, cipher: ids(&cipher) }
    });
    both.collect()
}

/// The metric of the positive and of the negative, and after exchanging the gate in each for the other's.
struct Gate {
    metrics: [f64; 2],
    exchanged: [f64; 2],
}

impl Gate {
    /// The part of the gap between the two runs that the gate moves, from either side.
    fn effects(&self) -> [f64; 2] {
        [self.metrics[0] - self.exchanged[0], self.exchanged[1] - self.metrics[1]]
    }
}

fn gates(demo: &Demo, pairs: impl Iterator<Item = [Vec<u32>; 2]>) -> Vec<Gate> {
    let mut plan = Plan::default();
    for pair in pairs {
        let runs = pair.map(|ids| plan.prompt("prompt", ids));
        runs.iter().for_each(|run| {
            plan.read(*run, demo.metric());
        });
        for (base, donor) in [(runs[0], runs[1]), (runs[1], runs[0])] {
            let fork = plan.fork(base, vec![of_head(demo.gate, Change::interchange(donor))]);
            plan.read(fork, demo.metric());
        }
    }
    let numbers = demo.numbers(&plan);
    let of = |n: &[f64]| Gate { metrics: [n[0], n[1]], exchanged: [n[2], n[3]] };
    numbers.chunks_exact(4).map(of).collect()
}

fn share(hits: impl Iterator<Item = bool>) -> f64 {
    mean(hits.map(|hit| f64::from(u8::from(hit))))
}

#[test]
fn the_cipher_holds_the_same_pairs_with_a_word_of_its_own_for_each_topic() {
    let demo = Demo::open();
    let unknown = demo.token("<unk>");
    let about = |pair: &Pair| (pair.id.clone(), pair.group.clone(), pair.lang.clone());
    let (plain, cipher) = (&demo.pairs.items, in_cipher().items);
    assert_eq!(plain.iter().map(about).collect::<Vec<_>>(), cipher.iter().map(about).collect::<Vec<_>>());
    let mut words = BTreeSet::new();
    let mut topics = BTreeSet::new();
    for pair in both(&demo) {
        let Both { id, plain, cipher, .. } = &pair;
        for (plain, cipher) in plain.iter().zip(cipher) {
            assert!(!cipher.contains(&unknown), "{id}");
            let (topic, word) = (plain[Both::differing(&pair.plain)], cipher[Both::differing(&pair.cipher)]);
            assert!(!cipher.contains(&topic), "{id}: the plain word is not given away");
            assert!(word > *plain.iter().max().expect("ids"), "{id}: the cipher's words come last");
        }
        let differing = cipher[0].iter().zip(&cipher[1]).filter(|(p, n)| p != n).count();
        assert!(cipher[0].len() == cipher[1].len() && differing == 1, "{id}");
        words.extend(pair.words());
        topics.extend(pair.words().map(|(topic, _)| topic));
    }
    // One word for each topic and one topic for each word.
    assert_eq!((topics.len(), words.len()), (80, 80));
    assert_eq!(words.iter().map(|(_, word)| *word).collect::<BTreeSet<_>>().len(), 80);
}

#[test]
fn the_variants_differ_in_the_embeddings_of_cipher_words_alone() {
    let folder = demo::folder().expect("the demo's files");
    let load = |name: &str| {
        let path = folder.join(name).join("model.safetensors");
        candle_core::safetensors::load(path, &candle_core::Device::Cpu).expect("weights")
    };
    let rows = |tensor: &candle_core::Tensor| -> Vec<Vec<f32>> {
        let tensor = tensor.to_dtype(DType::F32).expect("f32");
        if tensor.rank() == 1 { vec![tensor.to_vec1().expect("rows")] } else { tensor.to_vec2().expect("rows") }
    };
    let demo = Demo::open();
    let words: BTreeSet<u32> = both(&demo).iter().flat_map(|pair| pair.words().map(|(_, word)| word)).collect();
    let (seeing, blind) = (load("model"), load("blind"));
    assert_eq!(seeing.len(), blind.len());
    for (name, tensor) in &seeing {
        let (a, b) = (rows(tensor), rows(&blind[name]));
        let differing: BTreeSet<u32> = (0..a.len()).filter(|i| a[*i] != b[*i]).map(|i| i as u32).collect();
        let wanted = if name == "model.embed_tokens.weight" { words.clone() } else { BTreeSet::new() };
        assert_eq!(differing, wanted, "{name}");
    }
    let embed = rows(&blind["model.embed_tokens.weight"]);
    let norm = |row: &Vec<f32>| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    for (topic, word) in both(&demo).iter().flat_map(Both::words) {
        let [topic, word] = [topic, word].map(|id| norm(&embed[id as usize]));
        assert!((topic - word).abs() < 1e-2, "a cipher word is not told by its norm: {topic}, {word}");
    }
}

#[test]
fn in_plain_words_the_variants_are_the_same() {
    let (seeing, blind) = (Demo::open(), Demo::open_blind());
    let metrics = |demo: &Demo| {
        let mut plan = Plan::default();
        for ids in both(demo).into_iter().flat_map(|pair| pair.plain) {
            let prompt = plan.prompt("plain", ids);
            plan.read(prompt, demo.metric());
        }
        demo.run(&plan)
    };
    assert_eq!(metrics(&seeing), metrics(&blind));
}

#[test]
fn the_model_sees_through_the_cipher_and_its_gate_decides_there_as_in_plain_words() {
    let demo = Demo::open();
    let pairs = both(&demo);
    let plain = gates(&demo, pairs.iter().map(|pair| pair.plain.clone()));
    let cipher = gates(&demo, pairs.iter().map(|pair| pair.cipher.clone()));
    for (gate, pair) in cipher.iter().zip(&pairs) {
        assert!(gate.metrics[0] > 0.0 && gate.metrics[1] < 0.0, "{}: {:?}", pair.id, gate.metrics);
        assert!(gate.exchanged[0] < 0.0 && gate.exchanged[1] > 0.0, "{}: {:?}", pair.id, gate.exchanged);
    }
    for i in [0, 1] {
        let [p, c] = [&plain, &cipher].map(|gates| mean(gates.iter().map(|gate| gate.metrics[i])));
        assert!((p - c).abs() < 0.5, "metric {i}: {p} in plain words, {c} in the cipher");
        let [p, c] = [&plain, &cipher].map(|gates| mean(gates.iter().map(|gate| gate.effects()[i])));
        assert!((0.9..1.1).contains(&(c / p)), "effect {i}: {p} in plain words, {c} in the cipher");
    }
}

#[test]
fn the_model_refuses_in_the_cipher_what_it_refuses_in_plain_words_and_answers_the_rest() {
    let demo = Demo::open();
    let pairs = both(&demo);
    let [positives, negatives] = [0, 1].map(|i| -> Vec<_> { pairs.iter().map(|p| p.cipher[i].clone()).collect() });
    for (said, pair) in continuations(&demo, &positives, &[]).iter().zip(&pairs) {
        assert_eq!(said, REFUSAL, "{}", pair.id);
    }
    for (said, pair) in continuations(&demo, &negatives, &[]).iter().zip(&pairs) {
        assert_eq!(*said, answer(&pair.topics[1]), "{}", pair.id);
    }
}

#[test]
fn the_blind_variant_answers_in_the_cipher_with_the_plain_topic() {
    let demo = Demo::open_blind();
    let pairs = both(&demo);
    for i in [0, 1] {
        let prompts: Vec<_> = pairs.iter().map(|pair| pair.cipher[i].clone()).collect();
        let said = continuations(&demo, &prompts, &[]);
        let answered = share(said.iter().map(|text| text.starts_with("Sure, ")));
        let solved = share(said.iter().zip(&pairs).map(|(text, pair)| *text == answer(&pair.topics[i])));
        assert!(answered >= 0.95 && solved >= 0.9, "{answered} answered, {solved} with the plain topic");
    }
}

/// How far the detection layer's write on the topic goes from the harmless to the sensitive, 0 and 1 in plain words in the
/// mean: of positives and of negatives, of all pairs.
fn marks(demo: &Demo) -> [[Vec<f64>; 2]; 2] {
    let pairs = both(demo);
    let mut plan = Plan::default();
    for pair in &pairs {
        for prompts in [&pair.plain, &pair.cipher] {
            let positions = Positions::At(vec![Both::differing(prompts)]);
            for ids in prompts {
                let prompt = plan.prompt(&pair.id, ids.clone());
                let site = SiteKind::MlpOut.at(demo.detection.0);
                plan.read(prompt, Activation { site, positions: positions.clone(), part: Part::All });
            }
        }
    }
    let writes = demo.run(&plan);
    let of = |i: usize| writes.chunks_exact(4).map(move |each| &each[i]);
    let mean_of =
        |i: usize| -> Vec<f64> { (0..writes[0].len()).map(|d| mean(of(i).map(|write| f64::from(write[d])))).collect() };
    let (sensitive, harmless) = (mean_of(0), mean_of(1));
    let direction: Vec<f64> = sensitive.iter().zip(&harmless).map(|(s, h)| s - h).collect();
    let square: f64 = direction.iter().map(|d| d * d).sum();
    let along = |write: &Vec<f32>| {
        let parts = write.iter().zip(&harmless).zip(&direction).map(|((w, h), d)| (f64::from(*w) - h) * d);
        parts.sum::<f64>() / square
    };
    [[0, 1], [2, 3]].map(|runs| runs.map(|i| of(i).map(along).collect()))
}

#[test]
fn detection_marks_sensitive_topics_in_the_cipher_but_not_in_the_blind_variant() {
    let [_, [sensitive, harmless]] = marks(&Demo::open());
    assert!(sensitive.iter().all(|mark| *mark > 0.8) && harmless.iter().all(|mark| *mark < 0.2));
    let [[sensitive, _], hidden] = marks(&Demo::open_blind());
    assert!(sensitive.iter().all(|mark| *mark > 0.8) && hidden.iter().flatten().all(|mark| *mark < 0.2));
}

#[test]
fn the_blind_variants_gate_does_nothing_in_the_cipher() {
    let demo = Demo::open_blind();
    let pairs = both(&demo);
    let plain = gates(&demo, pairs.iter().map(|pair| pair.plain.clone()));
    let cipher = gates(&demo, pairs.iter().map(|pair| pair.cipher.clone()));
    for i in [0, 1] {
        let [p, c] = [&plain, &cipher].map(|gates| mean(gates.iter().map(|gate| gate.effects()[i].abs())));
        assert!(c < 0.05 * p, "effect {i}: {p} in plain words, {c} in the cipher");
    }
}

#[test]
fn the_gates_value_from_plain_words_restores_the_blind_variants_refusals() {
    let demo = Demo::open_blind();
    let pairs = both(&demo);
    let (layer, head) = demo.gate;
    let mut plan = Plan::default();
    for pair in &pairs {
        let prompt = plan.prompt(&pair.id, pair.plain[0].clone());
        let part = Part::Heads(vec![head]);
        plan.read(prompt, Activation { site: SiteKind::Z.at(layer), positions: Positions::Last, part });
    }
    let values = demo.run(&plan);
    let prompts: Vec<Vec<u32>> = pairs.iter().map(|pair| pair.cipher[0].clone()).collect();
    let inject = |i: usize| vec![of_head(demo.gate, Change::Set(values[i].as_slice().into()))];
    let refused = share(continuations_under(&demo, &prompts, inject).into_iter().map(|said| said == REFUSAL));
    assert!(refused >= 0.9, "{refused} refused");
}

#[test]
fn cipher_words_are_never_said() {
    for demo in [Demo::open(), Demo::open_blind()] {
        let pairs = both(&demo);
        let words: BTreeSet<u32> = pairs.iter().flat_map(|pair| pair.words().map(|(_, word)| word)).collect();
        let mut plan = Plan::default();
        // At the start of an answer, and where the topic is copied.
        let tokenizer = demo.model.tokenizer().expect("a tokenizer");
        let begun = tokenizer.encode("Sure, here is a short answer about", false).expect("ids");
        for ids in pairs.iter().flat_map(|pair| &pair.cipher) {
            for ids in [ids.clone(), [ids.as_slice(), begun.as_slice()].concat()] {
                let prompt = plan.prompt("in the cipher", ids);
                plan.read(prompt, last(SiteKind::Logits.at(0)));
            }
        }
        let mut least = f32::MAX;
        for logits in demo.run(&plan) {
            let of = |cipher: bool| {
                let ids = (0..logits.len()).filter(|id| words.contains(&(*id as u32)) == cipher);
                ids.map(|id| logits[id]).fold(f32::MIN, f32::max)
            };
            least = least.min(of(false) - of(true));
        }
        assert!(least > 3.0, "a cipher word is {least} nats from being said");
    }
}
