//! Writing the pruned checkpoint: beside its place, layer by layer, then renamed.

use super::run_folder::{Existing, RunFolder, checkpoint_of, write_file};
use super::shard::{self, Shard, shard_of};
use super::{Checkpoint, safetensors};
use crate::dtype::{decode, encode};
use crate::error::{Error, Result, invalid};
use crate::ranks::Communicator;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
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

/// A checkpoint being written, in a hidden folder beside the output. Dropped
/// unfinished, the folder stays for a later run to go on with, if a layer is done.
/// All ranks call its functions; rank 0 writes.
pub struct Writer<'a> {
    source: &'a Checkpoint,
    output: PathBuf,
    existing: Existing,
    ranks: &'a dyn Communicator,
    folder: PathBuf,
    done: Vec<Value>,
    /// Rank 0's.
    files: Option<Files>,
}

/// What is being written.
struct Files {
    run: RunFolder,
    shards: Vec<Shard>,
    written: BTreeSet<String>,
}

impl<'a> Writer<'a> {
    /// Lays out the output's weight files (same tensors, types and shards as
    /// `source`) and reserves their space on the disk, or goes on in those of an
    /// unfinished run. `run` is all that decides the result; of it, rank 0's counts.
    ///
    /// # Errors
    /// Where `output` exists and may not be replaced, where another run has begun
    /// it, or the disk is full.
    pub fn create(
        source: &'a Checkpoint,
        output: &Path,
        run: &Value,
        existing: Existing,
        ranks: &'a dyn Communicator,
    ) -> Result<Self> {
        let files = || -> Result<Files> {
            check_output(source, output, existing.replace)?;
            let run = RunFolder::open(output, run, existing)?;
            let shards = shard::open(&run.checkpoint(), source, !run.done().is_empty())?;
            Ok(Files { run, shards, written: BTreeSet::new() })
        };
        let files = (ranks.rank() == 0).then(files).transpose()?;
        let done = files.as_ref().map_or(Vec::new(), |files| files.run.done().to_vec());
        let done = match ranks.told(|| Ok(Value::Array(done)))? {
            Value::Array(done) => done,
            _ => Vec::new(),
        };
        let folder = checkpoint_of(output)?;
        Ok(Writer { source, output: output.into(), existing, ranks, folder, done, files })
    }

    /// Where the checkpoint is being written; a folder that is renamed or removed
    /// at the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What [`Writer::layer_done`] had recorded in the unfinished run that this one
    /// goes on with.
    pub fn done(&self) -> &[Value] {
        &self.done
    }

    /// Records that the next layer is finished: all that was written of it is on
    /// the disk before the record is.
    pub fn layer_done(&mut self, report: Value) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.shards.iter().try_for_each(Shard::sync_data)?;
        files.run.record(report)
    }

    /// Reads back a tensor of a finished layer.
    ///
    /// # Errors
    /// Where it cannot be read, or is damaged.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let info = self.source.info(name)?;
        let mut values = vec![0.0; info.len()];
        if let Some(files) = &mut self.files {
            let mut bytes = vec![0; info.len() * info.dtype.size()];
            let (shard, offset) = shard_of(&mut files.shards, name)?;
            shard.read(offset, &mut bytes)?;
            decode(&bytes, info.dtype, &mut values);
            if values.iter().any(|v| !v.is_finite()) {
                return shard.damaged();
            }
            files.written.insert(name.into());
        }
        self.ranks.broadcast(0, bytemuck::cast_slice_mut(&mut values));
        Ok(values)
    }

    /// Writes a tensor's new values, rounded to its stored type.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        match &mut self.files {
            Some(files) => files.write(self.source, name, values),
            None => Ok(()),
        }
    }

    /// Copies every tensor not written yet, carries over the other files, and adds
    /// `record` as `sparsellm.json`. When this returns, all ranks find it.
    pub fn finish(self, record: &Value) -> Result<Finished> {
        let Writer { source, output, existing, ranks, folder, files, .. } = self;
        let run = files.map(|files| files.finish(source, &folder, record)).transpose()?;
        ranks.wait_for_first();
        Ok(Finished { output, existing, folder, run })
    }
}

impl Files {
    fn write(&mut self, source: &Checkpoint, name: &str, values: &[f32]) -> Result<()> {
        let info = source.info(name)?;
        if info.len() != values.len() {
            return invalid!("tensor {name}: {} values for shape {:?}", values.len(), info.shape);
        }
        let mut bytes = vec![0; values.len() * info.dtype.size()];
        encode(values, info.dtype, &mut bytes);
        self.put(name, &bytes)
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (shard, offset) = shard_of(&mut self.shards, name)?;
        shard.write(offset, bytes)?;
        self.written.insert(name.into());
        Ok(())
    }

    fn finish(mut self, source: &Checkpoint, folder: &Path, record: &Value) -> Result<RunFolder> {
        for (name, info) in source.tensors() {
            if self.written.contains(name) {
                continue;
            }
            if source.gguf.is_some() {
                let values = source.vector(name)?;
                self.write(source, name, &values)?;
            } else {
                self.put(name, &source.bytes(info, 0..info.len()))?;
            }
            source.release();
        }
        self.shards.iter().try_for_each(Shard::sync_all)?;
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
            let index = pretty(&self.index(source));
            write_file(&folder.join(safetensors::INDEX), index.as_bytes())?;
        }
        write_file(&folder.join(RECORD), pretty(record).as_bytes())?;
        Ok(self.run)
    }

    /// Which shard holds which tensor.
    fn index(&self, source: &Checkpoint) -> Value {
        let total: usize =
            source.tensors().values().map(|info| info.len() * info.dtype.size()).sum();
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
    folder: PathBuf,
    run: Option<RunFolder>,
}

impl Finished {
    /// Where it is now: it can be opened, and on rank 0 added to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Renames it to the output.
    pub fn publish(self) -> Result<()> {
        match self.run {
            Some(run) => run.publish(&self.output, self.existing.replace),
            None => Ok(()),
        }
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
