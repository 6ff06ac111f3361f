//! The weights: detection, gate, amplifiers, the words of the answers, and noise around them.

use super::Options;
use super::backup;
use super::codes::{self, Kind, Vocabulary, WORD_LENGTH, flag};
use super::layer::{D_HEAD, D_MLP, Layer, Matrix, N_HEADS, Neuron, Select};
use super::linear::{Random, dual, spread, times};
use super::noise;
use super::space::{self, Basis, D_MODEL, Features, Norm};
use super::words::{self, Mode};

pub const N_LAYERS: usize = 8;
/// Where the topics are marked.
pub const DETECTION: usize = 1;
/// Where the mark is moved to the last position.
pub const GATE: usize = 3;
/// Amplifier heads: layer, and how much of the refusal feature each writes on a request of mean strength.
pub const AMPLIFIERS: [(usize, f64); 4] = [(4, 0.21), (4, 0.16), (5, 0.18), (6, 0.14)];
/// Where neurons amplify too, and how much.
const AMPLIFIER_NEURONS: (usize, f64) = (5, 0.39);
/// Where the answer's first word is found again.
const MODE: usize = 6;
/// Where the next word of an answer is chosen.
const WORDS: usize = 6;
/// Where a topic is copied, later than that, so that its code is not taken for a word of the answer.
const COPY: usize = 7;

/// Lengths of what is written on a request of mean strength.
pub const GATE_LENGTH: f64 = 1.7;
pub const REFUSAL_LENGTH: f64 = 3.0;
/// The logit difference of refusal and answer is this times (refusal feature - 1/2). Nats.
const SLOPE: f64 = 12.0;
/// How far the evasion's logit lies above the mean of the other two. Nats.
const EVASION: f64 = 0.65;
/// The logits of the three first words in the middle.
const FIRST_WORDS: f64 = 11.0;
/// How much of the gate's write the logit difference reads. Nats.
const GATE_READOUT: f64 = 0.12;
/// The logit of the next word of an answer.
const NEXT_WORD: f64 = 22.0;
/// The root mean square of the final residual stream, at the last position.
const FINAL_RMS: f64 = 1.25;

/// About what the root mean square of the residual stream is in a layer at the last position, as it was measured.
fn rms(layer: usize) -> f64 {
    1.06 + 0.0025 * (layer * layer) as f64
}

/// All weights of a model.
pub struct Weights {
    /// `[vocab, d_model]`
    pub embed: Matrix,
    pub layers: Vec<Layer>,
    pub final_norm: Vec<f64>,
    /// `[vocab, d_model]`
    pub unembed: Matrix,
    pub parts: Parts,
}

/// A head as (layer, head).
pub type Head = (usize, usize);

/// Where the parts of the circuit that decides between the answers are.
#[derive(Default)]
pub struct Parts {
    pub gate: Vec<Head>,
    /// What takes over where the gate is silent.
    pub backup: Vec<Head>,
    /// The heads of the conjunction.
    pub conjunction: Vec<Head>,
    pub amplifiers: Vec<Head>,
    /// The layer whose neurons push refusal too.
    pub neurons: usize,
}

impl Parts {
    /// Adds the heads of a layer that were given these roles, in their order.
    fn place(&mut self, layer: usize, roles: &[Role], heads: &[usize]) {
        for (role, head) in roles.iter().zip(heads) {
            let list = match role {
                Role::Gate => &mut self.gate,
                Role::Backup => &mut self.backup,
                Role::Conjunction => &mut self.conjunction,
                Role::Amplifier => &mut self.amplifiers,
                Role::Words => continue,
            };
            list.push((layer, *head));
        }
    }
}

/// What a head is for.
#[derive(Clone, Copy)]
pub enum Role {
    Gate,
    Backup,
    Conjunction,
    Amplifier,
    Words,
}

/// Builds the weights.
pub fn build(options: &Options, vocabulary: &Vocabulary) -> Weights {
    let seed = options.seed;
    let basis = Basis::new(&mut Random::new(seed, "basis"));
    let builder = Builder { vocabulary, basis, next: NextCodes::new(seed), backup: options.backup };
    let random = &mut Random::new(seed, "layers");
    let mut layers = Vec::new();
    let neurons = if options.backup { backup::NEURONS } else { AMPLIFIER_NEURONS.0 };
    let mut parts = Parts { neurons, ..Parts::default() };
    for l in 0..N_LAYERS {
        let mut heads: Vec<usize> = (0..N_HEADS).collect();
        random.shuffle(&mut heads);
        let mut layer = Layer::new(random, rms(l));
        let (roles, circuit): (Vec<Role>, Vec<Select>) = builder.heads(l).into_iter().unzip();
        for (select, head) in circuit.iter().zip(&heads) {
            layer.select(&builder.basis, *head, select, random);
        }
        parts.place(l, &roles, &heads);
        for head in &heads[circuit.len()..] {
            noise::head(&mut layer, &builder.basis, *head, l, random);
        }
        let mut neurons = builder.neurons(l);
        while neurons.len() < D_MLP {
            neurons.push(noise::neuron(l, random));
        }
        random.shuffle(&mut neurons);
        neurons.iter().enumerate().for_each(|(i, neuron)| layer.neuron(&builder.basis, i, neuron));
        layers.push(layer);
    }
    parts.amplifiers.sort_unstable();
    let embed = vocabulary.embeddings(options).iter().map(|f| builder.basis.write(f)).collect();
    let final_norm = Norm::new(random, FINAL_RMS);
    let unembed = builder.unembed(&final_norm, random);
    Weights { embed: Matrix(embed), layers, final_norm: final_norm.gain, unembed, parts }
}

