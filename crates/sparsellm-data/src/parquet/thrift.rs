//! Thrift's compact protocol, as far as parquet goes, held to a layout. The
//! `parquet` crate takes each field for what the layout says, whatever kind the
//! file says it is, and walks over what it does not know for as long as the file
//! says, even where that is 2^31 elements of no bytes. What passes here it reads as
//! it was read here, in time that its bytes bound.

use super::layout::{Fields, Kind};
use std::io::{self, Read, Take};

/// Structures and lists within one another: a footer has eight levels.
const DEEPEST: usize = 16;

/// A structure being read.
pub struct Thrift<R> {
    /// What is left.
    pub left: Take<R>,
    /// The numbers of the fields that it is in.
    path: Vec<i64>,
}

impl<R: Read> Thrift<R> {
    /// A structure that lies in these bytes.
    pub fn new(left: Take<R>) -> Self {
        Thrift { left, path: Vec::new() }
    }

    /// Reads a structure; `see` is told each whole number of a field in `fields`,
    /// with the numbers of the fields that lead to it.
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

    /// A value whose kind is known.
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

    /// A value of any kind.
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
            // Maps: parquet has none.
            _ => bad("its header has a field of an unknown kind"),
        }
    }

    /// The kind and number of a list's elements. Each takes a byte at least: those
    /// of truth values, which the crate walks over as if they took none, are
    /// refused.
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

    /// A whole number, in zigzag.
    fn integer(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next field's kind, and its number, which follows `id`; `None` at the end.
    /// Fields come in order, each once, and their numbers in the short form where
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
