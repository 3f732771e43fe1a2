//! Checks what a parquet file's footer and pages claim to hold before the `parquet` crate
//! spends time and memory on it: the crate trusts the headers, and unpacks gzip without any
//! bound.

use super::{
    layout::{FILE_META_DATA, PAGE_HEADER},
    thrift::Thrift,
};
use flate2::read::MultiGzDecoder;
use parquet::{basic::Compression, file::metadata::ColumnChunkMetaData};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
};

/// Returns an error if a page of the column chunk would take more than `most` bytes, or its
/// dictionary claims more values than bytes.
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
        let mut thrift = Thrift::new(file.take(end - at));
        let page = Page::read(&mut thrift).map_err(damaged)?;
        let packed =
            u64::try_from(page.packed).ok().filter(|packed| *packed <= thrift.left.limit());
        let packed = packed.ok_or("a page lies outside its column")?;
        at = end - thrift.left.limit() + packed;
        let too_many = |unpacked| page.dictionary.is_some_and(|n| n < 0 || n as u64 > unpacked);
        match u64::try_from(page.unpacked) {
            Ok(unpacked) if unpacked <= most && !too_many(unpacked) => {}
            _ => return Err("a page claims to hold more than it can".into()),
        }
        if matches!(column.compression(), Compression::GZIP(_)) {
            let unpacked = MultiGzDecoder::new(thrift.left.take(packed));
            let unpacked = io::copy(&mut unpacked.take(most + 1), &mut io::sink());
            if unpacked.map_err(damaged)? > most {
                return Err("a page holds more than it claims to".into());
            }
        }
    }
    Ok(())
}

/// Returns an error unless the footer has the expected layout.
pub fn check_footer(mut file: &File) -> Result<(), String> {
    let damaged = |e: io::Error| format!("its footer is damaged: {e}");
    let size = file.metadata().map_err(damaged)?.len();
    let mut tail = [0; 8];
    let at = size.checked_sub(8).ok_or("it is too short")?;
    let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut tail));
    read.map_err(damaged)?;
    let [a, b, c, d, ..] = tail;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    let at = at.checked_sub(length).ok_or("its footer is longer than the file")?;
    file.seek(SeekFrom::Start(at)).map_err(damaged)?;
    let mut thrift = Thrift::new(BufReader::new(file).take(length));
    thrift.structure(FILE_META_DATA, &mut |_, _| {}).map_err(damaged)
}

/// The contents of a page header.
#[derive(Default)]
struct Page {
    unpacked: i64,
    packed: i64,
    /// The number of values in a dictionary page.
    dictionary: Option<i64>,
}

impl Page {
    fn read(thrift: &mut Thrift<impl Read>) -> io::Result<Page> {
        let mut page = Page::default();
        thrift.structure(PAGE_HEADER, &mut |field, value| match field {
            [2] => page.unpacked = value,
            [3] => page.packed = value,
            [7, 1] => page.dictionary = Some(value),
            _ => {}
        })?;
        Ok(page)
    }
}