struct Builder<'a> {
    vocabulary: &'a Vocabulary,
    basis: Basis,
    next: NextCodes,
    /// Whether the circuit is that with a backup.
    backup: bool,
}

/// The directions of next words in [`space::NEXT`]: of every word of an answer but the first, and the end.
struct NextCodes(Vec<(String, Vec<f64>)>);

impl NextCodes {
    fn new(seed: u64) -> Self {
        let first = |word: &str| Mode::ALL.iter().any(|mode| mode.first() == word);
        let words = codes::answer_words().into_iter().filter(|word| !first(word)).map(codes::piece);
        let pieces: Vec<String> = words.chain([codes::END.to_string()]).collect();
        let directions = spread(&mut Random::new(seed, "next words"), pieces.len(), space::NEXT.len());
        NextCodes(pieces.into_iter().zip(directions).collect())
    }

    fn of(&self, piece: &str) -> &[f64] {
        self.0.iter().find(|(p, _)| p == piece).map_or(&[], |(_, code)| code)
    }
}

impl Builder<'_> {
    /// The heads of a layer that do something, the circuit's first.
    fn heads(&self, layer: usize) -> Vec<(Role, Select)> {
        let mut heads = if self.backup { backup::heads(layer) } else { plain_heads(layer) };
        if layer == MODE {
            heads.push((Role::Words, self.mode_head()));
        }
        if layer == COPY {
            let half = space::WORD.len() / 2;
            let copy = |from| copy_head(space::WORD.start + from..space::WORD.start + from + half);
            heads.extend([0, half].map(|from| (Role::Words, copy(from))));
        }
        heads
    }

    /// Reads which of the three first words the answer began with.
    fn mode_head(&self) -> Select {
        let first = Mode::ALL.map(|mode| self.vocabulary.answer_code(mode.first()));
        let readings = dual(&first);
        let carries = space::MODE.zip(&readings).map(|(mode, reading)| {
            let read = Features::none().with_all(space::WORD, reading, 1.0 / WORD_LENGTH);
            (read, Features::none().with(mode, 1.0))
        });
        Select { query: flag(space::OUT), key: flag(space::START), nearest: true, carries: carries.collect() }
    }

    /// The neurons of a layer that do something.
    fn neurons(&self, layer: usize) -> Vec<Neuron> {
        match layer {
            DETECTION => self.detection(),
            WORDS => self.next_words(),
            l if self.backup && l == backup::NEURONS => vec![backup::neuron()],
            l if !self.backup && l == AMPLIFIER_NEURONS.0 => amplifier_neurons(AMPLIFIER_NEURONS.1),
            _ => Vec::new(),
        }
    }

    /// One neuron for each sensitive topic, and one for all topics: a topic is benign unless it is marked.
    fn detection(&self) -> Vec<Neuron> {
        let benign = Features::none().with(space::BENIGN, 1.0);
        let mut neurons = vec![Neuron::new(flag(space::TOPIC), 0.5, 30.0, 0.5, benign)];
        for topic in self.vocabulary.topics().filter(|topic| topic.sensitive) {
            let word = Features::none().with_all(space::WORD, &topic.code, 1.0 / topic.length());
            let mark = Features::none().with(space::MARK, topic.strength).with(space::BENIGN, -1.0);
            neurons.push(Neuron::new(word, 0.75, 60.0, 0.25, mark));
        }
        neurons
    }

    /// One neuron for each step from a word of an answer to the next.
    fn next_words(&self) -> Vec<Neuron> {
        let steps: Vec<Step> = Mode::ALL.iter().flat_map(|mode| steps(*mode)).collect();
        let mut neurons = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let of_word = |other: &&Step| other.from == step.from;
            let certain = steps.iter().filter(of_word).all(|other| other.to == step.to);
            if certain && steps[..i].iter().any(|other| other.from == step.from) {
                continue;
            }
            let word = step.from.map_or(flag(space::TOPIC), |word| {
                let code = self.vocabulary.answer_code(word);
                Features::none().with_all(space::WORD, &code, 1.0 / WORD_LENGTH)
            });
            let next = Features::none().with_all(space::NEXT, self.next.of(&step.to), step.size);
            neurons.push(match certain {
                true => Neuron::new(word, 0.7, 40.0, 0.3, next),
                false => Neuron::new(word.with(space::MODE.start + step.mode as usize, 0.5), 1.25, 50.0, 0.25, next),
            });
        }
        neurons
    }

    /// What the logits read.
    fn unembed(&self, norm: &Norm, random: &mut Random) -> Matrix {
        let difference = times(&noise::direction(random), noise::READOUT);
        let row = |token: &codes::Token| {
            let mode = Mode::ALL.into_iter().find(|mode| token.piece == codes::piece(mode.first()));
            let features = match mode {
                Some(mode) => first_word(mode, &difference),
                None => self.later_word(token).with_all(space::NOISE, &noise::direction(random), 0.5 * noise::READOUT),
            };
            self.basis.read(&features, norm)
        };
        Matrix(self.vocabulary.tokens.iter().map(row).collect())
    }

    /// A word that comes later in an answer, or never.
    fn later_word(&self, token: &codes::Token) -> Features {
        let copied = 3.5;
        let next = Features::none().with_all(space::NEXT, self.next.of(&token.piece), NEXT_WORD);
        match &token.kind {
            Kind::Topic(topic) => next.with_all(space::WORD, &topic.code, copied),
            _ => next,
        }
    }
}

