//! Writes the pruned checkpoint beside its destination, layer by layer, then renames it.

use crate::{
    Checkpoint, SAFETENSORS, Slot, TensorInfo,
    carry_over::{LeftOut, carry_over},
    run_folder::{Existing, PARTIAL, RECORD, RunFolder, write_file},
    shard::{self, Shard, shard_of},
};
use serde_json::{Value, json};
use sparsellm_base::{Error, Result, input_error};
use sparsellm_tensor::{FloatType, decode, encode};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A checkpoint being written, in a hidden folder beside the output. If it is dropped
/// unfinished and at least one layer is done, the folder stays for a later run to resume.
pub struct Writer<'a> {
    source: &'a Checkpoint,
    output: PathBuf,
    existing: Existing,
    run: RunFolder,
    shards: Vec<Shard>,
    /// The tensors that already have their final contents.
    written: BTreeSet<String>,
}

impl<'a> Writer<'a> {
    /// Lays out the output's weight files (the same tensors, types and shards as in `source`)
    /// and reserves their disk space, or resumes those of an unfinished run. `run` holds
    /// everything that determines the result.
    ///
    /// # Errors
    /// Returns an error if `output` exists and may not be replaced, another run has begun it,
    /// or the disk is full.
    pub fn create(
        source: &'a Checkpoint,
        output: &Path,
        run: &Value,
        existing: Existing,
    ) -> Result<Self> {
        check_output(source, output, existing.replace)?;
        let run = RunFolder::open(output, run, existing)?;
        let shards = shard::open(&run.checkpoint(), source, !run.done().is_empty())?;
        let written = BTreeSet::new();
        Ok(Writer { source, output: output.into(), existing, run, shards, written })
    }

    /// The records that [`layer_done`](Self::layer_done) made in the unfinished run that this
    /// one resumes.
    pub fn done(&self) -> &[Value] {
        self.run.done()
    }

    /// Records that the next layer is finished. Everything written of it reaches the disk
    /// before the record does.
    ///
    /// # Errors
    /// Returns an error if the disk cannot be written.
    pub fn layer_done(&mut self, record: Value) -> Result<()> {
        self.shards.iter().try_for_each(Shard::sync_data)?;
        self.run.record(record)
    }

    /// Reads back the weights of a linear in a finished layer.
    ///
    /// # Errors
    /// Returns an error if they cannot be read or are damaged.
    pub fn read(&mut self, slot: &Slot) -> Result<Vec<f32>> {
        let info = self.source.info(&slot.tensor)?;
        let mut values = vec![0.0; slot.len()];
        let (shard, offset) = shard_of(&mut self.shards, &slot.tensor)?;
        for piece in slot.pieces(info.len()) {
            let size = info.dtype.size();
            let mut bytes = vec![0; piece.stored.len() * size];
            shard.read(offset + (piece.stored.start * size) as u64, &mut bytes)?;
            let mut part = vec![0.0; piece.stored.len()];
            decode(&bytes, float(&slot.tensor, info)?, &mut part);
            piece.scatter(&part, &mut values);
        }
        if values.iter().any(|v| !v.is_finite()) {
            return shard.damaged();
        }
        self.written.insert(slot.tensor.clone());
        Ok(values)
    }

    /// Writes a linear's new weights `[d_out, d_in]`, rounded to their stored type.
    /// Other rows of the same tensor keep their values until they are written.
    ///
    /// # Errors
    /// Returns an error if the weights do not fit the slot, or the disk cannot be written.
    pub fn write(&mut self, slot: &Slot, values: &[f32]) -> Result<()> {
        let info = self.source.info(&slot.tensor)?;
        if slot.len() != values.len() {
            return input_error!(
                "tensor {}: {} values for {} weights",
                slot.tensor,
                values.len(),
                slot.len()
            );
        }
        if slot.len() < info.len() && !self.written.contains(&slot.tensor) {
            self.copy(&slot.tensor, info)?;
        }
        let (dtype, size) = (float(&slot.tensor, info)?, info.dtype.size());
        let (shard, offset) = shard_of(&mut self.shards, &slot.tensor)?;
        for piece in slot.pieces(info.len()) {
            let mut bytes = vec![0; piece.stored.len() * size];
            match piece.step {
                1 => encode(&values[piece.at..][..piece.stored.len()], dtype, &mut bytes),
                _ => encode(&piece.gather(values), dtype, &mut bytes),
            }
            shard.write(offset + (piece.stored.start * size) as u64, &bytes)?;
        }
        self.written.insert(slot.tensor.clone());
        Ok(())
    }

