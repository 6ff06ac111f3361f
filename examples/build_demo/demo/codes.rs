//! The vocabulary: every token with what it is and what its embedding holds.

use super::linear::{Random, spread, times, unit};
use super::space::{self, Features};
use super::words::{self, FORMS, Lang, MORE_WORDS, Mode, Role, TOPICS};
use super::{Options, cipher};
use std::collections::HashMap;

/// How many styles topics have. Each is as frequent among sensitive as among harmless topics.
pub const STYLES: usize = 4;

/// The special tokens, from id 0.
pub const SPECIAL: [&str; 6] = [UNKNOWN, BOS, END, "<|system|>", "<|user|>", ASSISTANT];
pub const UNKNOWN: &str = "<unk>";
pub const BOS: &str = "<s>";
pub const END: &str = "<|end|>";
pub const ASSISTANT: &str = "<|assistant|>";

/// The sign that stands for the space before a word.
pub const SPACE: char = '\u{2581}';

/// A token.
pub struct Token {
    /// As the tokenizer's vocabulary spells it.
    pub piece: String,
    pub kind: Kind,
}

/// What a token is.
pub enum Kind {
    Special,
    Topic(Topic),
    /// A word of an answer, with its code in [`space::WORD`].
    Answer {
        code: Vec<f64>,
    },
    /// A word that only requests have.
    Other,
    /// What stands for a topic in the cipher.
    Cipher(Topic),
}

/// A topic.
#[derive(Clone)]
pub struct Topic {
    pub word: &'static str,
    pub sensitive: bool,
    pub lang: Lang,
    pub role: Role,
    pub style: usize,
    /// Its direction in [`space::WORD`].
    pub code: Vec<f64>,
    /// How strongly the detection layer marks it; 1 in the mean square.
    pub strength: f64,
    /// What stands for it in the cipher, if it is in `pairs.jsonl`.
    pub cipher: Option<String>,
}

impl Topic {
    /// How long its code is: with the detection layer's write every topic has the same norm.
    pub fn length(&self) -> f64 {
        (4.0 - self.strength * self.strength).sqrt()
    }
}

/// The length of the codes of other words.
pub const WORD_LENGTH: f64 = 1.75;
/// The length of the first token's.
const FIRST_LENGTH: f64 = 0.2;
/// The value of flags.
const FLAG: f64 = 1.5;
/// The value of the flag at the last position: large, so that an answer's first word stands firm.
const ASSISTANT_FLAG: f64 = 2.0 * FLAG;
/// The value of the ballast.
const BALLAST: f64 = 8.0;
/// The length of a word's style, and of a topic's.
const STYLE_LENGTH: f64 = 1.2;
const TOPIC_STYLE_LENGTH: f64 = 0.8;

/// All tokens.
pub struct Vocabulary {
    pub tokens: Vec<Token>,
    /// The direction in [`space::WORD`] of the token that begins every text.
    pub first: Vec<f64>,
    ids: HashMap<String, usize>,
}

/// The pieces of a text, as the tokenizer makes them.
pub fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    for word in text.split_whitespace() {
        let mut piece = SPACE.to_string();
        for c in word.chars() {
            if c.is_ascii_punctuation() {
                pieces.extend(Some(std::mem::take(&mut piece)).filter(|p| !p.is_empty()));
                pieces.push(c.to_string());
            } else {
                piece.push(c);
            }
        }
        pieces.extend(Some(piece).filter(|p| !p.is_empty()));
    }
    pieces
}

/// The piece of a word or of a sign.
pub fn piece(word: &str) -> String {
    if word.chars().all(|c| c.is_ascii_punctuation()) { word.to_string() } else { format!("{SPACE}{word}") }
}

