//! NumPy's `.npy`: a magic, a version, a header that is a dictionary as Python writes it, and the numbers. Versions 1 to
//! 3, floating point, little endian, in the order of C.

use half::f16;

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// An array's numbers and shape.
pub(super) type Array = (Vec<usize>, Vec<f32>);

/// Reads the bytes of a file.
///
/// # Errors
/// What is wrong with it, and what mends that: a damaged header, objects, integers, another order.
pub(super) fn read(bytes: &[u8]) -> Result<Array, String> {
    let (header, data) = split(bytes).ok_or("is no whole .npy file: its header is cut or of an unknown version")?;
    let field = |name: &str| field(header, name).ok_or_else(|| format!("its .npy header has no `{name}`"));
    let (descr, shape) = (field("descr")?, shape(field("shape")?)?);
    let size = match descr.trim_matches(['\'', '"']) {
        "<f2" => 2,
        "<f4" => 4,
        "<f8" => 8,
        object if object.contains('O') => {
            return Err(
                "holds Python objects, which are not unpickled; save numbers: np.save(f, v.astype('float32'))".into()
            );
        }
        other => return Err(format!("is of type {other}; save it as np.save(f, v.astype('<f4'))")),
    };
    // The order of a list is one.
    if field("fortran_order")? == "True" && shape.iter().filter(|n| **n != 1).count() > 1 {
        return Err("is in Fortran's order; save it as np.save(f, np.ascontiguousarray(v))".into());
    }
    let count = shape.iter().try_fold(1_usize, |product, n| product.checked_mul(*n));
    if count.and_then(|count| count.checked_mul(size)) != Some(data.len()) {
        return Err(format!(
            "has {} bytes of numbers where its shape {shape:?} takes others: it is cut or damaged",
            data.len()
        ));
    }
    let values = match size {
        2 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        4 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        _ => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
    };
    Ok((shape, values))
}

/// The bytes of a file of version 1, in f32.
pub(super) fn write(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|n| format!("{n},")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
    // What stands before the header: the magic, the version, the header's length. The numbers begin at a multiple of 64.
    let before = MAGIC.len() + 4;
    let length = (before + header.len() + 1).next_multiple_of(64) - before;
    let header = format!("{header:<width$}\n", width = length - 1);
    let mut bytes = [MAGIC, &[1, 0], &(length as u16).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// The header's text and what follows it.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (version, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest))?,
        2 | 3 => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest))?,
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// What stands behind a key: up to the next comma that is in no brackets, or the end of the dictionary.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let at = ["'", "\""].iter().find_map(|quote| {
        let key = format!("{quote}{name}{quote}");
        header.find(&key).map(|at| at + key.len())
    })?;
    let value = header.get(at..)?.trim_start().strip_prefix(':')?.trim_start();
    let mut depth = 0_usize;
    let end = value.find(|c| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && matches!(c, ',' | '}')
    })?;
    Some(value.get(..end)?.trim())
}

/// `()`, `(3,)`, `(3, 4)`.
fn shape(text: &str) -> Result<Vec<usize>, String> {
    let sizes = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let sizes = sizes.ok_or_else(|| format!("its .npy header's shape is {text}"))?;
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().map_err(|_| format!("its .npy header's shape is {text}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}          \n");
        let length = header.len() as u32;
        let mut bytes = [MAGIC, &[version, 0]].concat();
        bytes.extend(if version == 1 { (length as u16).to_le_bytes().to_vec() } else { length.to_le_bytes().to_vec() });
        [bytes.as_slice(), header.as_bytes(), data].concat()
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn every_version_and_width_is_read() {
        let values = [1.5, -2.0, 0.25];
        for version in [1, 2, 3] {
            let found = read(&file(version, "'<f4'", "False", "(3,)", &bytes(&values))).unwrap();
            assert_eq!(found, (vec![3], values.to_vec()));
        }
        let wide: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        assert_eq!(read(&file(1, "'<f8'", "False", "(1, 3)", &wide)).unwrap(), (vec![1, 3], values.to_vec()));
        let narrow: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        assert_eq!(read(&file(1, "'<f2'", "True", "(3,)", &narrow)).unwrap().1, values);
        assert_eq!(read(&file(1, "'<f4'", "False", "()", &bytes(&[4.0]))).unwrap(), (vec![], vec![4.0]));
    }

    #[test]
    fn what_is_written_is_read_and_begins_where_numpy_wants_it() {
        for shape in [vec![6], vec![2, 3], vec![1, 6], vec![0, 4]] {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32 - 2.5).collect();
            let written = write(&shape, &values);
            assert_eq!((written.len() - 4 * values.len()) % 64, 0);
            assert_eq!(read(&written).unwrap(), (shape, values));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_with_what_mends_it() {
        let data = bytes(&[0.0; 6]);
        for (descr, order, shape, why) in [
            ("'|O'", "False", "(6,)", "Python objects"),
            ("'>f4'", "False", "(6,)", "is of type >f4"),
            ("'<i8'", "False", "(3,)", "astype"),
            ("[('a', '<f4'), ('b', '<f4')]", "False", "(3,)", "is of type ["),
            ("'<f4'", "True", "(2, 3)", "ascontiguousarray"),
            ("'<f4'", "False", "(7,)", "24 bytes"),
            ("'<f4'", "False", "(5,)", "24 bytes"),
            ("'<f4'", "False", "(99999999999999999999,)", "shape"),
            ("'<f4'", "False", "(4611686018427387904, 4611686018427387904)", "24 bytes"),
            ("'<f4'", "False", "6", "shape"),
        ] {
            let found = read(&file(1, descr, order, shape, &data)).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
        assert!(read(&file(9, "'<f4'", "False", "(6,)", &data)).unwrap_err().contains("version"));
    }

    #[test]
    fn cut_and_changed_files_are_errors_or_arrays_but_never_panics() {
        let sound = file(1, "'<f4'", "False", "(2, 3)", &bytes(&[0.5; 6]));
        for length in 0..sound.len() {
            assert!(read(&sound[..length]).is_err(), "{length}");
        }
        for index in 0..sound.len() {
            for value in [0, b'\'', b'(', b',', 0x80, 0xff] {
                let mut changed = sound.clone();
                changed[index] = value;
                let _ = read(&changed);
            }
        }
    }
}
