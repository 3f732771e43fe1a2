//! Helpers that the tests of several crates share: access to the fixtures that `tools/fixtures`
//! makes, and random matrices. This crate is not published.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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
