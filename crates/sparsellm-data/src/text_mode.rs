//! Bytes of a text file as Python's text mode hands them over.

use std::io::{self, BufRead, Cursor, Read};

const UTF8_BOM: [u8; 3] = [0xef, 0xbb, 0xbf];
const UTF16_BOMS: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// Reads UTF-8 text without its byte-order mark, and with universal newlines: `\r\n` and a
/// lone `\r` become `\n`.
pub(crate) struct TextMode {
    inner: Box<dyn Read>,
    /// Whether the last byte read was `\r`, so that a `\n` next belongs to it.
    after_return: bool,
}

impl TextMode {
    /// Starts reading.
    ///
    /// # Errors
    /// If the first bytes cannot be read, or are the byte-order mark of another encoding.
    pub fn new(mut inner: Box<dyn BufRead>) -> io::Result<TextMode> {
        let mut start = Vec::new();
        inner.by_ref().take(UTF8_BOM.len() as u64).read_to_end(&mut start)?;
        if UTF16_BOMS.iter().any(|bom| start.starts_with(bom)) {
            let what = "the text is in UTF-16 or UTF-32; save it as UTF-8";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        if start == UTF8_BOM {
            start.clear();
        }
        let inner = Box::new(Cursor::new(start).chain(inner));
        Ok(TextMode { inner, after_return: false })
    }

    /// Translates newlines in place, and returns how many bytes are left.
    fn translate(&mut self, bytes: &mut [u8]) -> usize {
        if !self.after_return && !bytes.contains(&b'\r') {
            return bytes.len();
        }
        let mut kept = 0;
        for i in 0..bytes.len() {
            let byte = bytes[i];
            let newline_was_given = self.after_return && byte == b'\n';
            self.after_return = byte == b'\r';
            if !newline_was_given {
                bytes[kept] = if byte == b'\r' { b'\n' } else { byte };
                kept += 1;
            }
        }
        kept
    }
}

impl Read for TextMode {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.inner.read(to)?;
            let kept = self.translate(&mut to[..n]);
            // Nothing is left of a read that gave only the second half of `\r\n`.
            if kept > 0 || n == 0 {
                return Ok(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_are_translated_wherever_reads_are_cut() {
        let text = b"\xef\xbb\xbfa\r\nb\rc\n\r\n\r\r\nd\r";
        for capacity in 1..=text.len() {
            let inner = io::BufReader::with_capacity(capacity, &text[..]);
            let mut read = String::new();
            TextMode::new(Box::new(inner)).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, "a\nb\nc\n\n\n\nd\n", "{capacity}");
        }
    }
}