    /// Copies a tensor unchanged from the source.
    fn copy(&mut self, name: &str, info: &TensorInfo) -> Result<()> {
        let (shard, offset) = shard_of(&mut self.shards, name)?;
        match self.source.source().bytes(name) {
            Some(bytes) => shard.write(offset, &bytes)?,
            None => {
                let mut bytes = vec![0; info.len() * info.dtype.size()];
                encode(&self.source.vector(name)?, float(name, info)?, &mut bytes);
                shard.write(offset, &bytes)?;
            }
        }
        self.written.insert(name.into());
        Ok(())
    }

    /// Copies every tensor not written yet and the other files, and adds `record` as
    /// `sparsellm.json`.
    ///
    /// # Errors
    /// Returns an error if the source cannot be read, or the disk cannot be written.
    pub fn finish(mut self, record: &Value) -> Result<Finished> {
        let (source, folder) = (self.source, self.run.checkpoint());
        remove_remains(&folder)?;
        for (name, info) in source.tensors() {
            if !self.written.contains(name) {
                self.copy(name, info)?;
                source.release();
            }
        }
        self.shards.iter().try_for_each(Shard::sync_all)?;
        let left_out = match source.source().embedded_files()? {
            Some(files) => {
                files.iter().try_for_each(|(name, bytes)| write_file(&folder.join(name), bytes))?;
                Vec::new()
            }
            None => carry_over(&source.path, &folder, &source.source().weight_files())?,
        };
        if self.shards.iter().any(|shard| shard.name != SAFETENSORS.single) {
            write_file(&folder.join(SAFETENSORS.index), pretty(&self.index()).as_bytes())?;
        }
        write_file(&folder.join(RECORD), pretty(record).as_bytes())?;
        Ok(Finished { output: self.output, existing: self.existing, run: self.run, left_out })
    }

    /// The index of the output: which shard holds which tensor.
    fn index(&self) -> Value {
        let infos = self.source.tensors().values();
        let total: usize = infos.map(|info| info.len() * info.dtype.size()).sum();
        let mut map = BTreeMap::new();
        for shard in &self.shards {
            map.extend(shard.offsets.keys().map(|name| (name, &shard.name)));
        }
        json!({"metadata": {"total_size": total}, "weight_map": map})
    }
}

/// Removes temporary files of a process that was killed while it put a file, such as the report,
/// into the checkpoint.
fn remove_remains(folder: &Path) -> Result<()> {
    let failed = |e| Error::io(folder, e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_file(entry.path()).map_err(|e| Error::io(entry.path(), e))?;
        }
    }
    Ok(())
}

/// The floating-point type of a tensor whose weights are being written.
fn float(name: &str, info: &TensorInfo) -> Result<FloatType> {
    info.dtype.float().ok_or_else(|| {
        let dtype = info.dtype.name();
        Error::Input(format!("tensor {name} is stored as {dtype}, which holds no weights"))
    })
}

/// A complete checkpoint that only has to be moved to its destination.
pub struct Finished {
    output: PathBuf,
    existing: Existing,
    run: RunFolder,
    left_out: Vec<LeftOut>,
}

impl Finished {
    /// Its current folder, in which it can be opened and files can be added.
    pub fn folder(&self) -> PathBuf {
        self.run.checkpoint()
    }

    /// The files and folders of the input that it does not have, each with the reason.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Renames it to the output path.
    ///
    /// # Errors
    /// Returns an error if something has appeared there meanwhile.
    pub fn publish(self) -> Result<()> {
        self.run.publish(&self.output, self.existing.replace)
    }
}

/// Rejects an output path whose use would destroy something.
fn check_output(source: &Checkpoint, output: &Path, force: bool) -> Result<()> {
    if fs::symlink_metadata(output).is_err() {
        return Ok(());
    }
    let here = output.canonicalize().map_err(|e| Error::io(output, e))?;
    let input = source.path.canonicalize().map_err(|e| Error::io(&source.path, e))?;
    if input.starts_with(&here) {
        return input_error!(
            "{}: the output folder is or holds the input model; choose another `output`",
            output.display()
        );
    }
    if !force {
        return input_error!(
            "{}: the output folder exists; choose another `output`, or replace it with `force`",
            output.display()
        );
    }
    let replaceable = here.is_dir()
        && (here.join(RECORD).is_file()
            || fs::read_dir(&here).map_err(|e| Error::io(&here, e))?.next().is_none());
    if !replaceable {
        return input_error!(
            "{}: `force` replaces only an empty folder or one that holds {RECORD}; remove this one yourself",
            output.display()
        );
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev());
        let parent = here.parent().unwrap_or(&here);
        if device(&here).ok() != device(parent).ok() {
            return input_error!(
                "{}: a mount point cannot be replaced; choose a folder in it as `output`",
                output.display()
            );
        }
    }
    Ok(())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
