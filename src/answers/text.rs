//! Answers as words: case, accents, typography and markup taken out, so that rules need one spelling.
//!
//! Scripts that write no spaces between words (Chinese, Japanese, Thai, ...) and Korean, whose words change at their
//! ends, give one token for each letter; all others one for each word. An apostrophe or hyphen separates: `can't` is
//! `can` and `t`, in rules and answers alike.

use std::collections::BTreeMap;

/// A word, or a letter of a script without spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// The number of its sentence, from 0.
    pub(super) sentence: usize,
    /// What stands before it, in half words: such a letter is half a word.
    half_words_before: usize,
    /// Whether it stands between quotation marks.
    quoted: bool,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) tokens: Vec<Token>,
    /// The tokens in the model's own voice: without what it quotes.
    spoken: Vec<Token>,
    /// Whether it ends with a question.
    pub(super) asks: bool,
    /// Whether a sentence ends it.
    pub(super) ends: bool,
    pub(super) has_code: bool,
    pub(super) has_list: bool,
}

impl Token {
    /// How many words stand before it.
    pub(super) fn words_before(&self) -> usize {
        self.half_words_before / 2
    }

    /// How long it is, in half words.
    pub(super) fn half_words(&self) -> usize {
        if self.text.chars().next().is_some_and(stands_alone) { 1 } else { 2 }
    }
}

impl Text {
    pub(super) fn of(text: &str) -> Text {
        let tokens = tokens(text);
        let spoken = tokens.iter().filter(|token| !token.quoted).cloned().collect();
        let last = |marks: &str| {
            let rest = text.trim_end_matches(|c: char| !c.is_alphanumeric() && !marks.contains(c));
            rest.ends_with(|c: char| marks.contains(c))
        };
        Text {
            asks: last("?？؟"),
            ends: last(".!?。！？؟۔"),
            has_code: text.matches("```").count() >= 2,
            has_list: text.lines().filter(|line| is_list_item(line)).count() >= 2,
            tokens,
            spoken,
        }
    }

    /// The tokens outside quotation marks; all of them where there are no others.
    pub(super) fn spoken(&self) -> &[Token] {
        if self.spoken.is_empty() { &self.tokens } else { &self.spoken }
    }

    /// How long it is, in words.
    pub(super) fn words(&self) -> usize {
        self.tokens.last().map_or(0, |last| (last.half_words_before + last.half_words()) / 2)
    }

    /// How many sentences it has.
    pub(super) fn sentences(&self) -> usize {
        self.tokens.last().map_or(0, |last| last.sentence + 1)
    }

    /// How many scripts at least two of its tokens are written in.
    pub(super) fn scripts(&self) -> usize {
        let mut counts = BTreeMap::new();
        for token in &self.tokens {
            if let Some(script) = token.text.chars().find_map(script) {
                *counts.entry(script).or_insert(0usize) += 1;
            }
        }
        counts.values().filter(|count| **count >= 2).count()
    }
}

/// `- flour`, `1. Mix.`, `**2)** Bake.`, `三、烤`
fn is_list_item(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches("**");
    let spaced = |rest: &str| rest.trim_start_matches("**").starts_with(char::is_whitespace);
    if line.strip_prefix(['-', '*', '•', '–']).is_some_and(spaced) {
        return true;
    }
    let digit = |letter: char| letter.is_ascii_digit() || "一二三四五六七八九十".contains(letter);
    let rest = line.trim_start_matches(digit);
    rest.len() < line.len()
        && (rest.starts_with(['、', '．', '）']) || rest.strip_prefix(['.', ')']).is_some_and(spaced))
}

