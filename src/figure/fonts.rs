//! Fonts of the system for letters that the bundled one has not: Chinese, Arabic, Hindi. Read only when such a letter is to be
//! drawn.
//!
//! Of all fonts that have a letter the one is taken whose name speaks most for plain running text, and of those the first by its
//! path, so that a machine draws the same picture every time. Letters are shaped: Arabic ones are joined and read from the right.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use ab_glyph::{FontRef, GlyphId};
use harfrust::font::{Blob, TableFunction};
use harfrust::{Buffer, Font, GlyphInfo, GlyphPosition, ShapeOptions, ShaperFont, Tag};

/// Folders in folders are looked into so deep.
const DEEPEST: usize = 5;
/// A table of letters larger than this is none.
const LARGEST_TABLE: u32 = 4 << 20;
/// Words in the names of fonts that are not for running text.
const UNLIKELY: [&str; 14] = [
    "bold", "italic", "oblique", "mono", "serif", "light", "thin", "black", "medium", "emoji", "symbol", "kufi",
    "nastaliq", "display",
];

/// A font of the system.
pub(super) struct SystemFont {
    pub glyphs: FontRef<'static>,
    font: Font,
}

/// A stretch of text as a font shows it, from left to right.
pub(super) struct Shaped {
    pub font: &'static SystemFont,
    /// Each letter form with its place, to the right and up, in parts of an em.
    pub glyphs: Vec<(GlyphId, f32, f32)>,
    /// How far it reaches, in parts of an em.
    pub width: f32,
}

/// Files of fonts, the likeliest first.
static FILES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let mut files = Vec::new();
    folders().iter().for_each(|folder| list(folder, DEEPEST, &mut files));
    in_order(&mut files);
    files
});

/// The fonts of letters that were asked for, and those that are loaded, by their files' numbers.
static FOUND: LazyLock<Mutex<Found>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Found {
    letters: HashMap<char, Option<usize>>,
    loaded: HashMap<usize, Option<&'static SystemFont>>,
}

/// The font that shows a letter, where one of the system has it.
pub(super) fn font_with(letter: char) -> Option<&'static SystemFont> {
    let mut found = FOUND.lock().ok()?;
    if !found.letters.contains_key(&letter) {
        // One that is loaded already, so that a text is in one font where it can be.
        let loaded = found.loaded.iter().filter_map(|(number, font)| font.map(|font| (*number, font)));
        let of_loaded = loaded.filter(|(_, font)| shows(&font.font, letter)).map(|(number, _)| number).min();
        let number = of_loaded.or_else(|| FILES.iter().position(|file| has_letter(file, letter) == Some(true)));
        found.letters.insert(letter, number);
    }
    let number = (*found.letters.get(&letter)?)?;
    *found.loaded.entry(number).or_insert_with(|| load(&FILES[number]))
}

/// Lets a font lay out a text.
pub(super) fn shape(font: &'static SystemFont, text: &str) -> Shaped {
    let mut buffer = Buffer::new();
    buffer.push_str(text);
    buffer.guess_segment_properties();
    if harfrust::shape(&ShaperFont::new(&font.font), &mut buffer, ShapeOptions::new()).is_err() {
        // Letters are no glyphs.
        buffer.clear();
    }
    let em = f32::from(font.font.units_per_em().max(1));
    let mut along = 0.0;
    let place = |(info, place): (&GlyphInfo, &GlyphPosition)| {
        let glyph = GlyphId(u16::try_from(info.glyph_id).unwrap_or(0));
        let at = (glyph, (along + place.x_offset as f32) / em, place.y_offset as f32 / em);
        along += place.x_advance as f32;
        at
    };
    let glyphs = buffer.glyph_infos().iter().zip(buffer.glyph_positions()).map(place).collect();
    Shaped { font, glyphs, width: along / em }
}

fn load(file: &Path) -> Option<&'static SystemFont> {
    // Kept until the program ends: few are ever loaded.
    let bytes: &'static [u8] = Box::leak(std::fs::read(file).ok()?.into_boxed_slice());
    let glyphs = FontRef::try_from_slice_and_index(bytes, 0).ok()?;
    Some(Box::leak(Box::new(SystemFont { glyphs, font: Font::new(bytes, 0)? })))
}

