//! NumPy arrays of token ids.

use sparsellm_base::{Error, Result};
use std::path::Path;

/// An array's header, as far as token ids need it.
struct Header {
    /// Bytes per element.
    size: usize,
    signed: bool,
    /// The number of rows and their width; a 1-D array is a single row.
    rows: usize,
    width: usize,
    /// Whether columns, rather than rows, are contiguous.
    by_columns: bool,
}

/// Reads an array of integers of any width in NumPy format 1 to 3. A 2-D array's rows follow
/// one another.
///
/// # Errors
/// If the file cannot be read, is not such an array, or holds a number that is no token id.
pub(super) fn read(path: &Path) -> Result<Vec<u32>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    ids(&bytes).map_err(|what| Error::Input(format!("{}: {what}", path.display())))
}

fn ids(bytes: &[u8]) -> std::result::Result<Vec<u32>, String> {
    let (header, body) = split(bytes)?;
    let Header { size, signed, rows, width, by_columns } = Header::parse(header)?;
    let length = rows.checked_mul(width).and_then(|count| count.checked_mul(size));
    if length != Some(body.len()) {
        return Err("the data's length does not match its shape; the file is truncated".into());
    }
    let id = |i: usize| {
        // Sign extension: an unsigned integer has none, and one of 64 bits needs none.
        let element = &body[i * size..][..size];
        let fill = if signed && element[size - 1] >= 0x80 { 0xff } else { 0 };
        let mut wide = [fill; 16];
        wide[..size].copy_from_slice(element);
        let value = i128::from_le_bytes(wide);
        u32::try_from(value).map_err(|_| format!("element {i} is {value}, which is no token id"))
    };
    if by_columns {
        return (0..rows * width).map(|i| id(i % width * rows + i / width)).collect();
    }
    (0..rows * width).map(id).collect()
}

/// The header's text, and the data after it.
fn split(bytes: &[u8]) -> std::result::Result<(&str, &[u8]), String> {
    if !bytes.starts_with(b"\x93NUMPY") || bytes.len() < 12 {
        return Err("not a NumPy .npy file".into());
    }
    let (start, length) = match bytes[6] {
        1 => (10usize, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        _ => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
    };
    let header = start.checked_add(length).and_then(|end| bytes.split_at_checked(end));
    header
        .and_then(|(header, body)| Some((std::str::from_utf8(header.get(start..)?).ok()?, body)))
        .ok_or_else(|| "truncated .npy header".into())
}

impl Header {
    fn parse(header: &str) -> std::result::Result<Header, String> {
        let field = |name: &str| -> Option<&str> {
            let rest = &header[header.find(&format!("'{name}'"))?..];
            Some(rest[rest.find(':')? + 1..].trim_start())
        };
        let quoted = |text: &'_ str| text.strip_prefix('\'')?.split('\'').next().map(str::to_owned);
        let kind = field("descr").and_then(quoted).unwrap_or_default();
        let (signed, size) = match kind.as_str() {
            "|u1" => (false, 1),
            "|i1" => (true, 1),
            "<u2" => (false, 2),
            "<i2" => (true, 2),
            "<u4" => (false, 4),
            "<i4" => (true, 4),
            "<u8" => (false, 8),
            "<i8" => (true, 8),
            _ if kind.starts_with('>') => {
                let what = "the array is big-endian; save it with .astype('<i4')";
                return Err(format!("{what} ({kind})"));
            }
            _ => {
                return Err(format!(
                    "the array must hold integers, such as uint16; it is {kind:?}"
                ));
            }
        };
        let shape = field("shape").and_then(|s| s.strip_prefix('(')?.split_once(')'));
        let shape = shape.map(|(shape, _)| shape.split(',').map(str::trim));
        let lengths = shape.map(|lengths| lengths.filter(|l| !l.is_empty()).map(str::parse));
        let lengths: Option<Vec<usize>> =
            lengths.and_then(|l| l.collect::<std::result::Result<_, _>>().ok());
        let (rows, width) = match lengths.as_deref() {
            Some(&[width]) => (1, width),
            Some(&[rows, width]) => (rows, width),
            _ => return Err("the array must have one or two dimensions".into()),
        };
        let by_columns = field("fortran_order").is_some_and(|order| order.starts_with("True"));
        Ok(Header { size, signed, rows, width, by_columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), body].concat()
    }

    #[test]
    fn what_is_no_token_id_is_refused_in_words() {
        let two: Vec<u8> = [5i32, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(ids(&npy("<i4", "(2,)", &two)).unwrap(), [5, 7]);
        for (file, says) in [
            (npy("<i4", "(1,)", &(-1i32).to_le_bytes()), "element 0 is -1, "),
            (npy("<i2", "(1,)", &(-2i16).to_le_bytes()), "element 0 is -2, "),
            (npy("<u8", "(1,)", &u64::MAX.to_le_bytes()), "element 0 is 18446744073709551615, "),
            (npy("<f4", "(2,)", &two), "must hold integers, such as uint16; it is \"<f4\""),
            (npy(">i4", "(2,)", &two), "big-endian"),
            (npy("<i4", "(3,)", &two), "truncated"),
            (npy("<i4", "(2, 2)", &two), "truncated"),
            (npy("<i4", "(4294967296, 4294967296)", &two), "truncated"),
            (npy("<i4", "()", &two), "one or two dimensions"),
            (npy("<i4", "(1, 1, 2)", &two), "one or two dimensions"),
        ] {
            let message = ids(&file).unwrap_err();
            assert!(message.contains(says), "{message}");
        }
        let whole = npy("<i4", "(2,)", &two);
        for n in 0..whole.len() {
            assert!(ids(&whole[..n]).is_err(), "{n}");
        }
    }
}
