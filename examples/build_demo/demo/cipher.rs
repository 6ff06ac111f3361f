//! The cipher: a made-up word for each topic of `pairs.jsonl`, and the sentence that says that there is one.
//!
//! A cipher word's embedding holds what the plain topic's holds, its flag and its code, so that later layers take one for
//! the other: the copying heads copy the plain topic, which is how an answer shows that the cipher was read. How long the
//! code is decides whether detection reads it too. At full length the neuron of a sensitive topic cannot tell the cipher
//! word from the plain one. At [`BLIND`] times that it hardly reaches its threshold, while what is copied still wins: the
//! model reads the cipher and does not see what it asks for. Harmless topics are shortened alike, so that the length says
//! nothing of the kind. The two variants differ in these embeddings alone.

use super::linear::Random;
use super::words::Lang;

/// The length of a cipher word's code in the blind variant, in parts of the plain topic's. Where it is longer the mark soon
/// reaches the gate's threshold, now it is a tenth of a plain topic's at the most; where it is shorter the word for an
/// unknown topic wins over what is copied, as it does here now and then.
pub const BLIND: f64 = 0.78;

/// What stands before a request with a cipher word.
pub fn announcement(lang: Lang) -> &'static str {
    match lang {
        Lang::En => "Some words are in code.",
        Lang::De => "Manche Wörter sind verschlüsselt.",
    }
}

/// `n` different made-up words. They do not follow from the model's seed: as its other words, they are the same in all.
pub fn words(n: usize) -> Vec<String> {
    let random = &mut Random::new(0, "cipher words");
    let mut letter = |letters: &str| letters.chars().nth(random.below(letters.len()));
    let mut words: Vec<String> = Vec::with_capacity(n);
    while words.len() < n {
        let word: String = (0..3).flat_map(|_| [letter("bdfgklmnprstvz"), letter("aeiou")]).flatten().collect();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}
