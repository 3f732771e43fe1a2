//! Runs the command as a user does.
#![allow(clippy::unwrap_used)]
// Not every test uses all of these helpers.
#![allow(dead_code)]

pub mod hub;

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn asset(name: &str) -> String {
    repository().join("assets").join(name).display().to_string()
}

/// The path of a family's tiny checkpoint, which the library's tests use, too.
pub fn family(name: &str) -> PathBuf {
    repository().join("crates/sparsellm-testing/fixtures/families").join(name)
}

/// A `.npy` file with this type, shape and data.
pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

pub fn sparsellm(args: &[&str]) -> Output {
    sparsellm_command(args).output().unwrap()
}

pub fn sparsellm_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparsellm"));
    command.args(args);
    command
}

/// Runs the command, which must succeed, and returns the JSON document that it prints.
pub fn json(args: &[&str]) -> Value {
    let output = sparsellm(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All files of a checkpoint, with their contents.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| (p.file_name().unwrap().into(), fs::read(&p).unwrap())).collect()
}

/// The number of layers that the unfinished run on `out` has finished.
pub fn layers_done(out: &Path) -> usize {
    let name = format!(".sparsellm-partial-{}", out.file_name().unwrap().to_str().unwrap());
    let lines = fs::read_to_string(out.with_file_name(name).join("layers.jsonl"));
    lines.map_or(0, |text| text.matches('\n').count())
}