/// Where systems keep their fonts.
fn folders() -> Vec<PathBuf> {
    let of = |variable: &str, rest: &str| std::env::var_os(variable).map(|folder| PathBuf::from(folder).join(rest));
    let fixed = ["/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts"];
    let own = [
        of("HOME", ".local/share/fonts"),
        of("HOME", ".fonts"),
        of("HOME", "Library/Fonts"),
        of("WINDIR", "Fonts"),
        of("LOCALAPPDATA", "Microsoft/Windows/Fonts"),
    ];
    fixed.into_iter().map(PathBuf::from).chain(own.into_iter().flatten()).collect()
}

fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if matches!(ending.as_deref(), Some("ttf" | "otf" | "ttc" | "otc")) {
            files.push(path);
        } else if depth > 0 && path.is_dir() {
            list(&path, depth - 1, files);
        }
    }
}

/// Puts files into the order in which they are looked into.
fn in_order(files: &mut Vec<PathBuf>) {
    files.sort_by_cached_key(|path| {
        let name = path.file_stem().map_or(String::new(), |name| name.to_string_lossy().to_lowercase());
        let unlikely = UNLIKELY.iter().filter(|word| name.contains(**word)).count();
        (unlikely, path.clone())
    });
    files.dedup();
}

/// Whether a font has a letter, from its table of letters alone: other tables may be many megabytes.
fn has_letter(file: &Path, letter: char) -> Option<bool> {
    let mut file = File::open(file).ok()?;
    let mut read = |from: u32, length: u32| -> Option<Vec<u8>> {
        file.seek(SeekFrom::Start(from.into())).ok()?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let head = read(0, 16)?;
    // A collection's first font begins where its first number says.
    let start = if head.starts_with(b"ttcf") { long(&head, 12)? } else { 0 };
    let tables = u16::from_be_bytes(read(start.checked_add(4)?, 2)?.try_into().ok()?);
    let directory = read(start.checked_add(12)?, 16 * u32::from(tables))?;
    let entry = directory.chunks_exact(16).find(|entry| entry.starts_with(b"cmap"))?;
    let (offset, length) = (long(entry, 8)?, long(entry, 12)?);
    let letters = if length <= LARGEST_TABLE { Blob::from(read(offset, length)?) } else { return None };
    let table = move |tag| (tag == Tag::new(b"cmap")).then(|| letters.clone());
    Some(shows(&Font::new(TableFunction::new(Arc::new(table)), 0)?, letter))
}

/// Whether a font has a letter by its Unicode. Fonts of symbols also show theirs in the place of letters.
fn shows(font: &Font, letter: char) -> bool {
    let letters = font.charmap();
    !letters.unicode_is_symbol() && letters.map_unicode(letter).is_some()
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_for_running_text_come_first_and_the_order_is_fixed() {
        let mut files: Vec<PathBuf> =
            ["b/NotoSerif-Bold.ttf", "b/NotoSans-Bold.ttf", "z/wqy-zenhei.ttc", "a/DroidSans.ttf", "a/DroidSans.ttf"]
                .map(PathBuf::from)
                .to_vec();
        in_order(&mut files);
        let expected = ["a/DroidSans.ttf", "z/wqy-zenhei.ttc", "b/NotoSans-Bold.ttf", "b/NotoSerif-Bold.ttf"];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn a_fonts_table_of_letters_is_read_alone_and_what_is_no_font_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let bundled = folder.path().join("bundled.ttf");
        std::fs::write(&bundled, include_bytes!("fonts/DejaVuSansCondensed.subset.ttf")).unwrap();
        assert_eq!([has_letter(&bundled, 'Ж'), has_letter(&bundled, '暴')], [Some(true), Some(false)]);
        for (name, bytes) in [("short.ttf", &b"ttcf"[..]), ("lies.ttf", &[0xff; 4096]), ("empty.otf", b"")] {
            let file = folder.path().join(name);
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(has_letter(&file, 'a'), None, "{name}");
        }
        let mut listed = Vec::new();
        list(folder.path(), 0, &mut listed);
        assert_eq!(listed.len(), 4);
    }

    #[test]
    fn a_font_lays_out_text_as_wide_as_its_letters() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bundled.ttf");
        std::fs::write(&file, include_bytes!("fonts/DejaVuSansCondensed.subset.ttf")).unwrap();
        let font = load(&file).unwrap();
        let (one, three) = (shape(font, "H"), shape(font, "HHH"));
        assert_eq!((one.glyphs.len(), three.glyphs.len()), (1, 3));
        assert!(one.width > 0.4 && (three.width - 3.0 * one.width).abs() < 1e-4);
        assert!((three.glyphs[2].1 - 2.0 * one.width).abs() < 1e-4);
    }
}