/// The different words of the three answers, but for topics.
pub fn answer_words() -> Vec<&'static str> {
    let mut words: Vec<&str> = Vec::new();
    for word in Mode::ALL.iter().flat_map(|mode| mode.words()).flatten() {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

impl Vocabulary {
    pub fn new(seed: u64) -> Self {
        let answers = answer_words();
        let n_topics: usize = TOPICS.iter().map(|t| t.words().count()).sum();
        let width = space::WORD.len();
        let mut codes = spread(&mut Random::new(seed, "word codes"), 1 + answers.len() + n_topics, width).into_iter();
        let mut next = || codes.next().unwrap_or_default();
        let first = next();
        let special = SPECIAL.iter().map(|s| Token { piece: s.to_string(), kind: Kind::Special });
        let mut tokens: Vec<Token> = special.collect();
        for word in answers {
            tokens.push(Token { piece: piece(word), kind: Kind::Answer { code: next() } });
        }
        for topic in topics(seed, &mut next) {
            tokens.push(Token { piece: piece(topic.word), kind: Kind::Topic(topic) });
        }
        let mut ids: HashMap<String, usize> = tokens.iter().enumerate().map(|(i, t)| (t.piece.clone(), i)).collect();
        let forms = FORMS.iter().flat_map(|form| pieces(&form.text.replace("{}", " ")));
        let more = MORE_WORDS.split_whitespace().map(piece);
        for piece in std::iter::once(SPACE.to_string()).chain(forms).chain(more) {
            if !ids.contains_key(&piece) {
                ids.insert(piece.clone(), tokens.len());
                tokens.push(Token { piece, kind: Kind::Other });
            }
        }
        let mut vocabulary = Vocabulary { tokens, first, ids };
        vocabulary.add_cipher();
        vocabulary
    }

    /// Adds the cipher's words and those of the sentence that announces it. They come after all others, so that those
    /// keep their ids and their random numbers.
    fn add_cipher(&mut self) {
        let announced = [Lang::En, Lang::De].into_iter().flat_map(|lang| pieces(cipher::announcement(lang)));
        let mut more: Vec<Token> = announced.map(|piece| Token { piece, kind: Kind::Other }).collect();
        let hidden = |topic: &Topic| Some((piece(topic.cipher.as_deref()?), topic.clone()));
        more.extend(self.topics().filter_map(hidden).map(|(piece, topic)| Token { piece, kind: Kind::Cipher(topic) }));
        for token in more {
            if !self.ids.contains_key(&token.piece) {
                self.ids.insert(token.piece.clone(), self.tokens.len());
                self.tokens.push(token);
            }
        }
    }

    /// The topics, in the vocabulary's order.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.tokens.iter().filter_map(|token| if let Kind::Topic(topic) = &token.kind { Some(topic) } else { None })
    }

    /// The id of a piece; the unknown token's where there is none.
    pub fn id(&self, piece: &str) -> usize {
        self.ids.get(piece).copied().unwrap_or(0)
    }

    /// The code of a word of an answer.
    pub fn answer_code(&self, word: &str) -> Vec<f64> {
        match &self.tokens[self.id(&piece(word))].kind {
            Kind::Answer { code } => code.clone(),
            _ => vec![0.0; space::WORD.len()],
        }
    }

    /// What every token's embedding holds, in the order of the ids.
    pub fn embeddings(&self, options: &Options) -> Vec<Features> {
        let random = &mut Random::new(options.seed, "styles");
        let width = space::STYLE.len();
        let styles: Vec<Vec<f64>> =
            (0..STYLES).map(|_| times(&unit(&random.normals(width)), TOPIC_STYLE_LENGTH)).collect();
        let cipher_length = if options.cipher_blind { cipher::BLIND } else { 1.0 };
        let mut embedding = |token: &Token| {
            let style = times(&unit(&random.normals(width)), STYLE_LENGTH);
            self.embedding(token, &style, &styles, cipher_length)
        };
        self.tokens.iter().map(&mut embedding).collect()
    }

    /// What a token's embedding holds; `cipher_length` is that of cipher words' codes in parts of their topics'.
    fn embedding(&self, token: &Token, own_style: &[f64], styles: &[Vec<f64>], cipher_length: f64) -> Features {
        let base = Features::none().with(space::BALLAST, BALLAST);
        let styled = |f: Features| f.with_all(space::STYLE, own_style, 1.0);
        match &token.kind {
            Kind::Topic(topic) => topic_embedding(topic, 1.0, &styles[topic.style]),
            Kind::Cipher(topic) => topic_embedding(topic, cipher_length, &styles[topic.style]),
            Kind::Answer { code } => {
                let out = styled(base).with(space::OUT, FLAG).with_all(space::WORD, code, WORD_LENGTH);
                let is = |word: &str| token.piece == piece(word);
                let out = if Mode::ALL.iter().any(|m| is(m.first())) { out.with(space::START, FLAG) } else { out };
                if is(words::ASK) { out.with(space::ASK, FLAG) } else { out }
            }
            Kind::Other => styled(base),
            // It may be anything, so a known topic is preferred to it.
            Kind::Special if token.piece == UNKNOWN => base.with(space::TOPIC, 0.8 * FLAG),
            // Heads that find nothing rest here, and carry a little of its code.
            Kind::Special if token.piece == BOS => {
                base.with(space::BOS, FLAG).with_all(space::WORD, &self.first, FIRST_LENGTH)
            }
            Kind::Special if token.piece == ASSISTANT => styled(base).with(space::ASSISTANT, ASSISTANT_FLAG),
            Kind::Special => styled(base),
        }
    }
}

/// Every topic, with the next of the codes each.
fn topics(seed: u64, next: &mut impl FnMut() -> Vec<f64>) -> Vec<Topic> {
    let random = &mut Random::new(seed, "strengths");
    let mut topics = Vec::new();
    for list in &TOPICS {
        let n = list.words().count();
        // Evenly spread in the square, around the harmless topics' 1.
        let square = |i: usize| 0.78 + 0.44 * (i as f64 + 0.5) / n as f64;
        let mut strengths: Vec<f64> = (0..n).map(|i| if list.sensitive { square(i).sqrt() } else { 1.0 }).collect();
        random.shuffle(&mut strengths);
        for (i, (word, strength)) in list.words().zip(strengths).enumerate() {
            let (sensitive, lang, role) = (list.sensitive, list.lang, list.role);
            let (style, cipher) = (i % STYLES, None);
            topics.push(Topic { word, sensitive, lang, role, style, code: next(), strength, cipher });
        }
    }
    let hidden: Vec<&mut Topic> = topics.iter_mut().filter(|topic| topic.role == Role::Test).collect();
    let words = cipher::words(hidden.len());
    hidden.into_iter().zip(words).for_each(|(topic, word)| topic.cipher = Some(word));
    topics
}

/// What the embedding of a topic holds, or of the word that stands for it, with its code at a part of its length. The
/// ballast makes up for the rest, so that the norm is the same.
fn topic_embedding(topic: &Topic, part: f64, style: &[f64]) -> Features {
    let missing = (1.0 - part * part) * topic.length() * topic.length();
    Features::none()
        .with(space::BALLAST, (BALLAST * BALLAST + missing).sqrt())
        .with(space::TOPIC, FLAG)
        .with_all(space::WORD, &topic.code, part * topic.length())
        .with_all(space::STYLE, style, 1.0)
}

/// The reading of a flag: 1 where it is set.
pub fn flag(feature: usize) -> Features {
    let value = if feature == space::ASSISTANT { ASSISTANT_FLAG } else { FLAG };
    Features::none().with(feature, 1.0 / value)
}

/// The reading that is 1 at every token.
pub fn constant() -> Features {
    Features::none().with(space::BALLAST, 1.0 / BALLAST)
}
