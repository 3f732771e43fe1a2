//! The output's weight files: safetensors, laid out in full before any tensor is written.

use crate::{Checkpoint, SAFETENSORS, TensorInfo, tensor_source::file_name};
use serde_json::{Map, Value, json};
use sparsellm_base::{Error, Result, input_error};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// One weight file of the output.
pub struct Shard {
    /// The name of the file.
    pub name: String,
    path: PathBuf,
    file: File,
    /// Byte offset of each tensor in the file.
    pub offsets: BTreeMap<String, u64>,
}

/// Lays out the same tensors, types and shards as in `source`, or opens those of an
/// unfinished run.
pub fn open(folder: &Path, source: &Checkpoint, resume: bool) -> Result<Vec<Shard>> {
    let mut by_file: BTreeMap<usize, Vec<(&String, &TensorInfo)>> = BTreeMap::new();
    for (name, info) in source.tensors() {
        by_file.entry(info.file).or_default().push((name, info));
    }
    let (files, count) = (source.source().weight_files(), by_file.len());
    let open = |(number, (file, tensors)): (usize, (usize, Vec<_>))| {
        let input = files.get(file).map_or_else(String::new, |path| file_name(path));
        Shard::open(folder, shard_name(&input, number, count), &tensors, resume)
    };
    by_file.into_iter().enumerate().map(open).collect()
}

/// Finds the shard that holds a tensor, and the tensor's offset in it.
pub fn shard_of<'s>(shards: &'s mut [Shard], name: &str) -> Result<(&'s mut Shard, u64)> {
    for shard in shards {
        if let Some(&offset) = shard.offsets.get(name) {
            return Ok((shard, offset));
        }
    }
    input_error!("tensor {name} is not part of the checkpoint")
}

impl Shard {
    /// Creates the file, or opens the one that an unfinished run has created.
    fn open(
        folder: &Path,
        name: String,
        tensors: &[(&String, &TensorInfo)],
        resume: bool,
    ) -> Result<Shard> {
        let path = folder.join(&name);
        let (mut header, mut offsets, mut end) = (Map::new(), BTreeMap::new(), 0u64);
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        for (name, info) in tensors {
            let bytes = (info.len() * info.dtype.size()) as u64;
            let entry = json!({
                "dtype": info.dtype.name(),
                "shape": info.shape,
                "data_offsets": [end, end + bytes],
            });
            header.insert((*name).clone(), entry);
            offsets.insert((*name).clone(), end);
            end += bytes;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' '); // aligned, as safetensors wants it
        let head = [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat();
        let start = head.len() as u64;
        offsets.values_mut().for_each(|o| *o += start);
        let fail = |e| Error::io(&path, e);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create_new(!resume).open(&path).map_err(fail)?;
        if resume {
            let mut found = vec![0; head.len()];
            let whole = file.metadata().map_err(fail)?.len() == start + end;
            if !whole || file.read_exact(&mut found).is_err() || found != head {
                return damaged(&path);
            }
        } else {
            file.write_all(&head).map_err(fail)?;
            reserve(&file, start + end).map_err(|e| {
                let megabytes = (start + end).div_ceil(1 << 20);
                Error::Input(format!(
                    "{}: {e}; this file of the pruned checkpoint takes {megabytes} MiB: free some space or choose another `output`",
                    path.display()
                ))
            })?;
            file.sync_all().map_err(fail)?;
        }
        Ok(Shard { name, path, file, offsets })
    }

    /// Fills `bytes` from the tensor at `offset`.
    pub fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let read = self.file.seek(SeekFrom::Start(offset));
        read.and_then(|_| self.file.read_exact(bytes)).map_err(|e| Error::io(&self.path, e))
    }

    /// Writes the tensor at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(offset));
        written.and_then(|_| self.file.write_all(bytes)).map_err(|e| Error::io(&self.path, e))
    }

    /// Returns once all values written are on disk.
    pub fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, e))
    }

    /// Returns once all values and the file's metadata are on disk.
    pub fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))
    }

    /// Returns the error for contents that cannot be what was written.
    pub fn damaged<T>(&self) -> Result<T> {
        damaged(&self.path)
    }
}

fn damaged<T>(path: &Path) -> Result<T> {
    input_error!(
        "{}: this file of an unfinished run is damaged, and cannot be resumed; discard it with `force`",
        path.display()
    )
}

/// The output's name for weight file `number` of `count`: `pytorch_model-00001-of-00002.bin`
/// becomes `model-00001-of-00002.safetensors`, and what is no name of a shard is made one.
fn shard_name(input: &str, number: usize, count: usize) -> String {
    match input.strip_suffix(".bin") {
        Some(stem) => format!("{}.safetensors", stem.strip_prefix("pytorch_").unwrap_or(stem)),
        None if input.ends_with(".safetensors") => input.into(),
        None if count == 1 => SAFETENSORS.single.into(),
        None => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// Gives the file its final length and, where the system supports it, allocates its blocks,
/// so that a full disk is noticed before the work rather than after it.
fn reserve(file: &File, length: u64) -> std::io::Result<()> {
    file.set_len(length)?;
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let length = i64::try_from(length).map_err(std::io::Error::other)?;
        // SAFETY: a plain system call on a descriptor that this function holds open.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 | libc::EOPNOTSUPP | libc::EINVAL => Ok(()),
            code => Err(std::io::Error::from_raw_os_error(code)),
        }
    }
    #[cfg(not(target_os = "linux"))]
    Ok(())
}
