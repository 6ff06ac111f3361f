//! Text on a canvas, in the font that travels with the project: the same pixels everywhere, but for letters that it has not.
//!
//! Those are drawn in a font of the system (`fonts`). A letter that no font has is drawn as a box, so that what
//! should stand there is seen to be missing; telling the user is left to the caller ([`TextStyle::lacks`]).

use std::collections::HashSet;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};

use super::fonts::{self, Shaped, SystemFont};
use super::style::Color;
/// DejaVu Sans Condensed, cut down to Latin, Greek, Cyrillic, arrows and mathematical signs.
const REGULAR: &[u8] = include_bytes!("fonts/DejaVuSansCondensed.subset.ttf");
const BOLD: &[u8] = include_bytes!("fonts/DejaVuSansCondensed-Bold.subset.ttf");

// The fonts do not come from outside.
#[allow(clippy::expect_used)]
static FONTS: LazyLock<[FontRef<'static>; 2]> = LazyLock::new(|| {
    // The bytes are part of the program; a test reads both.
    [REGULAR, BOLD].map(|bytes| FontRef::try_from_slice(bytes).expect("the embedded fonts are valid"))
});

/// Which side of the text is at the given place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The text starts there.
    Start,
    /// The text's middle is there.
    Middle,
    /// The text ends there.
    End,
}

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextStyle {
    /// Pixels to the em.
    pub size: f32,
    /// Bold or regular.
    pub bold: bool,
    /// The colour.
    pub color: Color,
    /// Which side is at the given place.
    pub anchor: Anchor,
    /// Reads from bottom to top instead of from left to right.
    pub upwards: bool,
}

impl TextStyle {
    /// Regular text that starts at its place and reads to the right.
    pub fn new(size: f32, color: Color) -> TextStyle {
        TextStyle { size, bold: false, color, anchor: Anchor::Start, upwards: false }
    }

    /// The same in bold.
    pub fn bold(self) -> TextStyle {
        TextStyle { bold: true, ..self }
    }

    /// The same with another side at its place.
    pub fn anchored(self, anchor: Anchor) -> TextStyle {
        TextStyle { anchor, ..self }
    }

    /// The same, reading from bottom to top.
    pub fn upwards(self) -> TextStyle {
        TextStyle { upwards: true, ..self }
    }

    /// The height of a capital letter in pixels: what text is centred by.
    pub fn cap_height(&self) -> f32 {
        self.size * 0.729
    }

    /// The distance between two lines' baselines in pixels.
    pub fn line_height(&self) -> f32 {
        self.size * 1.25
    }

    fn font(&self) -> &'static FontRef<'static> {
        &FONTS[usize::from(self.bold)]
    }

    fn scale(&self) -> PxScale {
        self.scale_of(self.font())
    }

    fn scale_of(&self, font: &FontRef<'_>) -> PxScale {
        // `PxScale` is the height from descent to ascent; sizes here are those of the em.
        let em = font.units_per_em().unwrap_or(2048.0);
        PxScale::from(self.size * font.height_unscaled() / em)
    }