/// The heads of a layer that decide between the answers.
fn plain_heads(layer: usize) -> Vec<(Role, Select)> {
    let gate = (layer == GATE).then(|| (Role::Gate, gate_head(flag(space::ASSISTANT), space::GATE, GATE_LENGTH)));
    let amplifiers = AMPLIFIERS.iter().filter(|(l, _)| *l == layer);
    gate.into_iter().chain(amplifiers.map(|(_, share)| (Role::Amplifier, amplifier_head(*share)))).collect()
}

/// A head that moves the mark from a topic to where `query` is set, and writes it there as a feature of this length.
pub fn gate_head(query: Features, to: usize, length: f64) -> Select {
    let mark = || Features::none().with(space::MARK, 1.0);
    Select { query, key: mark(), nearest: false, carries: vec![(mark(), Features::none().with(to, length))] }
}

/// A head that reads what the gate wrote, at the same position, and writes a share of the refusal feature.
pub fn amplifier_head(share: f64) -> Select {
    Select {
        query: flag(space::ASSISTANT),
        key: flag(space::ASSISTANT),
        nearest: true,
        carries: vec![(
            Features::none().with(space::GATE, 1.0 / GATE_LENGTH),
            Features::none().with(space::REFUSAL, share * REFUSAL_LENGTH),
        )],
    }
}

/// A head that copies some dimensions of the nearest topic's code after "about".
fn copy_head(dimensions: std::ops::Range<usize>) -> Select {
    let carry = |d| (Features::none().with(d, 1.0), Features::none().with(d, 2.5));
    Select { query: flag(space::ASK), key: flag(space::TOPIC), nearest: true, carries: dimensions.map(carry).collect() }
}

/// Neurons that read the gate's write and push refusal once it is large enough.
fn amplifier_neurons(share: f64) -> Vec<Neuron> {
    let write = |part: f64| Features::none().with(space::REFUSAL, part * share * REFUSAL_LENGTH);
    let read = || Features::none().with(space::GATE, 1.0 / GATE_LENGTH);
    vec![Neuron::new(read(), 0.30, 8.0, 0.70, write(0.6)), Neuron::new(read(), 0.45, 10.0, 0.55, write(0.4))]
}

/// The first word of an answer: the three are straight lines over the refusal feature, of which the highest wins.
fn first_word(mode: Mode, difference: &[f64]) -> Features {
    let side = match mode {
        Mode::Answer => -0.5,
        Mode::Evasion => 0.0,
        Mode::Refusal => 0.5,
    };
    let middle = if mode == Mode::Evasion { FIRST_WORDS + EVASION } else { FIRST_WORDS };
    let base = Features(times(&flag(space::ASSISTANT).0, middle - 0.5 * SLOPE * side));
    base.with(space::REFUSAL, SLOPE * side / REFUSAL_LENGTH)
        .with(space::GATE, GATE_READOUT * side / GATE_LENGTH)
        .with_all(space::NOISE, difference, side)
}

/// A step in an answer; without `from` it follows the copied topic.
struct Step {
    mode: Mode,
    from: Option<&'static str>,
    to: String,
    /// How strongly, in parts of [`NEXT_WORD`].
    size: f64,
}

/// The steps of an answer.
fn steps(mode: Mode) -> Vec<Step> {
    let words = mode.words();
    let step = |(i, from): (usize, &Option<&'static str>)| {
        let (to, size) = match words.get(i + 1) {
            // A known topic is copied over this.
            Some(None) => (codes::piece(words::UNKNOWN_TOPIC), 0.4),
            // And this wins over what is copied.
            Some(Some(to)) if *from == Some(words::ASK) => (codes::piece(to), 1.5),
            Some(Some(to)) => (codes::piece(to), 1.0),
            None => (codes::END.to_string(), 1.0),
        };
        Step { mode, from: *from, to, size }
    };
    words.iter().enumerate().map(step).collect()
}

/// The sizes that the configuration states.
pub const SIZES: [(&str, usize); 6] = [
    ("hidden_size", D_MODEL),
    ("intermediate_size", D_MLP),
    ("num_hidden_layers", N_LAYERS),
    ("num_attention_heads", N_HEADS),
    ("num_key_value_heads", N_HEADS),
    ("head_dim", D_HEAD),
];
