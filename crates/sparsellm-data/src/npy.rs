//! NumPy arrays of token ids.

use sparsellm_base::{Error, Result};
use std::path::Path;

/// Reads a 1-D int32 or int64 array in NumPy format 1 to 3.
pub(super) fn read(path: &Path) -> Result<Vec<u32>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let bad = |what: &str| Error::Input(format!("{}: {what}", path.display()));
    if !bytes.starts_with(b"\x93NUMPY") || bytes.len() < 12 {
        return Err(bad("not a NumPy .npy file"));
    }
    let (start, length) = match bytes[6] {
        1 => (10usize, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        _ => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
    };
    let header = start
        .checked_add(length)
        .and_then(|end| bytes.get(start..end))
        .and_then(|h| std::str::from_utf8(h).ok())
        .ok_or_else(|| bad("truncated .npy header"))?;
    let field = |name: &str| -> Option<&str> {
        let rest = &header[header.find(&format!("'{name}'"))?..];
        Some(rest[rest.find(':')? + 1..].trim_start())
    };
    let size = match field("descr") {
        Some(d) if d.starts_with("'<i4'") => 4,
        Some(d) if d.starts_with("'<i8'") => 8,
        _ => return Err(bad("the array must be int32 or int64 (little-endian)")),
    };
    let count = field("shape")
        .and_then(|s| s.strip_prefix('('))
        .and_then(|s| s.split_once(')'))
        .map(|(s, _)| s.trim().trim_end_matches(','))
        .and_then(|s| s.parse::<usize>().ok())
        .ok_or_else(|| bad("the array must have one dimension"))?;
    let body = &bytes[start + length..];
    if count.checked_mul(size) != Some(body.len()) {
        return Err(bad("the data's length does not match its shape; the file is truncated"));
    }
    body.chunks_exact(size)
        .enumerate()
        .map(|(i, b)| {
            let id = match *b {
                [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => -1,
            };
            u32::try_from(id)
                .map_err(|_| bad(&format!("element {i} is {id}, which is no token id")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn npy(descr: &str, shape: &str, body: &[u8]) -> tempfile::NamedTempFile {
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\x93NUMPY\x01\x00").unwrap();
        file.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(body).unwrap();
        file
    }

    #[test]
    fn token_arrays_are_read_and_checked() {
        let ids: Vec<u8> = [5i64, 0, 70_000].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(npy("<i8", "(3,)", &ids).path()).unwrap(), [5, 0, 70_000]);
        let ids: Vec<u8> = [5i32, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(npy("<i4", "(2,)", &ids).path()).unwrap(), [5, 7]);
        let negative = (-1i32).to_le_bytes();
        for file in [
            npy("<i4", "(1,)", &negative),
            npy("<f4", "(2,)", &ids),
            npy("<i4", "(3,)", &ids),
            npy("<i4", "(1, 2)", &ids),
        ] {
            assert!(read(file.path()).is_err());
        }
        for n in 0..100 {
            let whole = std::fs::read(npy("<i4", "(2,)", &ids).path()).unwrap();
            let cut = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(cut.path(), &whole[..n.min(whole.len() - 1)]).unwrap();
            assert!(read(cut.path()).is_err());
        }
    }
}