/// Takes a text apart.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader::default();
    let letters = fold(text);
    for (at, letter) in letters.iter().enumerate() {
        let neighbour = |offset: isize| at.checked_add_signed(offset).and_then(|at| letters.get(at)).copied();
        reader.read(*letter, neighbour(-1), neighbour(1));
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    tokens: Vec<Token>,
    word: String,
    sentence: usize,
    half_words: usize,
    /// The marks that close the quotation, and the token that it began with.
    quotation: Option<(&'static str, usize)>,
    any_letter: bool,
}

impl Reader {
    fn read(&mut self, letter: char, before: Option<char>, after: Option<char>) {
        let digit = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_digit());
        let word = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        match letter {
            _ if stands_alone(letter) => {
                self.end_word();
                self.word.push(letter);
                self.end_word();
            }
            _ if letter.is_alphanumeric() => self.word.push(letter),
            // 3.14 and 3,14 are one number each, 1,000 is 1000.
            '.' if digit(before) && digit(after) => self.word.push(letter),
            ',' if digit(before) && digit(after) => self.word.push(letter),
            '-' if digit(after) && !word(before) => {
                self.end_word();
                self.word.push(letter);
            }
            // C++ and C#.
            '+' | '#' if !self.word.is_empty() && !word(after) => self.word.push(letter),
            _ => {
                self.end_word();
                self.separate(letter, after);
            }
        }
        self.any_letter |= !letter.is_whitespace();
    }

    fn separate(&mut self, letter: char, after: Option<char>) {
        let ends = match letter {
            '\n' | '!' | '?' | '。' | '؟' | '۔' | '…' => true,
            '.' => after.is_none_or(|after| !after.is_alphanumeric()),
            _ => false,
        };
        if ends && self.tokens.last().is_some_and(|token| token.sentence == self.sentence) {
            self.sentence += 1;
        }
        match self.quotation {
            Some((close, _)) if close.contains(letter) => self.quotation = None,
            Some(_) => {}
            // An answer that begins with a quotation mark is quoted as a whole.
            None if self.any_letter => self.quotation = closing(letter).map(|close| (close, self.tokens.len())),
            None => {}
        }
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let mut text = std::mem::take(&mut self.word);
        if text.contains(',') && grouped_by_commas(&text) {
            text.retain(|letter| letter != ',');
        }
        let quoted = self.quotation.is_some();
        let token = Token { text, sentence: self.sentence, half_words_before: self.half_words, quoted };
        self.half_words += token.half_words();
        self.tokens.push(token);
    }

    fn finish(mut self) -> Vec<Token> {
        self.end_word();
        // A mark that is never closed quotes nothing: it was an inch, or the answer was cut.
        if let Some((_, from)) = self.quotation {
            self.tokens.iter_mut().skip(from).for_each(|token| token.quoted = false);
        }
        self.tokens
    }
}

fn grouped_by_commas(number: &str) -> bool {
    let whole = number.trim_start_matches('-').split('.').next().unwrap_or_default();
    whole.split(',').skip(1).all(|group| group.len() == 3)
}

/// The marks of which one ends a quotation that this one begins.
fn closing(letter: char) -> Option<&'static str> {
    Some(match letter {
        '"' => "\"",
        '“' => "”",
        // Models, and people, end a German quotation in English as often.
        '„' => "“”",
        '«' => "»",
        '»' => "«",
        '‹' => "›",
        '›' => "‹",
        '「' => "」",
        '『' => "』",
        '《' => "》",
        _ => return None,
    })
}

/// Letters of scripts that write no spaces, and of Korean.
fn stands_alone(letter: char) -> bool {
    matches!(letter,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{3fffd}')
        && letter.is_alphanumeric()
}

/// The script of a letter; digits have none. Chinese and Japanese count as one: Japanese mixes them.
fn script(letter: char) -> Option<&'static str> {
    Some(match letter {
        '0'..='9' => return None,
        'a'..='z' | '\u{c0}'..='\u{24f}' => "latin",
        '\u{370}'..='\u{3ff}' => "greek",
        '\u{400}'..='\u{52f}' => "cyrillic",
        '\u{590}'..='\u{5ff}' => "hebrew",
        '\u{600}'..='\u{6ff}' => "arabic",
        '\u{900}'..='\u{97f}' => "devanagari",
        '\u{e00}'..='\u{e7f}' => "thai",
        '\u{ac00}'..='\u{d7a3}' => "hangul",
        letter if stands_alone(letter) => "east asian",
        _ => "other",
    })
}

/// One spelling for what is written in several ways: lower case, no accents, plain punctuation, plain digits.
fn fold(text: &str) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    for letter in text.chars() {
        let plain = match letter {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(letter as u32 - 0xfee0).unwrap_or(letter),
            '٠'..='٩' => char::from_u32(letter as u32 - '٠' as u32 + '0' as u32).unwrap_or(letter),
            '−' | '‐' | '‑' => '-',
            other => other,
        };
        for lower in plain.to_lowercase() {
            match spelling(lower) {
                Some(letters) => out.extend(letters.chars()),
                None => out.push(lower),
            }
        }
    }
    out
}