    /// How many pixels the text takes along its line.
    pub fn width(&self, text: &str) -> f32 {
        let bundled = |text: &str| {
            let font = self.font().as_scaled(self.scale());
            text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum::<f32>()
        };
        let of_run = |run: Run<'_>| match run {
            Run::Bundled(text) => bundled(text),
            Run::Shaped(shaped) => shaped.width * self.size,
        };
        self.runs(text).into_iter().map(of_run).sum()
    }

    /// Whether no font has a letter for a part of the text that should be seen.
    pub fn lacks(&self, text: &str) -> bool {
        text.chars().any(|letter| self.is_foreign(letter) && fonts::font_with(letter).is_none())
    }

    /// Whether the bundled font has no letter for what should be seen.
    fn is_foreign(&self, letter: char) -> bool {
        self.font().glyph_id(letter).0 == 0 && !letter.is_whitespace() && !letter.is_control()
    }

    /// The text in stretches of one font; what no font has is left to the bundled one.
    fn runs<'a>(&self, text: &'a str) -> Vec<Run<'a>> {
        let mut runs = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let found = rest.char_indices().filter(|(_, letter)| self.is_foreign(*letter));
            let found = found.filter_map(|(at, letter)| Some((at, fonts::font_with(letter)?))).next();
            let (start, font) = found.map_or((rest.len(), None), |(at, font)| (at, Some(font)));
            if start > 0 {
                runs.push(Run::Bundled(&rest[..start]));
            }
            rest = &rest[start..];
            if let Some(font) = font {
                let end = self.reach(rest, font);
                runs.push(Run::Shaped(fonts::shape(font, &rest[..end])));
                rest = &rest[end..];
            }
        }
        runs
    }

    /// How many bytes from the text's start on are one stretch of a font: with the spaces between its words, so that those
    /// which read from the right stand in their order.
    fn reach(&self, text: &str, font: &'static SystemFont) -> usize {
        let mut end = 0;
        for (at, letter) in text.char_indices() {
            let its =
                self.is_foreign(letter) && fonts::font_with(letter).is_some_and(|other| std::ptr::eq(other, font));
            if its {
                end = at + letter.len_utf8();
            } else if !letter.is_whitespace() {
                break;
            }
        }
        end
    }

    /// Breaks a text at spaces into lines of at most `width` pixels; a longer word has a line of its own.
    pub fn wrap(&self, text: &str, width: f32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.width(&format!("{line} {word}")) <= width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }

    /// The text in at most `most` lines of at most `width` pixels, at least one line even of nothing.
    ///
    /// A word too long for a line is broken between letters; what does not fit ends in an ellipsis.
    pub fn wrap_within(&self, text: &str, width: f32, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in self.wrap(text, width) {
            if self.width(&line) <= width { lines.push(line) } else { self.break_word(&line, width, &mut lines) }
        }
        let most = most.max(1);
        if lines.len() > most {
            let rest = lines.split_off(most - 1).join(" ");
            lines.push(self.clip(&rest, width));
        }
        if lines.is_empty() { vec![String::new()] } else { lines }
    }

    /// The text in one line of at most `width` pixels, its end replaced by an ellipsis where it is longer.
    pub fn clip(&self, text: &str, width: f32) -> String {
        let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.width(&text) <= width {
            return text;
        }
        let kept = self.letters_within(&text, width - self.width("…"));
        text.truncate(kept);
        text.truncate(text.trim_end().len());
        text.push('…');
        text
    }

    /// The text in one line of at most `width` pixels, its middle replaced by an ellipsis where it is longer: names of models
    /// and heads are told apart by their ends.
    pub fn shorten(&self, text: &str, width: f32) -> String {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.width(&text) <= width {
            return text;
        }
        let half = (width - self.width("…")) / 2.0;
        let start = &text[..self.letters_within(&text, half)];
        let backwards: String = text.chars().rev().collect();
        let end: String = backwards[..self.letters_within(&backwards, half)].chars().rev().collect();
        format!("{}…{}", start.trim_end(), end.trim_start())
    }

    /// Each text [shortened](TextStyle::shorten), but where two that differ would look the same, from where all begin to differ.
    pub fn shorten_all(&self, texts: &[String], width: f32) -> Vec<String> {
        let distinct = |texts: &[String]| texts.iter().collect::<HashSet<_>>().len();
        let short: Vec<String> = texts.iter().map(|text| self.shorten(text, width)).collect();
        if distinct(&short) == distinct(texts) {
            return short;
        }
        let same = |text: &String| {
            let first = texts.first().map_or("", String::as_str);
            let differs = first.char_indices().zip(text.chars()).find(|((_, a), b)| a != b);
            differs.map_or(first.len().min(text.len()), |((at, _), _)| at)
        };
        let start = texts.iter().map(same).min().unwrap_or(0);
        texts.iter().map(|text| self.clip(&format!("…{}", &text[start..]), width)).collect()
    }

    fn break_word(&self, word: &str, width: f32, lines: &mut Vec<String>) {
        let mut rest = word;
        while !rest.is_empty() {
            // One letter at least, or a width below a letter's would never end.
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let (line, after) = rest.split_at(self.letters_within(rest, width).max(first));
            lines.push(line.to_owned());
            rest = after;
        }
    }

    /// How many bytes of the text fit into a width.
    fn letters_within(&self, text: &str, width: f32) -> usize {
        let mut used = 0.0;
        let too_far = text.char_indices().find(|(_, letter)| {
            used += self.width(letter.encode_utf8(&mut [0; 4]));
            used > width
        });
        too_far.map_or(text.len(), |(index, _)| index)
    }

    /// Calls `draw` with pixel and coverage, 0 to 1, for text whose baseline goes through `(x, y)`.
    pub(super) fn rasterize(&self, text: &str, x: f32, y: f32, mut draw: impl FnMut(i32, i32, f32)) {
        let mut along = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -self.width(text) / 2.0,
            Anchor::End => -self.width(text),
        };
        let mut dot = |across: i32, down: i32, coverage: f32| {
            let (px, py) = if self.upwards { (down, -across) } else { (across, down) };
            draw(x.round() as i32 + px, y.round() as i32 + py, coverage.clamp(0.0, 1.0));
        };
        for run in self.runs(text) {
            match run {
                Run::Bundled(text) => along = self.draw_bundled(text, along, &mut dot),
                Run::Shaped(Shaped { font, glyphs, width }) => {
                    let scale = self.scale_of(&font.glyphs);
                    for (glyph, right, up) in glyphs {
                        let place = point(along + right * self.size, -up * self.size);
                        draw_glyph(&font.glyphs, glyph.with_scale_and_position(scale, place), &mut dot);
                    }
                    along += width * self.size;
                }
            }
        }
    }

    /// Draws text in the bundled font, and returns where it ends.
    fn draw_bundled(&self, text: &str, mut along: f32, dot: &mut impl FnMut(i32, i32, f32)) -> f32 {
        let font = self.font();
        let scaled = font.as_scaled(self.scale());
        for letter in text.chars() {
            let id = font.glyph_id(letter);
            let from = along;
            along += scaled.h_advance(id);
            if self.is_foreign(letter) {
                self.empty_box(from, along, |across, down| dot(across, down, 1.0));
            } else {
                draw_glyph(font, id.with_scale_and_position(self.scale(), point(from, 0.0)), dot);
            }
        }
        along
    }

    /// Calls `dot` with the pixels of a frame that stands for a letter between two places along the line.
    fn empty_box(&self, from: f32, to: f32, mut dot: impl FnMut(i32, i32)) {
        let (line, side) = ((self.size / 16.0).round().max(1.0) as i32, (to - from) * 0.1);
        let (left, right) = ((from + side).round() as i32, (to - side).round() as i32);
        let top = -self.cap_height().round() as i32;
        for down in top..0 {
            for across in left..right {
                let inside = across >= left + line && across < right - line && down >= top + line && down < -line;
                if !inside {
                    dot(across, down);
                }
            }
        }
    }
}

