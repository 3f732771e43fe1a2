//! Little-endian reading from untrusted bytes, where running out is an error.

/// A step that may fail with what was wrong, as yet without the file's name.
pub(super) type Step<T> = Result<T, String>;

/// Bytes and how far they were read.
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

    /// The next `n` bytes.
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

    /// One byte.
    pub fn u8(&mut self) -> Step<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Step<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Step<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Step<i32> {
        self.array().map(i32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Step<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `n` bytes as text.
    pub fn text(&mut self, n: usize) -> Step<&'a str> {
        let at = self.at;
        std::str::from_utf8(self.take(n)?)
            .map_err(|_| format!("byte {at} begins text that is not UTF-8"))
    }

    /// The text up to the next newline, which is passed over.
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

/// A stored length or offset as one of this machine's.
pub(super) fn size(n: u64) -> Step<usize> {
    usize::try_from(n).map_err(|_| format!("{n} is past what this machine can address"))
}

/// Untrusted text for an error message: short, with nothing a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 96;
    let mut out: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}
