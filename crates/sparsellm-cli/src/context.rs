//! The context of every command: the hub, the ranks, and the functions that print.

use sparsellm::{Error, Hub, Result};
use sparsellm_ranks::Communicator;
use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

/// The inputs of a command besides its arguments.
pub struct Context {
    pub hub: Hub,
    pub ranks: Box<dyn Communicator>,
}

/// Whether this rank prints nothing: all ranks but the first print only their errors.
pub fn silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

pub static SILENT: AtomicBool = AtomicBool::new(false);

/// Prints a line to stderr.
pub fn note(text: &str) {
    if !silent() {
        eprintln!("{text}");
    }
}

/// Prints to stdout. It is not an error if the reader of a pipe has closed it.
pub fn print(text: &str) -> Result<()> {
    if silent() {
        return Ok(());
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("stdout", e)),
        _ => Ok(()),
    }
}

/// Prints the one JSON document of `--json`.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&json_text(value)?)
}

/// A value as JSON with line breaks and indentation, for people to read.
pub fn json_text(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|e| Error::Input(format!("cannot write JSON: {e}")))
}
