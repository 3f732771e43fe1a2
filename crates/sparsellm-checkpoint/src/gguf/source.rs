//! A GGUF model as a source of checkpoint tensors.

use super::file::Gguf;
use crate::{EmbeddedFiles, TensorInfo, TensorSource, folder::release};
use sparsellm_base::Result;
use std::{borrow::Cow, collections::BTreeMap, ops::Range, path::PathBuf};

impl TensorSource for Gguf {
    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.read_f32(name, range, out)
    }

    /// Always `None`: the stored form is quantized, and the output is written in 16 bits.
    fn bytes(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }

    fn weight_files(&self) -> Vec<PathBuf> {
        self.files().map(|file| file.file.clone().into()).collect()
    }

    fn embedded_files(&self) -> Result<Option<EmbeddedFiles>> {
        let config = format!("{:#}\n", self.config()?).into_bytes();
        let mut files = vec![("config.json".to_string(), config)];
        files.extend(self.tokenizer_files()?);
        Ok(Some(files))
    }

    fn release(&self) {
        self.files().for_each(|file| release(&file.map));
    }
}
