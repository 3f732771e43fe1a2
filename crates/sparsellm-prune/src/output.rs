//! The checkpoint that a run writes: rank 0 owns the files, and all ranks see the results.

use serde_json::Value;
use sparsellm_base::Result;
use sparsellm_checkpoint::{Checkpoint, Existing, Finished, LeftOut, Slot, Writer, checkpoint_of};
use sparsellm_model::{Block, VectorParameter};
use sparsellm_ranks::Communicator;
use std::path::{Path, PathBuf};

/// A checkpoint being written. All ranks call its functions; rank 0 writes.
pub struct Output<'a> {
    ranks: &'a dyn Communicator,
    folder: PathBuf,
    done: Vec<Value>,
    /// The writer of the files; only rank 0 has one.
    writer: Option<Writer<'a>>,
}

impl<'a> Output<'a> {
    /// Lays the checkpoint out, or continues that of an unfinished run. `run` is the run's identity,
    /// which holds everything that decides the result; rank 0's is the one that counts.
    ///
    /// # Errors
    /// If [`Writer::create`] fails.
    pub fn create(
        source: &'a Checkpoint,
        output: &Path,
        run: &Value,
        existing: Existing,
        ranks: &'a dyn Communicator,
    ) -> Result<Self> {
        let create = || Writer::create(source, output, run, existing);
        let writer = (ranks.rank() == 0).then(create).transpose()?;
        let done = writer.as_ref().map_or(Vec::new(), |writer| writer.done().to_vec());
        let done = match ranks.broadcast_json(|| Ok(Value::Array(done)))? {
            Value::Array(done) => done,
            _ => Vec::new(),
        };
        Ok(Output { ranks, folder: checkpoint_of(output)?, done, writer })
    }

    /// The folder in which the checkpoint is being written; it is renamed or removed at the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The records that the unfinished run which this one continues had passed to
    /// [`layer_done`](Self::layer_done).
    pub fn done(&self) -> &[Value] {
        &self.done
    }

    /// The folder of the unfinished run, which goes when the checkpoint is published. What is put
    /// there, beside the checkpoint, is for a later run that resumes this one.
    pub fn run_folder(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// Appends the record of the next finished layer, or of another unit of the run.
    ///
    /// # Errors
    /// If [`Writer::layer_done`] fails.
    pub fn layer_done(&mut self, record: Value) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.layer_done(record))
    }

    /// Reads back a finished layer's weights, on all ranks.
    ///
    /// # Errors
    /// If [`Writer::read`] fails.
    pub fn read(&mut self, slot: &Slot) -> Result<Vec<f32>> {
        let mut values = match &mut self.writer {
            Some(writer) => writer.read(slot)?,
            None => vec![0.0; slot.len()],
        };
        self.ranks.broadcast(0, bytemuck::cast_slice_mut(&mut values));
        Ok(values)
    }

    /// Writes a linear's new weights.
    ///
    /// # Errors
    /// If [`Writer::write`] fails.
    pub fn write(&mut self, slot: &Slot, values: &[f32]) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), |writer| writer.write(slot, values))
    }

    /// Writes the new weights of a block's linears.
    ///
    /// # Errors
    /// If [`Writer::write`] fails.
    pub fn write_linears(&mut self, block: &Block) -> Result<()> {
        let mut linears = block.linears().into_iter();
        linears.try_for_each(|linear| self.write(&linear.slot, &linear.weight.data))
    }

    /// Writes the new values of some biases and norms.
    ///
    /// # Errors
    /// If [`Writer::write`] fails.
    pub fn write_vectors(&mut self, vectors: &[VectorParameter]) -> Result<()> {
        vectors.iter().try_for_each(|vector| self.write(&vector.slot, &vector.stored()))
    }

    /// Completes the checkpoint. When this returns, all ranks can open it.
    ///
    /// # Errors
    /// If [`Writer::finish`] fails.
    pub fn finish(self, record: &Value) -> Result<FinishedOutput> {
        let finished = self.writer.map(|writer| writer.finish(record)).transpose()?;
        self.ranks.wait_for_rank_zero();
        Ok(FinishedOutput { folder: self.folder, finished })
    }
}

/// A complete checkpoint that has yet to be renamed to its final place.
pub struct FinishedOutput {
    folder: PathBuf,
    finished: Option<Finished>,
}

impl FinishedOutput {
    /// The folder that holds it now: all ranks can open it, and rank 0 can add files to it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files and folders of the input that it does not have, with the reasons. Only rank 0
    /// knows them.
    pub fn left_out(&self) -> &[LeftOut] {
        self.finished.as_ref().map_or(&[], Finished::left_out)
    }

    /// Renames the folder to the output's name.
    ///
    /// # Errors
    /// If [`Finished::publish`] fails.
    pub fn publish(self) -> Result<()> {
        self.finished.map_or(Ok(()), Finished::publish)
    }
}
