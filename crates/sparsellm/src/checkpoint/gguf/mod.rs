//! A single `.gguf` file of the `llama` architecture, seen as the Hugging Face
//! checkpoint it was converted from: its `config.json`, its tensors under
//! their Hugging Face names and in their row order, its tokenizer.
//!
//! The file is mapped, not read: a tensor is dequantised when it is asked for.
//! Nothing in the file is trusted; a file that opens has every tensor a llama
//! of its configuration needs, in the right shape and inside the file.

mod config;
mod dequantize;
mod metadata;
mod names;
mod reader;
mod rope;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocabulary;

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use rayon::prelude::*;

use self::config::Dimensions;
use self::dequantize::{Kind, dequantize};
use self::metadata::Metadata;
use self::reader::TensorInfo;
use crate::error::{Error, Result, invalid};

/// Below this many elements a read isn't worth spreading over threads.
const PARALLEL: usize = 1 << 16;

/// An open GGUF file of a llama model.
pub struct Gguf {
    metadata: Metadata,
    dimensions: Dimensions,
    tensors: Vec<Tensor>,
    /// Position in `tensors` by Hugging Face name.
    index: HashMap<String, usize>,
    /// `rope_freqs.weight`: what each frequency is divided by.
    rope_factors: Option<Vec<f32>>,
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    kind: Kind,
    bytes: Range<usize>,
    heads: Option<usize>,
}

impl Gguf {
    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, is damaged or cut short, is of another
    /// architecture than `llama`, lacks a tensor, or stores one in a format
    /// that isn't read.
    pub fn open(path: &Path) -> Result<Gguf> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        // SAFETY: the map is only ever read, through bounds-checked slices of
        // plain bytes. As for every reader that maps its input, the file must
        // not be cut short by someone else while it is open.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
        Gguf::parse(path.display().to_string(), map)
    }

    /// The mapped file.
    pub(crate) fn map(&self) -> &Mmap {
        &self.metadata.map
    }

    fn parse(file: String, map: Mmap) -> Result<Gguf> {
        let (metadata, infos) = Metadata::parse(file, map)?;
        let dimensions = Dimensions::read(&metadata, &infos)?;
        let rope_factors = rope_factors(&metadata, &infos, dimensions.head_dim)?;
        let file = &metadata.file;

        let mut tensors = Vec::with_capacity(infos.len());
        let mut index = HashMap::with_capacity(infos.len());
        for info in infos.into_iter().filter(|info| !names::is_derived(&info.name)) {
            let Some(role) = names::role(&info.name, &dimensions) else {
                return invalid!(
                    "{file}: tensor `{}` has no place in a dense llama model of {} layers",
                    info.name,
                    dimensions.layers
                );
            };
            if info.shape != role.shape {
                return invalid!(
                    "{file}: tensor `{}` is {:?}; the metadata make it {:?}",
                    info.name,
                    info.shape,
                    role.shape
                );
            }
            if index.insert(role.name.clone(), tensors.len()).is_some() {
                return invalid!("{file}: tensor `{}` appears twice", info.name);
            }
            let TensorInfo { shape, kind, bytes, .. } = info;
            tensors.push(Tensor { name: role.name, shape, kind, bytes, heads: role.heads });
        }
        if let Some(name) = names::required(dimensions.layers).find(|n| !index.contains_key(n)) {
            return invalid!("{file}: there is no tensor for `{name}`");
        }
        Ok(Gguf { metadata, dimensions, tensors, index, rope_factors })
    }

    /// Name and row-major shape of every tensor, as a Hugging Face checkpoint
    /// has them, in the file's order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()))
    }

    /// Dequantises `elements` (flat, row-major) of the tensor `hf_name` into `out`.
    ///
    /// # Errors
    /// If there is no such tensor, the range leaves it, or `out` has another length.
    pub fn read_f32(&self, hf_name: &str, elements: Range<usize>, out: &mut [f32]) -> Result<()> {
        let file = &self.metadata.file;
        let Some(tensor) = self.index.get(hf_name).and_then(|at| self.tensors.get(*at)) else {
            return invalid!("{file}: there is no tensor for `{hf_name}`");
        };
        let total: usize = tensor.shape.iter().product();
        if elements.start > elements.end || elements.end > total || elements.len() != out.len() {
            return invalid!(
                "{file}: cannot read elements {elements:?} of `{hf_name}` ({total}) into {}",
                out.len()
            );
        }
        let Some(data) = self.metadata.map.get(tensor.bytes.clone()) else {
            return invalid!("{file}: the data of `{hf_name}` is not in the file");
        };

        let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
        let read = |element: usize, out: &mut [f32]| {
            let row = source_row(element / columns, tensor.shape[0], tensor.heads);
            dequantize(tensor.kind, data, row * columns + element % columns, out)
        };
        let first = (columns - elements.start % columns).min(out.len());
        let parallel = out.len() >= PARALLEL;
        let (partial, rest) = out.split_at_mut(first);
        let at = |row: usize| elements.start + first + row * columns;
        let good = read(elements.start, partial)
            && if parallel {
                rest.par_chunks_mut(columns).enumerate().all(|(row, out)| read(at(row), out))
            } else {
                rest.chunks_mut(columns).enumerate().all(|(row, out)| read(at(row), out))
            };
        if good { Ok(()) } else { invalid!("{file}: the data of `{hf_name}` is cut short") }
    }
}

/// Where llama.cpp put Hugging Face's `row`: it interleaves the two halves of
/// each query and key head, `h·d + t·d/2 + j  <-  h·d + 2j + t`.
fn source_row(row: usize, rows: usize, heads: Option<usize>) -> usize {
    let Some(heads) = heads else { return row };
    let dim = rows / heads;
    let (head, within) = (row / dim, row % dim);
    let (t, j) = (within / (dim / 2), within % (dim / 2));
    head * dim + 2 * j + t
}

fn rope_factors(
    metadata: &Metadata,
    infos: &[TensorInfo],
    head_dim: usize,
) -> Result<Option<Vec<f32>>> {
    let Some(info) = infos.iter().find(|info| info.name == "rope_freqs.weight") else {
        return Ok(None);
    };
    let data = metadata.map.get(info.bytes.clone()).unwrap_or_default();
    let mut out = vec![0.0; head_dim / 2];
    if info.shape != [head_dim / 2] || !dequantize(info.kind, data, 0, &mut out) {
        return invalid!(
            "{}: tensor `rope_freqs.weight` is {:?}; heads of {head_dim} make it [{}]",
            metadata.file,
            info.shape,
            head_dim / 2
        );
    }
    Ok(Some(out))
}
