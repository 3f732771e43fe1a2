//! An open GGUF model.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::architectures::{Architecture, Change, Role, find};
use super::dequantize::{Kind, dequantize};
use super::dimensions::Dimensions;
use super::metadata::Metadata;
use super::parts::{self, Part};
use super::reader::TensorInfo;
use sparsellm_base::{Result, input_error};

/// Reads of fewer elements are not worth spreading over threads.
pub(super) const PARALLEL: usize = 1 << 16;

/// An open GGUF model, in one file or several.
pub(crate) struct Gguf {
    /// Of the first file, which alone describes the model.
    pub(super) metadata: Metadata,
    /// Of the other files.
    pub(super) others: Vec<Metadata>,
    pub(super) architecture: &'static Architecture,
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
    /// The number of its file, and its place there.
    pub(super) file: usize,
    pub(super) bytes: Range<usize>,
    pub(super) change: Change,
}

impl Gguf {
    /// Opens and checks the model of which `path` is the file, or one of several.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is missing, damaged or truncated, or the
    /// model has an architecture that is not read, lacks a tensor, or stores one in an
    /// unsupported format.
    pub fn open(path: &Path) -> Result<Gguf> {
        Gguf::new(parts::open(path)?)
    }

    pub(super) fn new(parts: Vec<Part>) -> Result<Gguf> {
        let mut files = parts.into_iter();
        let Some(Part { metadata, tensors: first }) = files.next() else {
            return input_error!("a model of no files");
        };
        let mut infos: Vec<(usize, TensorInfo)> = first.into_iter().map(|info| (0, info)).collect();
        let mut others = Vec::new();
        for (number, part) in files.enumerate() {
            infos.extend(part.tensors.into_iter().map(|info| (number + 1, info)));
            others.push(part.metadata);
        }
        let file = &metadata.file;
        let key = "general.architecture";
        let architecture = find(metadata.required(key, metadata.text(key)?)?, file)?;
        let keys = metadata.keys(architecture.name);
        let dimensions = Dimensions::read(&keys, infos.iter().map(|(_, info)| info))?;
        let rope_factors = rope_factors((&metadata, &others), &infos, dimensions.head_dim)?;

        let mut tensors = Vec::with_capacity(infos.len());
        let mut index = HashMap::with_capacity(infos.len());
        for (number, info) in infos.into_iter().filter(|(_, info)| !is_derived(&info.name)) {
            let role = role(architecture, &dimensions, &info, file)?;
            if index.insert(role.name.clone(), tensors.len()).is_some() {
                return input_error!("{file}: tensor `{}` appears twice", info.name);
            }
            let (Role { name, change, .. }, TensorInfo { shape, kind, bytes, .. }) = (role, info);
            tensors.push(Tensor { name, shape, kind, file: number, bytes, change });
        }
        let mut required = architecture.required(dimensions.layers);
        if let Some(name) = required.find(|name| !index.contains_key(name)) {
            return input_error!("{file}: there is no tensor for `{name}`");
        }
        let info = |tensor: &Tensor| {
            let (shape, file) = (tensor.shape.clone(), tensor.file);
            (tensor.name.clone(), crate::TensorInfo { shape, dtype: architecture.dtype, file })
        };
        let infos = tensors.iter().map(info).collect();
        Ok(Gguf { metadata, others, architecture, dimensions, tensors, index, infos, rope_factors })
    }

    /// The files, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = &Metadata> {
        [&self.metadata].into_iter().chain(&self.others)
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
        let map = self.files().nth(tensor.file).map(|file| &file.map);
        let Some(data) = map.and_then(|map| map.get(tensor.bytes.clone())) else {
            return input_error!("{file}: the data of `{hf_name}` is not in the file");
        };

        let columns = tensor.columns();
        let read = |element: usize, out: &mut [f32]| {
            let row = tensor.change.source_row(element / columns, &self.dimensions);
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
        if tensor.change == Change::AddOne {
            out.iter_mut().for_each(|value| *value -= 1.0);
        }
        if good { Ok(()) } else { input_error!("{file}: the data of `{hf_name}` is cut short") }
    }
}

impl Tensor {
    /// The length of a row; of a bias, each element is the row of one output feature.
    fn columns(&self) -> usize {
        match (self.shape.as_slice(), self.change) {
            ([_], Change::None | Change::AddOne) | ([_, _, ..], _) => {
                self.shape.last().copied().unwrap_or(1).max(1)
            }
            _ => 1,
        }
    }
}

impl Change {
    /// The row of the file that holds Hugging Face's `row`.
    fn source_row(self, row: usize, d: &Dimensions) -> usize {
        match self {
            Change::None | Change::AddOne => row,
            // h·d + t·d/2 + j  <-  h·d + 2j + t
            Change::InterleaveQueries | Change::InterleaveKeys => {
                let (head, within) = (row / d.head_dim, row % d.head_dim);
                let (t, j) = (within / (d.head_dim / 2), within % (d.head_dim / 2));
                head * d.head_dim + 2 * j + t
            }
            // 3h·d + p·d + j  <-  p·heads·d + h·d + j
            Change::CollectHeads => {
                let (head, within) = (row / (3 * d.head_dim), row % (3 * d.head_dim));
                let (part, j) = (within / d.head_dim, within % d.head_dim);
                (part * d.heads + head) * d.head_dim + j
            }
        }
    }
}

/// Whether the tensor is a table computed from the configuration, and so not a weight.
fn is_derived(name: &str) -> bool {
    name == ROPE_FACTORS || name.ends_with(".attn_rot_embd.weight")
}

/// The table that llama.cpp bakes Llama 3's position scaling into.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The role of a tensor, whose shape must be the role's.
fn role(
    architecture: &Architecture,
    dimensions: &Dimensions,
    info: &TensorInfo,
    file: &str,
) -> Result<Role> {
    let Some(role) = architecture.role(&info.name, dimensions) else {
        return input_error!(
            "{file}: tensor `{}` has no place in a dense {} model of {} layers",
            info.name,
            architecture.name,
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
    Ok(role)
}

fn rope_factors(
    (first, others): (&Metadata, &[Metadata]),
    infos: &[(usize, TensorInfo)],
    head_dim: usize,
) -> Result<Option<Vec<f32>>> {
    let Some((number, info)) = infos.iter().find(|(_, info)| info.name == ROPE_FACTORS) else {
        return Ok(None);
    };
    let file = [first].into_iter().chain(others).nth(*number).unwrap_or(first);
    let data = file.map.get(info.bytes.clone()).unwrap_or_default();
    if info.shape == [head_dim / 2] {
        let mut out = vec![0.0; head_dim / 2];
        if dequantize(info.kind, data, 0, &mut out) {
            return Ok(Some(out));
        }
    }
    input_error!(
        "{}: tensor `{ROPE_FACTORS}` is {:?}; heads of {head_dim} make it [{}]",
        file.file,
        info.shape,
        head_dim / 2
    )
}
