//! Text on a canvas, in the font that travels with the project: no system font library, the same pixels everywhere.
//!
//! Glyphs are placed by their outlines at fractions of a pixel: the text layout of plotters' own bitmap backend drops
//! side bearings, which shows at the sizes used here. A letter that the font has not is drawn as a box, so that what
//! should stand there is seen to be missing; telling the user is left to the caller ([`TextStyle::lacks`]).

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use plotters::style::RGBColor;

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
    pub color: RGBColor,
    /// Which side is at the given place.
    pub anchor: Anchor,
    /// Reads from bottom to top instead of from left to right.
    pub upwards: bool,
}

impl TextStyle {
    /// Regular text that starts at its place and reads to the right.
    pub fn new(size: f32, color: RGBColor) -> TextStyle {
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
        let font = self.font();
        // `PxScale` is the height from descent to ascent; sizes here are those of the em.
        let em = font.units_per_em().unwrap_or(2048.0);
        PxScale::from(self.size * font.height_unscaled() / em)
    }

    /// How many pixels the text takes along its line.
    pub fn width(&self, text: &str) -> f32 {
        let font = self.font().as_scaled(self.scale());
        text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum()
    }

    /// Whether the font has no letter for a part of the text that should be seen.
    pub fn lacks(&self, text: &str) -> bool {
        text.chars().any(|letter| self.lacks_letter(letter))
    }

    fn lacks_letter(&self, letter: char) -> bool {
        self.font().glyph_id(letter).0 == 0 && !letter.is_whitespace() && !letter.is_control()
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
        let font = self.font().as_scaled(self.scale());
        let mut used = 0.0;
        let too_far = text.char_indices().find(|(_, letter)| {
            used += font.h_advance(font.glyph_id(*letter));
            used > width
        });
        too_far.map_or(text.len(), |(index, _)| index)
    }

    /// Calls `draw` with pixel and coverage, 0 to 1, for text whose baseline goes through `(x, y)`.
    pub(super) fn rasterize(&self, text: &str, x: f32, y: f32, mut draw: impl FnMut(i32, i32, f32)) {
        let font = self.font();
        let scaled = font.as_scaled(self.scale());
        let mut along = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -self.width(text) / 2.0,
            Anchor::End => -self.width(text),
        };
        for letter in text.chars() {
            let id = font.glyph_id(letter);
            let glyph: Glyph = id.with_scale_and_position(self.scale(), point(along, 0.0));
            let from = along;
            along += scaled.h_advance(id);
            let mut dot = |across: i32, down: i32, coverage: f32| {
                let (px, py) = if self.upwards { (down, -across) } else { (across, down) };
                draw(x.round() as i32 + px, y.round() as i32 + py, coverage.clamp(0.0, 1.0));
            };
            if self.lacks_letter(letter) {
                self.empty_box(from, along, |across, down| dot(across, down, 1.0));
            } else if let Some(outline) = font.outline_glyph(glyph) {
                let bounds = outline.px_bounds();
                let (left, top) = (bounds.min.x as i32, bounds.min.y as i32);
                outline.draw(|dx, dy, coverage| dot(left + dx as i32, top + dy as i32, coverage));
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: TextStyle =
        TextStyle { size: 40.0, bold: false, color: RGBColor(0, 0, 0), anchor: Anchor::Start, upwards: false };

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
        for (text, lacking) in [("暴力", true), ("سياسة", true), ("Größe Ж\u{202f}5", false), ("a\nb\u{2009}c", false)]
        {
            assert_eq!(STYLE.lacks(text), lacking, "{text}");
        }
        let pixels = drawn(STYLE, "暴");
        assert!(pixels.iter().all(|(x, y)| *x >= 0 && (*x as f32) < STYLE.width("暴") && (-30..0).contains(y)));
        let middle = (STYLE.width("暴") / 2.0) as i32;
        assert!(pixels.contains(&(middle, -1)) && !pixels.contains(&(middle, -15)), "a frame, not a block");
        let upwards = drawn(STYLE.upwards(), "暴");
        assert_eq!(upwards, pixels.iter().map(|(x, y)| (*y, -x)).collect::<Vec<_>>());
        assert!(drawn(STYLE, "\u{2009}").is_empty());
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