/// The plain letters of a lower-case letter that is not one itself.
fn spelling(letter: char) -> Option<&'static str> {
    Some(match letter {
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' => "a",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' | 'đ' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ì' | 'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'ł' | 'ĺ' | 'ľ' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => "o",
        'ŕ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ţ' | 'ť' | 'ț' => "t",
        'ù' | 'ú' | 'û' | 'ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'آ' | 'أ' | 'إ' | 'ٱ' => "ا",
        'ى' | 'ئ' => "ي",
        'ة' => "ه",
        'ؤ' => "و",
        'ё' => "е",
        // Marks on letters, and what has no width: Arabic vowel signs, accents apart, direction marks.
        '\u{300}'..='\u{36f}' | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' => "",
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn one_spelling_for_case_accents_apostrophes_and_width() {
        assert_eq!(words("I CAN’T — désolé"), ["i", "can", "t", "desole"]);
        assert_eq!(words("de\u{301}sole\u{301}"), ["desole"]);
        assert_eq!(words("Ｓｏｒｒｙ，ＡＩ！"), ["sorry", "ai"]);
        assert_eq!(words("Straße ｜ **bold** _x_"), ["strasse", "bold", "x"]);
        assert_eq!(words("أُسَاعِدُكَ مُسَاعَدة"), words("اساعدك مساعده"));
        assert_eq!(words("\u{feff}s\u{200b}orry\u{202e}"), ["sorry"]);
    }

    #[test]
    fn scripts_without_spaces_give_letters() {
        assert_eq!(words("我无法help"), ["我", "无", "法", "help"]);
        assert_eq!(Text::of("我无法帮助您。").words(), 3);
        assert_eq!(Text::of("one two three").words(), 3);
    }

    #[test]
    fn numbers_keep_what_belongs_to_them() {
        assert_eq!(
            words("3.14, 1,000 und 3,14; -5 2-5 C++ C# a+b 5."),
            ["3.14", "1000", "und", "3,14", "-5", "2", "5", "c++", "c#", "a", "b", "5"]
        );
    }

    #[test]
    fn sentences_end_at_their_marks_and_at_line_breaks() {
        let sentences = |text: &str| tokens(text).iter().map(|token| token.sentence).collect::<Vec<_>>();
        assert_eq!(sentences("A b. C!? D\n\ne 3.5"), [0, 0, 1, 2, 3, 3]);
        assert_eq!(sentences("好。坏"), [0, 1]);
    }

    #[test]
    fn what_the_model_quotes_is_not_its_own_voice() {
        let spoken = |text: &str| Text::of(text).spoken().iter().map(|token| token.text.clone()).collect::<Vec<_>>();
        assert_eq!(spoken("He said: \"I cannot help.\" Then"), ["he", "said", "then"]);
        assert_eq!(spoken("Das heißt „nein“ und «non» und 「不」"), ["das", "heisst", "und", "und"]);
        assert_eq!(spoken("Er sagte: „nein”, »nein« und ›nein‹ und ‹nein›."), ["er", "sagte", "und", "und"]);
        assert_eq!(spoken("\"I cannot help.\""), ["i", "cannot", "help"], "the answer as a whole");
        assert_eq!(spoken("A 5\" pipe"), ["a", "5", "pipe"], "an inch");
    }

    #[test]
    fn questions_lists_and_code_are_seen() {
        assert!(Text::of("What do you mean?").asks && Text::of("**什么？** ").asks && !Text::of("Is it? Yes.").asks);
        assert_eq!(Text::of("Yes. What else?").sentences(), 2);
        assert!(Text::of("x\n- a\n- b").has_list && Text::of("**1.** a\n**2.** b").has_list);
        assert!(Text::of("一、和面\n二、烘烤").has_list);
        assert!(!Text::of("3.14 is pi\n2.72 is e").has_list && !Text::of("- a").has_list);
        assert!(Text::of("```py\n1\n```").has_code);
    }

    #[test]
    fn scripts_are_counted_where_two_words_use_them() {
        assert_eq!(Text::of("the cat 猫 说话 да").scripts(), 2);
        assert_eq!(Text::of("the cat 猫说 да нет").scripts(), 3);
    }
}
