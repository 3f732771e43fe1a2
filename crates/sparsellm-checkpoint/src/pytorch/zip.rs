//! The zip container of `torch.save`: where the bytes of each stored entry lie. As in other
//! zip readers, sizes are taken from the central directory only, and the local header of
//! every entry must agree with it on name and method. CRCs are not checked, because torch can
//! write files without them.

use super::cursor::{Cursor, Step, shown, size};
use std::{collections::HashMap, ops::Range};

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const END_LENGTH: usize = 22;
const LOCATOR64_LENGTH: usize = 20;
/// The first bytes of files from before torch 1.6: a pickled magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// The entries of the archive, which all lie in one folder.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    /// The byte range of each entry, by its name inside the folder (`data.pkl`, `data/0`).
    entries: HashMap<&'a str, Range<usize>>,
}

impl<'a> Archive<'a> {
    /// Reads the central directory.
    pub fn open(bytes: &'a [u8]) -> Step<Archive<'a>> {
        if bytes.starts_with(LEGACY) {
            return Err(
                "it is in the format from before torch 1.6, which is not read; load it with \
                        a recent torch (weights_only=True) and save it again with torch.save"
                    .into(),
            );
        }
        if !bytes.starts_with(LOCAL) {
            return Err("not a PyTorch zip file (not a whole download?); download it again".into());
        }
        read(bytes).map_err(|what| {
            format!("damaged, truncated or not from torch.save: {what}; download it again")
        })
    }

    /// The byte range of an entry.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }

    /// The bytes of an entry.
    pub fn entry(&self, name: &str) -> Option<&'a [u8]> {
        self.bytes.get(self.range(name)?)
    }
}

fn read(bytes: &[u8]) -> Step<Archive<'_>> {
    let directory = find_directory(bytes)?;
    // Stored entries precede the directory.
    let stored = bytes.get(..directory.start).ok_or("its directory lies outside it")?;
    let listed = bytes.get(..directory.end).ok_or("its directory lies outside it")?;
    let mut cursor = Cursor::new(listed, directory.start)?;
    let (mut root, mut entries) = (None, HashMap::new());
    while cursor.at() < directory.end {
        let (name, range) = entry(&mut cursor, stored)?;
        let (folder, inside) = name.split_once('/').unwrap_or(("", name));
        // As in torch, the folder of the first entry is the archive's.
        if *root.get_or_insert(folder) == folder && entries.insert(inside, range).is_some() {
            return Err(format!("entry {} is in it twice", shown(name)));
        }
    }
    Ok(Archive { bytes, entries })
}

/// Locates the central directory from the record at the end of the file.
fn find_directory(bytes: &[u8]) -> Step<Range<usize>> {
    let missing = "the zip directory at its end is missing";
    let last = bytes.len().checked_sub(END_LENGTH).ok_or(missing)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end = (first..=last).rev().find(|&at| {
        bytes.get(at..).is_some_and(|rest| {
            let comment =
                rest.get(20..22).map(|b| b.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)));
            rest.starts_with(END) && comment == Some(last - at)
        })
    });
    let end = end.ok_or(missing)?;
    let mut cursor = Cursor::new(bytes, end)?;
    cursor.take(4)?;
    let disks = (cursor.u16()?, cursor.u16()?);
    cursor.take(4)?; // numbers of entries: the directory's length says the same
    let (length, start) = (u64::from(cursor.u32()?), u64::from(cursor.u32()?));
    let locator = end.checked_sub(LOCATOR64_LENGTH).and_then(|at| bytes.get(at..end));
    let (length, start, before) = match locator {
        Some(locator) if locator.starts_with(LOCATOR64) => {
            let mut cursor = Cursor::new(locator, 8)?;
            find_directory64(bytes, size(cursor.u64()?)?)?
        }
        _ if disks != (0, 0) => return Err("it is one part of a split zip file".into()),
        _ => (length, start, end),
    };
    let start = size(start)?;
    let stop = start.checked_add(size(length)?).filter(|&stop| stop <= before);
    Ok(start..stop.ok_or("its directory lies outside it")?)
}

/// Does the same from the zip64 record at `at`: length, start, and an offset
/// that the directory must not reach beyond.
fn find_directory64(bytes: &[u8], at: usize) -> Step<(u64, u64, usize)> {
    let mut cursor = Cursor::new(bytes, at)?;
    if cursor.take(4)? != END64 {
        return Err(format!("no zip64 record at byte {at}"));
    }
    cursor.take(12)?; // the record's size, versions
    if (cursor.u32()?, cursor.u32()?) != (0, 0) {
        return Err("it is one part of a split zip file".into());
    }
    cursor.take(16)?; // numbers of entries
    Ok((cursor.u64()?, cursor.u64()?, at))
}

/// Reads one central directory entry: its name and the range of its bytes in `stored`.
fn entry<'a>(cursor: &mut Cursor<'a>, stored: &[u8]) -> Step<(&'a str, Range<usize>)> {
    let begins = cursor.at();
    if cursor.take(4)? != CENTRAL {
        return Err(format!("no directory entry at byte {begins}"));
    }
    cursor.take(4)?; // versions
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    cursor.take(8)?; // time, CRC
    let (packed, unpacked) = (cursor.u32()?, cursor.u32()?);
    let [name, extra, comment] = [cursor.u16()?, cursor.u16()?, cursor.u16()?].map(usize::from);
    cursor.take(8)?; // disk, attributes
    let offset = cursor.u32()?;
    let name = cursor.text(name)?;
    let [unpacked, packed, offset] = zip64(cursor.take(extra)?, [unpacked, packed, offset])?;
    cursor.take(comment)?;
    if method != 0 || flags & 1 != 0 || packed != unpacked {
        return Err(format!("entry {} is compressed or encrypted", shown(name)));
    }
    let mut local = Cursor::new(stored, size(offset)?)?;
    let signature = local.take(4)?;
    local.take(4)?; // version, flags
    let method = local.u16()?;
    local.take(16)?; // time, CRC, sizes: the directory's hold
    let [local_name, extra] = [local.u16()?, local.u16()?].map(usize::from);
    if signature != LOCAL || method != 0 || local.take(local_name)? != name.as_bytes() {
        return Err(format!("entry {} is not where the zip directory says", shown(name)));
    }
    local.take(extra)?;
    let start = local.at();
    local.take(size(unpacked)?).map_err(|_| {
        format!("entry {} of {unpacked} bytes at byte {start} does not fit", shown(name))
    })?;
    Ok((name, start..local.at()))
}

/// Completes sizes and offset: those with all bits set are stored in the zip64 field.
fn zip64(mut extra: &[u8], values: [u32; 3]) -> Step<[u64; 3]> {
    let mut full = values.map(u64::from);
    if !values.contains(&u32::MAX) {
        return Ok(full);
    }
    while !extra.is_empty() {
        let mut cursor = Cursor::new(extra, 0)?;
        let (id, length) = (cursor.u16()?, usize::from(cursor.u16()?));
        let field = cursor.take(length)?;
        if id == 1 {
            let mut cursor = Cursor::new(field, 0)?;
            for value in full.iter_mut().filter(|v| **v == u64::from(u32::MAX)) {
                *value = cursor.u64()?;
            }
            return Ok(full);
        }
        extra = extra.get(cursor.at()..).unwrap_or_default();
    }
    Ok(full)
}
