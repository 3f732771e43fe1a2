//! JSON as Python's `json.dumps` writes it.

use serde::Serialize;
use serde_json::{Value, ser::Formatter};
use std::io::{Result, Write};

/// The arguments of `json.dumps`.
pub(crate) struct Dumps {
    /// Writes every character outside ASCII as an escape.
    pub ensure_ascii: bool,
    /// How much each level is indented; `None` keeps all on one line.
    pub indent: Option<usize>,
    /// What stands between items, and after a key.
    pub separators: [String; 2],
}

impl Dumps {
    /// Writes a value.
    pub fn write(&self, value: &Value) -> serde_json::Result<String> {
        let mut bytes = Vec::new();
        let layout = Layout { dumps: self, depth: 0, empty: true };
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, layout))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(if self.ensure_ascii { ascii(&text) } else { text.into_owned() })
    }
}

/// Escapes what is not ASCII, and so stands in a string.
fn ascii(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii() && c != '\x7f' {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

/// Where a serializer puts separators and line breaks.
struct Layout<'a> {
    dumps: &'a Dumps,
    depth: usize,
    /// Whether the innermost list or object has no item yet.
    empty: bool,
}

impl Layout<'_> {
    fn new_line(&self, out: &mut (impl Write + ?Sized)) -> Result<()> {
        match self.dumps.indent {
            Some(indent) => write!(out, "\n{:1$}", "", indent * self.depth),
            None => Ok(()),
        }
    }

    fn begin(&mut self, out: &mut (impl Write + ?Sized), bracket: &str) -> Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(bracket.as_bytes())
    }

    fn item(&mut self, out: &mut (impl Write + ?Sized), first: bool) -> Result<()> {
        if !first {
            out.write_all(self.dumps.separators[0].as_bytes())?;
        }
        self.new_line(out)
    }

    fn end(&mut self, out: &mut (impl Write + ?Sized), bracket: &str) -> Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.new_line(out)?;
        }
        self.empty = false;
        out.write_all(bracket.as_bytes())
    }
}

impl Formatter for Layout<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.begin(out, "[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.end(out, "]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.empty = false;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.begin(out, "{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        self.end(out, "}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        out.write_all(self.dumps.separators[1].as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.empty = false;
        Ok(())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> Result<()> {
        out.write_all(float(value).as_bytes())
    }
}

/// A number as Python's `repr` writes it: the fewest digits that give it again, with an exponent
/// of at least two digits where it is below 10⁻⁴ or not below 10¹⁶.
fn float(value: f64) -> String {
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value:?}"),
    }
}
