//! What a parquet file's pages claim to hold, looked at before the `parquet` crate
//! takes memory for it: that takes what a header says, and unpacks gzip without
//! any bound.

use flate2::read::MultiGzDecoder;
use parquet::{basic::Compression, file::metadata::ColumnChunkMetaData};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Take},
};

/// Structures within a page header: it has two levels.
const DEEPEST: usize = 4;

/// Fails on a column chunk with a page that would take more than `most` bytes, or
/// whose dictionary says it has more values than bytes.
pub fn check(file: &File, column: &ColumnChunkMetaData, most: u64) -> Result<(), String> {
    let damaged = |e: io::Error| format!("a page is damaged: {e}");
    let (start, length) = column.byte_range();
    let size = file.metadata().map_err(damaged)?.len();
    let end = start.checked_add(length).filter(|end| *end <= size);
    let end = end.ok_or("a column lies outside the file")?;
    let mut at = start;
    while at < end {
        let mut file = BufReader::new(file);
        file.seek(SeekFrom::Start(at)).map_err(damaged)?;
        let mut thrift = Thrift(file.take(end - at));
        let page = Page::read(&mut thrift).map_err(damaged)?;
        let packed = u64::try_from(page.packed).ok().filter(|packed| *packed <= thrift.0.limit());
        let packed = packed.ok_or("a page lies outside its column")?;
        at = end - thrift.0.limit() + packed;
        let too_many = |unpacked| page.dictionary.is_some_and(|n| n < 0 || n as u64 > unpacked);
        match u64::try_from(page.unpacked) {
            Ok(unpacked) if unpacked <= most && !too_many(unpacked) => {}
            _ => return Err("a page claims to hold more than it can".into()),
        }
        if matches!(column.compression(), Compression::GZIP(_)) {
            let unpacked = MultiGzDecoder::new(thrift.0.take(packed));
            let unpacked = io::copy(&mut unpacked.take(most + 1), &mut io::sink());
            if unpacked.map_err(damaged)? > most {
                return Err("a page holds more than it claims to".into());
            }
        }
    }
    Ok(())
}

/// What a page's header says.
#[derive(Default)]
struct Page {
    unpacked: i64,
    packed: i64,
    /// The values of a dictionary.
    dictionary: Option<i64>,
}

impl Page {
    /// Fields 2 and 3 of `PageHeader`, and field 1 of the `DictionaryPageHeader`
    /// that is its field 7 (parquet.thrift).
    fn read(thrift: &mut Thrift<impl Read>) -> io::Result<Page> {
        let (mut page, mut id) = (Page::default(), 0);
        while let Some(kind) = thrift.field(&mut id)? {
            match id {
                2 => page.unpacked = thrift.integer()?,
                3 => page.packed = thrift.integer()?,
                7 => {
                    let mut id = 0;
                    while let Some(kind) = thrift.field(&mut id)? {
                        match id {
                            1 => page.dictionary = Some(thrift.integer()?),
                            _ => thrift.skip(kind, DEEPEST)?,
                        }
                    }
                }
                _ => thrift.skip(kind, DEEPEST)?,
            }
        }
        Ok(page)
    }
}

/// Thrift's compact protocol, as far as page headers go.
struct Thrift<R>(Take<R>);

impl<R: Read> Thrift<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).map(|()| byte[0])
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
        Err(io::Error::other("a number is too long"))
    }

    /// A whole number, in zigzag.
    fn integer(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next field's type, and its number, which follows `id`; `None` at the end.
    /// Fields come in order, each once.
    fn field(&mut self, id: &mut i64) -> io::Result<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let next = match i64::from(byte >> 4) {
            0 => self.integer()?,
            delta => *id + delta,
        };
        if next <= *id || next > i64::from(i16::MAX) {
            return Err(io::Error::other("its header's fields are out of order"));
        }
        *id = next;
        Ok(Some(byte & 0x0f))
    }

    fn skip(&mut self, kind: u8, deepest: usize) -> io::Result<()> {
        let Some(deeper) = deepest.checked_sub(1) else {
            return Err(io::Error::other("its header is too deep"));
        };
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => drop(io::copy(&mut self.0.by_ref().take(8), &mut io::sink())?),
            8 => {
                let length = self.varint()?;
                io::copy(&mut self.0.by_ref().take(length), &mut io::sink())?;
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, deeper)?;
                }
            }
            // Page headers have no lists and maps.
            _ => return Err(io::Error::other("its header has a field of another kind")),
        }
        Ok(())
    }
}
