//! Files of text, and of token ids.

use super::Tokenizer;
use crate::error::{Error, Result, invalid};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// What a text is read for: the authors' protocol joins rows differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Calibration segments.
    Calibration,
    /// Perplexity.
    Evaluation,
}

/// Where token ids come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file that is one text.
    Text(PathBuf),
    /// A raw WikiText split: its lines are the data set's rows.
    WikiText(PathBuf),
    /// One JSON object a line, with a `text` or `sentence` field.
    JsonLines(PathBuf),
    /// A 1-D NumPy array of token ids, taken as they are.
    Tokens(PathBuf),
}

impl Source {
    /// Reads a `--data` or `--calibration` argument.
    ///
    /// # Errors
    /// Where the file's kind is not known.
    pub fn parse(text: &str) -> Result<Source> {
        let path = PathBuf::from(text);
        match path.extension().and_then(|e| e.to_str()) {
            Some("txt") => Ok(Source::Text(path)),
            Some("raw") => Ok(Source::WikiText(path)),
            Some("jsonl") => Ok(Source::JsonLines(path)),
            Some("npy") => Ok(Source::Tokens(path)),
            _ => invalid!(
                "{text}: cannot tell what this is; give a .txt (one text), .raw (a WikiText split), .jsonl (a \"text\" field per row) or .npy (token ids) file"
            ),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        let (Source::Text(p) | Source::WikiText(p) | Source::JsonLines(p) | Source::Tokens(p)) =
            self;
        p
    }

    /// All of it as token ids. `tokenizer` is only asked for where there is
    /// text.
    pub fn tokens(
        &self,
        purpose: Use,
        tokenizer: impl FnOnce() -> Result<Tokenizer>,
    ) -> Result<Vec<u32>> {
        let text = match self {
            Source::Tokens(path) => return read_npy(path),
            Source::Text(path) => read_text(path)?,
            Source::JsonLines(path) => json_rows(path)?.join(" "),
            Source::WikiText(path) => {
                let text = read_text(path)?;
                let rows: Vec<&str> = text.split_inclusive('\n').map(wikitext_row).collect();
                rows.join(match purpose {
                    Use::Calibration => " ",
                    Use::Evaluation => "\n\n",
                })
            }
        };
        tokenizer()?.encode(&text)
    }
}

/// A row as the hub's `wikitext-2-raw-v1` has it: `""` for a blank line, any
/// other with its own newline.
fn wikitext_row(line: &str) -> &str {
    if line.trim().is_empty() { "" } else { line }
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::Invalid(format!("{}: not UTF-8 text (byte {at})", path.display()))
    })
}

fn json_rows(path: &Path) -> Result<Vec<String>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut rows = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| Error::io(path, e))?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Value = serde_json::from_str(&line).map_err(|e| {
            Error::Invalid(format!("{}:{}: not valid JSON: {e}", path.display(), i + 1))
        })?;
        let Some(text) = ["text", "sentence"].iter().find_map(|key| row.get(key)?.as_str()) else {
            return invalid!("{}:{}: no \"text\" or \"sentence\" field", path.display(), i + 1);
        };
        rows.push(text.to_string());
    }
    Ok(rows)
}

/// A 1-D int32 or int64 array, NumPy format 1 to 3.
fn read_npy(path: &Path) -> Result<Vec<u32>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|mut f| f.read_to_end(&mut bytes))
        .map_err(|e| Error::io(path, e))?;
    let bad = |what: &str| Error::Invalid(format!("{}: {what}", path.display()));
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
        assert_eq!(read_npy(npy("<i8", "(3,)", &ids).path()).unwrap(), [5, 0, 70_000]);
        let ids: Vec<u8> = [5i32, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read_npy(npy("<i4", "(2,)", &ids).path()).unwrap(), [5, 7]);
        let negative = (-1i32).to_le_bytes();
        for file in [
            npy("<i4", "(1,)", &negative),
            npy("<f4", "(2,)", &ids),
            npy("<i4", "(3,)", &ids),
            npy("<i4", "(1, 2)", &ids),
        ] {
            assert!(read_npy(file.path()).is_err());
        }
        for n in 0..100 {
            let whole = std::fs::read(npy("<i4", "(2,)", &ids).path()).unwrap();
            let cut = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(cut.path(), &whole[..n.min(whole.len() - 1)]).unwrap();
            assert!(read_npy(cut.path()).is_err());
        }
    }

    #[test]
    fn wikitext_rows_are_the_hubs() {
        let rows: Vec<&str> =
            " \n = Title = \n \n Text \n".split_inclusive('\n').map(wikitext_row).collect();
        assert_eq!(rows, ["", " = Title = \n", "", " Text \n"]);
    }
}