/// A stretch of text in one font.
enum Run<'a> {
    Bundled(&'a str),
    Shaped(Shaped),
}

/// Calls `dot` with the pixels of a letter and how far each is covered.
fn draw_glyph(font: &FontRef<'_>, glyph: Glyph, dot: &mut impl FnMut(i32, i32, f32)) {
    let Some(outline) = font.outline_glyph(glyph) else { return };
    let bounds = outline.px_bounds();
    let (left, top) = (bounds.min.x as i32, bounds.min.y as i32);
    outline.draw(|dx, dy, coverage| dot(left + dx as i32, top + dy as i32, coverage));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this code point Unicode says that it will never be a letter.
    const NO_LETTER: &str = "\u{10fffe}";

    const STYLE: TextStyle =
        TextStyle { size: 40.0, bold: false, color: Color(0, 0, 0), anchor: Anchor::Start, upwards: false };

    #[test]
    fn both_fonts_have_letters_greek_arrows_and_mathematical_signs() {
        for style in [STYLE, STYLE.bold()] {
            for letter in "Az09äłéΔσαβЖ→←↑↓−±×≤≥≈∞∑√·…–—“”•²".chars() {
                assert_ne!(style.font().glyph_id(letter).0, 0, "{letter} in bold: {}", style.bold);
            }
        }
    }

    #[test]
    fn a_letter_that_the_font_has_not_is_a_box_within_its_width() {
        let drawn = |style: TextStyle, text: &str| {
            let mut pixels = Vec::new();
            style.rasterize(text, 0.0, 0.0, |x, y, coverage| pixels.extend((coverage > 0.5).then_some((x, y))));
            pixels
        };
        for (text, lacking) in [(NO_LETTER, true), ("Größe Ж\u{202f}5", false), ("a\nb\u{2009}c", false)] {
            assert_eq!(STYLE.lacks(text), lacking, "{text}");
        }
        let (pixels, width) = (drawn(STYLE, NO_LETTER), STYLE.width(NO_LETTER));
        assert!(pixels.iter().all(|(x, y)| *x >= 0 && (*x as f32) < width && (-30..0).contains(y)));
        let middle = (width / 2.0) as i32;
        assert!(pixels.contains(&(middle, -1)) && !pixels.contains(&(middle, -15)), "a frame, not a block");
        let upwards = drawn(STYLE.upwards(), NO_LETTER);
        assert_eq!(upwards, pixels.iter().map(|(x, y)| (*y, -x)).collect::<Vec<_>>());
        assert!(drawn(STYLE, "\u{2009}").is_empty());
    }

    #[test]
    fn letters_of_the_systems_fonts_are_drawn_within_their_width() {
        for text in ["暴力", "سياسة عامة", "नीति"] {
            // Without such a font they are boxes, which the test above is about.
            if STYLE.lacks(text) {
                continue;
            }
            let width = STYLE.width(text);
            let mut pixels = Vec::new();
            STYLE.rasterize(text, 0.0, 0.0, |x, y, coverage| pixels.extend((coverage > 0.5).then_some((x, y))));
            let (low, high) = pixels.iter().fold((i32::MAX, 0), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
            assert!(
                low >= -8 && (high as f32) < width + 8.0 && (high - low) as f32 > 0.5 * width,
                "{text}: {low}..{high}"
            );
            let mixed = STYLE.width(&format!("a {text} b")) - STYLE.width("a ") - STYLE.width(" b");
            assert!((mixed - width).abs() < 1.0, "{text}: {mixed} in Latin text, {width} alone");
        }
    }

    #[test]
    fn text_is_as_wide_as_it_is_drawn() {
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        STYLE.rasterize("HHHH", 0.0, 0.0, |x, _, coverage| {
            if coverage > 0.5 {
                (low, high) = (low.min(x), high.max(x));
            }
        });
        let drawn = (high - low) as f32;
        assert!((drawn - STYLE.width("HHHH")).abs() < STYLE.size * 0.25, "{drawn}");
    }

    #[test]
    fn capitals_are_as_high_as_the_style_says() {
        let mut top = 0;
        STYLE.rasterize("H", 0.0, 0.0, |_, y, coverage| {
            if coverage > 0.5 {
                top = top.min(y)
            }
        });
        assert!((-top as f32 - STYLE.cap_height()).abs() <= 1.0);
    }

    #[test]
    fn names_are_shortened_where_they_are_the_same() {
        let short = STYLE.shorten("Meta-Llama-3.1-8B-Instruct-Q4_K_M L14.H13", 400.0);
        assert!(short.starts_with("Meta-") && short.ends_with("L14.H13") && STYLE.width(&short) <= 400.0, "{short}");
        assert_eq!(STYLE.shorten("short", 400.0), "short");
        let names = |names: [&str; 2]| STYLE.shorten_all(&names.map(str::to_owned), 220.0);
        let ends = names(["llama-3.1-8b-instruct-base", "llama-3.1-8b-instruct-abliterated"]);
        let middles = names(["checkpoints-of-may-step-100-of-500", "checkpoints-of-may-step-200-of-500"]);
        assert!(ends[0] != ends[1] && ends.iter().all(|name| STYLE.width(name) <= 220.0), "{ends:?}");
        assert!(middles[0].starts_with("…100") && middles[1].starts_with("…200"), "{middles:?}");
        let one = names(["the-same-name-of-a-model", "the-same-name-of-a-model"]);
        assert_eq!(one[0], one[1]);
    }

    #[test]
    fn wrapping_keeps_every_word_and_the_width() {
        let text = "the effect of every head on the refusal of a request";
        let lines = STYLE.wrap(text, 300.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| STYLE.width(line) <= 300.0));
        assert_eq!(lines.join(" "), text);
        assert!(STYLE.wrap("", 10.0).is_empty());
    }

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis_and_no_line_is_too_wide() {
        assert_eq!(STYLE.clip("short", 1000.0), "short");
        let clipped = STYLE.clip("a label that is too long", 200.0);
        assert!(clipped.ends_with('…') && STYLE.width(&clipped) <= 200.0, "{clipped}");
        let lines = STYLE.wrap_within("an unbreakable_word_that_is_far_too_long_for_one_line and more of it", 200.0, 3);
        assert!(lines.len() == 3 && lines.iter().all(|line| STYLE.width(line) <= 200.0), "{lines:?}");
        assert!(lines[2].ends_with('…') && lines[0] == "an", "{lines:?}");
        assert_eq!(STYLE.wrap_within("", 200.0, 3), [""]);
        assert_eq!(STYLE.wrap_within("wide", 1.0, 9).join(""), "wide");
    }
}
