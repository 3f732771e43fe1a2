//! Reading the fixtures that `tools/fixtures` makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code)]

use safetensors::SafeTensors;
use sparsellm::linalg::Matrix;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// The fixture at `relative`.
pub fn fixture(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(relative)
}

/// All files with extension `safetensors` in a fixture folder, in order.
pub fn cases(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(fixture(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {folder}");
    files
}

/// One safetensors file: its metadata and its tensors as f64.
pub struct Case {
    pub metadata: HashMap<String, String>,
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Case {
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

    pub fn vector(&self, name: &str) -> Vec<f64> {
        self.tensors[name].1.clone()
    }

    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].0
    }

    pub fn matrix(&self, name: &str) -> Matrix {
        let (shape, values) = &self.tensors[name];
        let cols = *shape.last().unwrap();
        Matrix::new(values.len() / cols, cols, values.iter().map(|&v| v as f32).collect())
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn number(&self, key: &str) -> f64 {
        self.metadata[key].parse().unwrap()
    }

    /// The case's pattern: `sparsity` or `pattern` in its metadata.
    pub fn pattern(&self) -> sparsellm::Pattern {
        match self.metadata.get("pattern").filter(|p| !p.is_empty()) {
            Some(pattern) => pattern.parse().unwrap(),
            None => sparsellm::Pattern::unstructured(self.number("sparsity")).unwrap(),
        }
    }
}
