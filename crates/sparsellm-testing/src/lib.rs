//! Helpers that the tests of several crates share: access to the fixtures that `tools/fixtures`
//! makes, random matrices, and an allocator that counts. This crate is not published.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod counting;

pub use counting::Counting;
use safetensors::SafeTensors;
use sparsellm_tensor::Matrix;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// The path of the fixture `relative`, relative to the folder of all fixtures.
pub fn fixture(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(relative)
}

/// The paths of all `.safetensors` files in a folder of fixtures, in order.
///
/// # Panics
/// If there are none.
pub fn cases(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(fixture(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {folder}");
    files
}

/// A test case in a safetensors file: metadata, and tensors as f64.
pub struct Case {
    /// The file's metadata.
    pub metadata: HashMap<String, String>,
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Case {
    /// Reads a test case.
    pub fn load(path: &Path) -> Case {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .tensors()
            .into_iter()
            .map(|(name, t)| {
                let values = match t.dtype() {
                    safetensors::Dtype::F32 => t
                        .data()
                        .chunks_exact(4)
                        .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                        .collect(),
                    safetensors::Dtype::F64 => t
                        .data()
                        .chunks_exact(8)
                        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
                        .collect(),
                    safetensors::Dtype::I64 => t
                        .data()
                        .chunks_exact(8)
                        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                        .collect(),
                    other => panic!("{name}: {other:?}"),
                };
                (name, (t.shape().to_vec(), values))
            })
            .collect();
        Case { metadata: header.metadata().clone().unwrap_or_default(), tensors }
    }

    /// The elements of a tensor, in row-major order.
    pub fn vector(&self, name: &str) -> Vec<f64> {
        self.tensors[name].1.clone()
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].0
    }

    /// A tensor as a matrix whose columns are its last dimension.
    pub fn matrix(&self, name: &str) -> Matrix {
        let (shape, values) = &self.tensors[name];
        let cols = *shape.last().unwrap();
        Matrix::new(values.len() / cols, cols, values.iter().map(|&v| v as f32).collect())
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The number under `key` in the metadata.
    pub fn number(&self, key: &str) -> f64 {
        self.metadata[key].parse().unwrap()
    }

    /// The setting under `key` in the metadata, if it is there and not empty.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// The path of the repository's folder of embedded models and texts.
pub fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

/// A random matrix of numbers between `-scale` and `scale`, determined by its seed.
pub fn random(rows: usize, cols: usize, seed: u32, scale: f32) -> Matrix {
    let mut rng = rand_mt::Mt::new(seed);
    let mut value = || scale * (rng.next_u32() as f32 / 2f32.powi(31) - 1.0);
    Matrix::new(rows, cols, (0..rows * cols).map(|_| value()).collect())
}

/// Copies the checkpoint in folder `from`, which has one safetensors file, to the new folder `to`,
/// and lets `edit` change the bytes of each tensor, given its name and its shape.
pub fn edited(from: &Path, to: &Path, mut edit: impl FnMut(&str, &[usize], &mut [u8])) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    let path = to.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        edit(&name, &info.shape, &mut bytes[8 + header + start..8 + header + end]);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Writes token ids below `vocabulary`, a text for models without a tokenizer, as `ids.npy` in
/// `folder`.
pub fn token_file(folder: &Path, vocabulary: usize) -> String {
    let values = random(1, 512, 3, 1.0).data;
    let ids: Vec<u8> = values
        .iter()
        .flat_map(|v| {
            (((v + 1.0) / 2.0 * vocabulary as f32) as i32 % vocabulary as i32).to_le_bytes()
        })
        .collect();
    let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (512,), }";
    let padded = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.extend(padded.as_bytes());
    bytes.extend(ids);
    let path = folder.join("ids.npy");
    std::fs::write(&path, bytes).unwrap();
    path.to_string_lossy().into_owned()
}
