//! Tokens that are parts of characters, in readable form.
//!
//! Byte-level vocabularies spell each byte by a letter of GPT-2's table, so that a token of half a character reads as letters that are
//! not in the text. Here such a byte is written `<0xE4>`, as SentencePiece calls its own tokens of one byte: both kinds of
//! vocabulary look the same wherever a token is shown.

use std::fmt::Write;

/// A token's text with `<0xE4>` for each byte that belongs to no whole character; none of a piece that is not spelled by bytes.
pub(super) fn readable(piece: &str) -> Option<String> {
    let bytes: Vec<u8> = piece.chars().map(byte).collect::<Option<_>>()?;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Nothing stops a text from growing.
            let _ = write!(text, "<0x{byte:02X}>");
        }
    }
    Some(text)
}

/// The byte that a letter of GPT-2's table stands for.
fn byte(letter: char) -> Option<u8> {
    match u8::try_from(letter) {
        Ok(byte) if spells_itself(byte) => Some(byte),
        Ok(_) => None,
        // The others are spelled by the letters from U+0100 on, in their order.
        Err(_) => {
            let number = (u32::from(letter)).checked_sub(0x100)? as usize;
            (0..=u8::MAX).filter(|byte| !spells_itself(*byte)).nth(number)
        }
    }
}

fn spells_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_table_has_a_letter_for_every_byte_and_no_other() {
        let mut bytes: Vec<u8> = ByteLevel::alphabet().into_iter().map(|letter| byte(letter).unwrap()).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(['\u{20}', '\u{ad}', '\u{144}', '\u{4f60}'].map(byte), [None; 4]);
    }

    #[test]
    fn bytes_of_no_whole_character_are_written_as_numbers_and_all_others_as_text() {
        // The space and the first two bytes of a character of three; the last of one, and a letter.
        assert_eq!(readable("\u{120}\u{e4}\u{bd}").unwrap(), " <0xE4><0xBD>");
        assert_eq!(readable("\u{142}a").unwrap(), "<0xA0>a");
        assert_eq!(readable("<0xE4>").unwrap(), "<0xE4>", "SentencePiece's own spelling stays");
        assert_eq!(readable("\u{ef}\u{bf}\u{bd}").unwrap(), "\u{fffd}", "a whole character, if an odd one");
        assert_eq!(readable("\u{2581}a"), None);
    }
}
