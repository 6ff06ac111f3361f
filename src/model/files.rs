//! Reading a checkpoint's small files, which are someone else's: no more of one is read than such a file can need.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// The largest configuration, in bytes.
pub(super) const LARGEST_CONFIG: u64 = 16 << 20;

/// The whole of a file of no more than `limit` bytes; nothing where there is no such file.
///
/// # Errors
/// What the operating system says, or `FileTooLarge` with a sentence.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes, which none needs")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_up_to_its_bound_and_not_beyond() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        assert!(read_bounded(&path, 3).expect("absence is fine").is_none());
        std::fs::write(&path, "abc").expect("a file");
        assert_eq!(read_bounded(&path, 3).expect("it fits").as_deref(), Some(b"abc".as_slice()));
        let error = read_bounded(&path, 2).expect_err("too large");
        assert!(error.kind() == ErrorKind::FileTooLarge && error.to_string().contains("more than 2 bytes"), "{error}");
    }
}
