//! Validates Thrift's compact protocol, as far as parquet uses it, against a layout. The
//! `parquet` crate reads each field as the layout's type, whatever type the file states, and
//! skips unknown fields for as long as the file says, even if that is 2^31 elements of no
//! bytes. Data that pass this check are read by the crate as they were here, in time bounded
//! by their size.

use super::layout::{Fields, Kind};
use std::io::{self, Read, Take};

/// The maximum nesting of structures and lists; a footer has eight levels.
const DEEPEST: usize = 16;

/// A structure being read.
pub struct Thrift<R> {
    /// The bytes not read yet.
    pub left: Take<R>,
    /// The field numbers that lead to the current structure.
    path: Vec<i64>,
}

impl<R: Read> Thrift<R> {
    /// Prepares to read a structure from these bytes.
    pub fn new(left: Take<R>) -> Self {
        Thrift { left, path: Vec::new() }
    }

    /// Reads a structure. `see` is called with each integer field listed in `fields`, and the
    /// field numbers that lead to it.
    pub fn structure(
        &mut self,
        fields: Fields,
        see: &mut dyn FnMut(&[i64], i64),
    ) -> io::Result<()> {
        self.deeper()?;
        let mut id = 0;
        while let Some(wire) = self.field(&mut id)? {
            self.path.push(id);
            match fields.iter().find(|(known, _)| *known == id) {
                Some((_, kind)) => self.known(wire, kind, see)?,
                None => self.skip(wire)?,
            }
            self.path.pop();
        }
        Ok(())
    }

    fn deeper(&self) -> io::Result<()> {
        if self.path.len() < DEEPEST { Ok(()) } else { bad("its header is too deep") }
    }

    /// Reads a value of known type.
    fn known(
        &mut self,
        wire: u8,
        kind: &'static Kind,
        see: &mut dyn FnMut(&[i64], i64),
    ) -> io::Result<()> {
        match (kind, wire) {
            (Kind::Struct(fields), 12) => self.structure(fields, see),
            (Kind::List(of), 9) => {
                let (wire, count) = self.list()?;
                self.path.push(0);
                for _ in 0..count {
                    self.known(wire, of, see)?;
                }
                self.path.pop();
                Ok(())
            }
            (Kind::I16, 4) | (Kind::I32, 5) | (Kind::I64, 6) => {
                let value = self.integer()?;
                see(&self.path, value);
                Ok(())
            }
            (Kind::Bool, 1 | 2) | (Kind::Byte, 3) | (Kind::Double, 7) | (Kind::Binary, 8) => {
                self.skip(wire)
            }
            _ => bad("a field of its header is of the wrong kind"),
        }
    }

    /// Skips a value of any type.
    fn skip(&mut self, wire: u8) -> io::Result<()> {
        self.deeper()?;
        match wire {
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.bytes(8),
            8 => {
                let length = self.varint()?;
                self.bytes(length)
            }
            9 | 10 => {
                let (wire, count) = self.list()?;
                self.path.push(0);
                for _ in 0..count {
                    self.skip(wire)?;
                }
                self.path.pop();
                Ok(())
            }
            12 => self.structure(&[], &mut |_, _| {}),
            13 => self.bytes(16),
            // Maps are not used in parquet.
            _ => bad("its header has a field of an unknown kind"),
        }
    }

    /// Reads the type and the number of a list's elements. Each element must take at least
    /// one byte, so lists of booleans are rejected: the crate skips those as if they took
    /// none.
    fn list(&mut self) -> io::Result<(u8, u64)> {
        let byte = self.byte()?;
        let (wire, count) = (byte & 0x0f, u64::from(byte >> 4));
        let count = if count == 15 { self.varint()? } else { count };
        if count > self.left.limit() {
            return bad("a list is longer than its header");
        }
        if matches!(wire, 1 | 2) {
            return bad("its header has a list of truth values");
        }
        Ok((wire, count))
    }

    fn bytes(&mut self, length: u64) -> io::Result<()> {
        let read = io::copy(&mut self.left.by_ref().take(length), &mut io::sink())?;
        if read < length { bad("a field is longer than its header") } else { Ok(()) }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.left.read_exact(&mut byte).map(|()| byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bad("a number is too long")
    }

    /// Reads a zigzag-encoded integer.
    fn integer(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads the next field's type and its number, which must follow `id`; `None` at the end.
    /// Fields must be in order, at most once each, and use the short form of the number where
    /// there is one.
    fn field(&mut self, id: &mut i64) -> io::Result<Option<u8>> {
        let byte = self.byte()?;
        if byte & 0x0f == 0 {
            return Ok(None);
        }
        let next = match i64::from(byte >> 4) {
            0 => self.integer().map(|next| Some(next).filter(|next| *next > *id + 15))?,
            delta => Some(*id + delta),
        };
        match next {
            Some(next) if next <= i64::from(i16::MAX) => *id = next,
            _ => return bad("its header's fields are out of order"),
        }
        Ok(Some(byte & 0x0f))
    }
}

fn bad<T>(what: &str) -> io::Result<T> {
    Err(io::Error::other(what))
}
