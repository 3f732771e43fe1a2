//! The ids `sparsellm` gives strings: `tokenize FOLDER < strings.json` reads a
//! JSON array of strings and prints a JSON array of arrays of ids.

use sparsellm::{Error, Result, Tokenizer};
use std::{io::Read, path::Path};

fn main() -> Result<()> {
    let invalid = |what: &str| Error::Invalid(what.into());
    let folder = std::env::args().nth(1).ok_or_else(|| invalid("usage: tokenize FOLDER"))?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|e| Error::io("stdin", e))?;
    let strings: Vec<String> = serde_json::from_str(&input)
        .map_err(|e| Error::Invalid(format!("stdin: not a JSON array of strings: {e}")))?;
    let tokenizer = Tokenizer::of_folder(Path::new(&folder))?;
    let ids = strings.iter().map(|s| tokenizer.encode(s)).collect::<Result<Vec<_>>>()?;
    println!("{}", serde_json::json!(ids));
    Ok(())
}
