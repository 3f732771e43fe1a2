//! Little-endian reads from untrusted bytes; reading past the end is an error.

/// The result of a step; its error says what was wrong, still without the file's name.
pub(super) type Step<T> = Result<T, String>;

/// Bytes and a read position.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `at`.
    pub fn new(bytes: &'a [u8], at: usize) -> Step<Cursor<'a>> {
        let rest = bytes.get(at..).ok_or_else(|| ended(at))?;
        Ok(Cursor { rest, at })
    }

    /// The offset of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Reads the next `n` bytes.
    pub fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or_else(|| ended(self.at))?;
        self.rest = rest;
        self.at += n;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| ended(self.at))?;
        self.rest = rest;
        self.at += N;
        Ok(*head)
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Step<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Reads two bytes.
    pub fn u16(&mut self) -> Step<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Reads four bytes.
    pub fn u32(&mut self) -> Step<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads four bytes as a signed integer.
    pub fn i32(&mut self) -> Step<i32> {
        self.array().map(i32::from_le_bytes)
    }

    /// Reads eight bytes.
    pub fn u64(&mut self) -> Step<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads the next `n` bytes as text.
    pub fn text(&mut self, n: usize) -> Step<&'a str> {
        let at = self.at;
        std::str::from_utf8(self.take(n)?)
            .map_err(|_| format!("byte {at} begins text that is not UTF-8"))
    }

    /// Reads text up to the next newline, which is skipped.
    pub fn line(&mut self) -> Step<&'a str> {
        let n = self.rest.iter().position(|&b| b == b'\n').ok_or_else(|| ended(self.at))?;
        let line = self.text(n)?;
        self.u8()?;
        Ok(line)
    }
}

fn ended(at: usize) -> String {
    format!("it ends inside what begins at byte {at}")
}

/// Converts a stored length or offset to `usize`.
pub(super) fn size(n: u64) -> Step<usize> {
    usize::try_from(n).map_err(|_| format!("{n} is past what this machine can address"))
}

/// Shortens untrusted text for an error message, and escapes control characters.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 96;
    let mut out: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}
