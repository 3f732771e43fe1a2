//! Writing the pruned checkpoint: beside its place, then renamed.

use super::{Checkpoint, TensorInfo, safetensors};
use crate::dtype::encode;
use crate::error::{Error, Result, invalid};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The run's record in the output folder, and the mark by which `--force`
/// knows a folder that may be replaced.
pub const RECORD: &str = "sparsellm.json";

/// The run's report in the output folder, for people.
pub const REPORT: &str = "report.html";

/// How the names begin of what is not finished, and of no use after a crash.
pub const PARTIAL: &str = ".sparsellm-partial-";

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

/// A checkpoint being written. Until [`Writer::finish`] everything lies in a
/// hidden folder beside the output, which is removed if the writer is dropped.
pub struct Writer<'a> {
    source: &'a Checkpoint,
    output: PathBuf,
    temp: TempDir,
    shards: Vec<Shard>,
    written: BTreeSet<String>,
}

impl<'a> Writer<'a> {
    /// Lays out the output's weight files (same tensors, types and shards as
    /// `source`) and reserves their space on the disk.
    ///
    /// # Errors
    /// Where `output` exists and may not be replaced, or the disk is full.
    pub fn create(source: &'a Checkpoint, output: &Path, force: bool) -> Result<Self> {
        check_output(source, output, force)?;
        let parent = folder_of(output);
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        let temp = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(parent)
            .map_err(|e| Error::io(parent, e))?;
        let mut by_file: BTreeMap<usize, Vec<(&String, &TensorInfo)>> = BTreeMap::new();
        for (name, info) in source.tensors() {
            by_file.entry(info.file).or_default().push((name, info));
        }
        let shards = by_file
            .into_iter()
            .map(|(file, tensors)| {
                let name = source.files.get(file).map_or(safetensors::SINGLE, |f| f.name.as_str());
                Shard::create(temp.path(), shard_name(name), &tensors)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Writer { source, output: output.into(), temp, shards, written: BTreeSet::new() })
    }

    /// Where the checkpoint is being written; a folder that is renamed or removed
    /// at the end.
    pub fn folder(&self) -> &Path {
        self.temp.path()
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
        for shard in &mut self.shards {
            if let Some(&offset) = shard.offsets.get(name) {
                shard
                    .file
                    .seek(SeekFrom::Start(offset))
                    .and_then(|_| shard.file.write_all(bytes))
                    .map_err(|e| Error::io(&shard.path, e))?;
                self.written.insert(name.into());
                return Ok(());
            }
        }
        invalid!("tensor {name} is not part of the checkpoint")
    }

    /// Copies every tensor not written yet, carries over the other files, adds
    /// `record` as `sparsellm.json`, and renames the folder into place.
    pub fn finish(mut self, record: &Value) -> Result<()> {
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
        let folder = self.temp.path();
        match &source.gguf {
            Some(gguf) => {
                write_file(&folder.join("config.json"), pretty(&source.config).as_bytes())?;
                for (name, bytes) in gguf.tokenizer_files()? {
                    write_file(&folder.join(name), &bytes)?;
                }
            }
            None => carry_over(&source.path, folder)?,
        }
        if self.shards.len() > 1 {
            write_file(&folder.join(safetensors::INDEX), pretty(&self.index()).as_bytes())?;
        }
        write_file(&folder.join(RECORD), pretty(record).as_bytes())?;
        self.rename()
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

    /// Puts the finished folder in its place; an old one is moved aside first
    /// and removed last, so that a crash between loses neither.
    fn rename(self) -> Result<()> {
        // tempdirs are private (0700); a checkpoint has the umask's permissions.
        #[cfg(unix)]
        set_default_permissions(self.temp.path())?;
        let finished = self.temp.path();
        let aside = finished.with_extension("old");
        let fail = |e| Error::io(&self.output, e);
        let replaces = self.output.exists();
        if replaces {
            fs::rename(&self.output, &aside).map_err(fail)?;
        }
        if let Err(e) = fs::rename(finished, &self.output) {
            if replaces {
                fs::rename(&aside, &self.output).map_err(fail)?;
            }
            return Err(fail(e));
        }
        let _ = self.temp.keep(); // it has another name now: nothing to remove
        if replaces {
            fs::remove_dir_all(&aside).map_err(|e| Error::io(&aside, e))?;
        }
        Ok(())
    }
}

impl Shard {
    fn create(folder: &Path, name: String, tensors: &[(&String, &TensorInfo)]) -> Result<Shard> {
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
        let start = 8 + text.len() as u64;
        offsets.values_mut().for_each(|o| *o += start);
        let fail = |e| Error::io(&path, e);
        let mut file = File::create(&path).map_err(fail)?;
        file.write_all(&(text.len() as u64).to_le_bytes()).map_err(fail)?;
        file.write_all(&text).map_err(fail)?;
        reserve(&file, start + end).map_err(|e| {
            let megabytes = (start + end).div_ceil(1 << 20);
            Error::Invalid(format!(
                "{}: {e}; this file of the pruned checkpoint takes {megabytes} MiB: free some space or choose another --output",
                path.display()
            ))
        })?;
        Ok(Shard { name, path, file, offsets })
    }
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

/// The folder that a file or folder is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
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
        fs::copy(&path, to.join(name)).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

#[cfg(unix)]
fn set_default_permissions(folder: &Path) -> Result<()> {
    // A folder made the ordinary way shows what the umask allows.
    let probe = folder.join(".mode");
    fs::create_dir(&probe).map_err(|e| Error::io(&probe, e))?;
    let mode = fs::metadata(&probe).map_err(|e| Error::io(&probe, e))?.permissions();
    fs::remove_dir(&probe).map_err(|e| Error::io(&probe, e))?;
    fs::set_permissions(folder, mode).map_err(|e| Error::io(folder, e))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |e| Error::io(path, e);
    let mut file = File::create(path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
