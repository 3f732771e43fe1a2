//! The ids `sparsellm` gives strings: `tokenize FOLDER < strings.json` reads a
//! JSON array of strings and prints a JSON array of arrays of ids.

use sparsellm_base::{Error, Result};
use sparsellm_text::Tokenizer;
use std::{io::Read, path::Path};

fn main() -> Result<()> {
    let usage = || Error::Usage("usage: tokenize FOLDER".into());
    let folder = std::env::args().nth(1).ok_or_else(usage)?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|e| Error::io("stdin", e))?;
    let strings: Vec<String> = serde_json::from_str(&input)
        .map_err(|e| Error::Input(format!("stdin: not a JSON array of strings: {e}")))?;
    let tokenizer = Tokenizer::from_folder(Path::new(&folder))?;
    let ids = strings.iter().map(|s| tokenizer.encode(s)).collect::<Result<Vec<_>>>()?;
    println!("{}", serde_json::json!(ids));
    Ok(())
}
