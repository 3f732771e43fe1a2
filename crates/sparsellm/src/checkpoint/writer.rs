//! Writing the pruned checkpoint: beside its place, layer by layer, then renamed.

use super::run_folder::{Existing, RunFolder, write_file};
use super::{Checkpoint, TensorInfo, safetensors};
use crate::dtype::{decode, encode};
use crate::error::{Error, Result, invalid};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The run's record in the output folder, and the mark by which `--force`
/// knows a folder that may be replaced.
pub const RECORD: &str = "sparsellm.json";

/// The run's report in the output folder, for people.
pub const REPORT: &str = "report.html";

/// Files that hold weights in some format: never carried over, since the
/// output holds the pruned weights as safetensors.
const WEIGHT_EXTENSIONS: [&str; 9] =
    ["safetensors", "bin", "pt", "pth", "gguf", "h5", "msgpack", "onnx", "ot"];

struct Shard {
    name: String,
    path: PathBuf,
    file: File,
    /// Byte offset of each tensor in the file.
    offsets: BTreeMap<String, u64>,
}

/// A checkpoint being written, in a hidden folder beside the output. Dropped
/// unfinished, the folder stays for a later run to go on with, if a layer is done.
pub struct Writer<'a> {
    source: &'a Checkpoint,
    output: PathBuf,
    existing: Existing,
    run: RunFolder,
    shards: Vec<Shard>,
    written: BTreeSet<String>,
}

impl<'a> Writer<'a> {
    /// Lays out the output's weight files (same tensors, types and shards as
    /// `source`) and reserves their space on the disk, or goes on in those of an
    /// unfinished run. `run` is all that decides the result.
    ///
    /// # Errors
    /// Where `output` exists and may not be replaced, where another run has begun
    /// it, or the disk is full.
    pub fn create(
        source: &'a Checkpoint,
        output: &Path,
        run: &Value,
        existing: Existing,
    ) -> Result<Self> {
        check_output(source, output, existing.replace)?;
        let run = RunFolder::open(output, run, existing)?;
        let mut by_file: BTreeMap<usize, Vec<(&String, &TensorInfo)>> = BTreeMap::new();
        for (name, info) in source.tensors() {
            by_file.entry(info.file).or_default().push((name, info));
        }
        let shards = by_file
            .into_iter()
            .map(|(file, tensors)| {
                let name = source.files.get(file).map_or(safetensors::SINGLE, |f| f.name.as_str());
                Shard::open(&run.checkpoint(), shard_name(name), &tensors, !run.done().is_empty())
            })
            .collect::<Result<Vec<_>>>()?;
        let (output, written) = (output.into(), BTreeSet::new());
        Ok(Writer { source, output, existing, run, shards, written })
    }

    /// Where the checkpoint is being written; a folder that is renamed or removed
    /// at the end.
    pub fn folder(&self) -> PathBuf {
        self.run.checkpoint()
    }

    /// What [`Writer::layer_done`] recorded, in an unfinished run as well.
    pub fn done(&self) -> &[Value] {
        self.run.done()
    }

    /// Records that the next layer is finished: all that was written of it is on
    /// the disk before the record is.
    pub fn layer_done(&mut self, report: Value) -> Result<()> {
        for shard in &self.shards {
            shard.file.sync_data().map_err(|e| Error::io(&shard.path, e))?;
        }
        self.run.record(report)
    }

    /// Reads back a tensor of a finished layer.
    ///
    /// # Errors
    /// Where it cannot be read, or is damaged.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let info = self.source.info(name)?;
        let mut bytes = vec![0; info.len() * info.dtype.size()];
        let (shard, offset) = shard_of(&mut self.shards, name)?;
        shard
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| shard.file.read_exact(&mut bytes))
            .map_err(|e| Error::io(&shard.path, e))?;
        let mut values = vec![0.0; info.len()];
        decode(&bytes, info.dtype, &mut values);
        if values.iter().any(|v| !v.is_finite()) {
            return damaged(&shard.path);
        }
        self.written.insert(name.into());
        Ok(values)
    }

    /// Writes a tensor's new values, rounded to its stored type.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let info = self.source.info(name)?;
        if info.len() != values.len() {
            return invalid!("tensor {name}: {} values for shape {:?}", values.len(), info.shape);
        }
        let mut bytes = vec![0; values.len() * info.dtype.size()];
        encode(values, info.dtype, &mut bytes);
        self.put(name, &bytes)
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (shard, offset) = shard_of(&mut self.shards, name)?;
        shard
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| shard.file.write_all(bytes))
            .map_err(|e| Error::io(&shard.path, e))?;
        self.written.insert(name.into());
        Ok(())
    }

    /// Copies every tensor not written yet, carries over the other files, and adds
    /// `record` as `sparsellm.json`.
    pub fn finish(mut self, record: &Value) -> Result<Finished> {
        let source = self.source;
        for (name, info) in source.tensors() {
            if self.written.contains(name) {
                continue;
            }
            if source.gguf.is_some() {
                let values = source.vector(name)?;
                self.write(name, &values)?;
            } else {
                self.put(name, &source.bytes(info, 0..info.len()))?;
            }
            source.release();
        }
        for shard in &self.shards {
            shard.file.sync_all().map_err(|e| Error::io(&shard.path, e))?;
        }
        let folder = self.folder();
        match &source.gguf {
            Some(gguf) => {
                write_file(&folder.join("config.json"), pretty(&source.config).as_bytes())?;
                for (name, bytes) in gguf.tokenizer_files()? {
                    write_file(&folder.join(name), &bytes)?;
                }
            }
            None => carry_over(&source.path, &folder)?,
        }
        if self.shards.len() > 1 {
            write_file(&folder.join(safetensors::INDEX), pretty(&self.index()).as_bytes())?;
        }
        write_file(&folder.join(RECORD), pretty(record).as_bytes())?;
        Ok(Finished { output: self.output, existing: self.existing, run: self.run })
    }

    /// Which shard holds which tensor.
    fn index(&self) -> Value {
        let total: usize =
            self.source.tensors().values().map(|info| info.len() * info.dtype.size()).sum();
        let mut map = BTreeMap::new();
        for shard in &self.shards {
            map.extend(shard.offsets.keys().map(|name| (name, &shard.name)));
        }
        json!({"metadata": {"total_size": total}, "weight_map": map})
    }
}

