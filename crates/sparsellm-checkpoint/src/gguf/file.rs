//! An open GGUF file.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use rayon::prelude::*;

use super::dequantize::{Kind, dequantize};
use super::dimensions::Dimensions;
use super::metadata::Metadata;
use super::names;
use super::reader::TensorInfo;
use crate::{Dtype, folder::map_file};
use sparsellm_base::{Result, input_error};

/// Reads of fewer elements are not worth spreading over threads.
pub(super) const PARALLEL: usize = 1 << 16;

/// An open GGUF file of a llama model.
pub(crate) struct Gguf {
    pub(super) metadata: Metadata,
    pub(super) dimensions: Dimensions,
    pub(super) tensors: Vec<Tensor>,
    /// Index into `tensors` by Hugging Face name.
    pub(super) index: HashMap<String, usize>,
    /// The same tensors, described as a checkpoint lists them.
    pub(super) infos: BTreeMap<String, crate::TensorInfo>,
    /// `rope_freqs.weight`: the divisor of each rotary frequency.
    pub(super) rope_factors: Option<Vec<f32>>,
}

pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
    pub(super) bytes: Range<usize>,
    heads: Option<usize>,
}

impl Gguf {
    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is damaged or truncated, has an
    /// architecture other than `llama`, lacks a tensor, or stores one in an unsupported
    /// format.
    pub fn open(path: &Path) -> Result<Gguf> {
        let map = map_file(path)?;
        Gguf::parse(path.display().to_string(), map)
    }

    pub(super) fn parse(file: String, map: Mmap) -> Result<Gguf> {
        let (metadata, infos) = Metadata::parse(file, map)?;
        let dimensions = Dimensions::read(&metadata, &infos)?;
        let rope_factors = rope_factors(&metadata, &infos, dimensions.head_dim)?;
        let file = &metadata.file;

        let mut tensors = Vec::with_capacity(infos.len());
        let mut index = HashMap::with_capacity(infos.len());
        for info in infos.into_iter().filter(|info| !names::is_derived(&info.name)) {
            let Some(role) = names::role(&info.name, &dimensions) else {
                return input_error!(
                    "{file}: tensor `{}` has no place in a dense llama model of {} layers",
                    info.name,
                    dimensions.layers
                );
            };
            if info.shape != role.shape {
                return input_error!(
                    "{file}: tensor `{}` is {:?}; the metadata make it {:?}",
                    info.name,
                    info.shape,
                    role.shape
                );
            }
            if index.insert(role.name.clone(), tensors.len()).is_some() {
                return input_error!("{file}: tensor `{}` appears twice", info.name);
            }
            let TensorInfo { shape, kind, bytes, .. } = info;
            tensors.push(Tensor { name: role.name, shape, kind, bytes, heads: role.heads });
        }
        if let Some(name) = names::required(dimensions.layers).find(|n| !index.contains_key(n)) {
            return input_error!("{file}: there is no tensor for `{name}`");
        }
        let info = |tensor: &Tensor| {
            let info =
                crate::TensorInfo { shape: tensor.shape.clone(), dtype: Dtype::F16, file: 0 };
            (tensor.name.clone(), info)
        };
        let infos = tensors.iter().map(info).collect();
        Ok(Gguf { metadata, dimensions, tensors, index, infos, rope_factors })
    }

    /// Dequantizes `elements` (flat, row-major) of the tensor `hf_name` into `out`.
    ///
    /// # Errors
    /// Returns an error if there is no such tensor, the range exceeds it, or `out` has
    /// another length.
    pub fn read_f32(&self, hf_name: &str, elements: Range<usize>, out: &mut [f32]) -> Result<()> {
        let file = &self.metadata.file;
        let Some(tensor) = self.index.get(hf_name).and_then(|at| self.tensors.get(*at)) else {
            return input_error!("{file}: there is no tensor for `{hf_name}`");
        };
        let total: usize = tensor.shape.iter().product();
        if elements.start > elements.end || elements.end > total || elements.len() != out.len() {
            return input_error!(
                "{file}: cannot read elements {elements:?} of `{hf_name}` ({total}) into {}",
                out.len()
            );
        }
        let Some(data) = self.metadata.map.get(tensor.bytes.clone()) else {
            return input_error!("{file}: the data of `{hf_name}` is not in the file");
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
        if good { Ok(()) } else { input_error!("{file}: the data of `{hf_name}` is cut short") }
    }
}

/// The row of the file that holds Hugging Face's `row`: llama.cpp interleaves the two halves
/// of each query and key head, `h·d + t·d/2 + j  <-  h·d + 2j + t`.
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
        return input_error!(
            "{}: tensor `rope_freqs.weight` is {:?}; heads of {head_dim} make it [{}]",
            metadata.file,
            info.shape,
            head_dim / 2
        );
    }
    Ok(Some(out))
}