/// A whole checkpoint that only has to be put in its place.
pub struct Finished {
    output: PathBuf,
    existing: Existing,
    run: RunFolder,
}

impl Finished {
    /// Where it is now: it can be opened, and added to.
    pub fn folder(&self) -> PathBuf {
        self.run.checkpoint()
    }

    /// Renames it to the output.
    pub fn publish(self) -> Result<()> {
        self.run.publish(&self.output, self.existing.replace)
    }
}

/// The shard that holds a tensor, and the tensor's offset in it.
fn shard_of<'s>(shards: &'s mut [Shard], name: &str) -> Result<(&'s mut Shard, u64)> {
    for shard in shards {
        if let Some(&offset) = shard.offsets.get(name) {
            return Ok((shard, offset));
        }
    }
    invalid!("tensor {name} is not part of the checkpoint")
}

impl Shard {
    /// Makes the file, or opens the one that an unfinished run has made.
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
                Error::Invalid(format!(
                    "{}: {e}; this file of the pruned checkpoint takes {megabytes} MiB: free some space or choose another --output",
                    path.display()
                ))
            })?;
            file.sync_all().map_err(fail)?;
        }
        Ok(Shard { name, path, file, offsets })
    }
}

fn damaged<T>(path: &Path) -> Result<T> {
    invalid!(
        "{}: this file of an unfinished run is damaged, and cannot be resumed; discard it with --force",
        path.display()
    )
}

/// The output's name for a weight file: `pytorch_model-00001-of-00002.bin`
/// becomes `model-00001-of-00002.safetensors`.
fn shard_name(input: &str) -> String {
    match input.strip_suffix(".bin") {
        Some(stem) => format!("{}.safetensors", stem.strip_prefix("pytorch_").unwrap_or(stem)),
        None => input.into(),
    }
}

/// Gives the file its final length and, where the system can, its blocks, so
/// that a full disk is noticed before the work and not after it.
fn reserve(file: &File, length: u64) -> std::io::Result<()> {
    file.set_len(length)?;
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let length = i64::try_from(length).map_err(std::io::Error::other)?;
        // SAFETY: a plain system call on a descriptor this function holds open.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 | libc::EOPNOTSUPP | libc::EINVAL => Ok(()),
            code => Err(std::io::Error::from_raw_os_error(code)),
        }
    }
    #[cfg(not(target_os = "linux"))]
    Ok(())
}

/// Refuses an output that would destroy something.
fn check_output(source: &Checkpoint, output: &Path, force: bool) -> Result<()> {
    if fs::symlink_metadata(output).is_err() {
        return Ok(());
    }
    let here = output.canonicalize().map_err(|e| Error::io(output, e))?;
    let input = source.path.canonicalize().map_err(|e| Error::io(&source.path, e))?;
    if input.starts_with(&here) {
        return invalid!(
            "{}: the output folder is or holds the input model; choose another --output",
            output.display()
        );
    }
    if !force {
        return invalid!(
            "{}: the output folder exists; choose another --output, or replace it with --force",
            output.display()
        );
    }
    let replaceable = here.is_dir()
        && (here.join(RECORD).is_file()
            || fs::read_dir(&here).map_err(|e| Error::io(&here, e))?.next().is_none());
    if !replaceable {
        return invalid!(
            "{}: --force replaces only an empty folder or one that holds {RECORD}; remove this one yourself",
            output.display()
        );
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev());
        let parent = here.parent().unwrap_or(&here);
        if device(&here).ok() != device(parent).ok() {
            return invalid!(
                "{}: a mount point cannot be replaced; choose a folder in it as --output",
                output.display()
            );
        }
    }
    Ok(())
}

/// Copies the folder's other files (configuration, tokenizer, licence).
fn carry_over(from: &Path, to: &Path) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(from)
        .and_then(|dir| dir.map(|e| e.map(|e| e.path())).collect())
        .map_err(|e| Error::io(from, e))?;
    entries.sort();
    for path in entries {
        let (Some(name), true) = (path.file_name(), path.is_file()) else { continue };
        let lower = name.to_string_lossy().to_lowercase();
        let is_weight = WEIGHT_EXTENSIONS.iter().any(|ext| {
            lower.ends_with(&format!(".{ext}")) || lower.ends_with(&format!(".{ext}.index.json"))
        });
        if lower == RECORD || lower == REPORT || lower.starts_with('.') || is_weight {
            continue;
        }
        let copy = to.join(name);
        // A copy from before a crash may be read-only, as its source.
        let _ = fs::remove_file(&copy);
        fs::copy(&path, &copy).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
