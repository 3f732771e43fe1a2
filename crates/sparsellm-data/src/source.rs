//! Texts for calibration and measurement: the authors' three data sets, and files.

use crate::{
    hub::Hub,
    npy,
    rows::{at, lines, rows},
    sampling::{Documents, draw, first, windows},
};
use serde::Deserialize;
use sparsellm_base::{Error, Observer, Result, input_error, refuse_lfs_pointer};
use sparsellm_text::{Segments, Tokenizer};
use std::path::PathBuf;

/// How a data set's rows are joined into one text, and how segments are drawn from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// A user's file: its rows are joined by spaces.
    Plain,
    /// Rows are joined by spaces for calibration, by blank lines for measurement.
    WikiText2,
    /// Rows are joined by spaces.
    Ptb,
    /// Each segment comes from a single document; measurement uses the first documents.
    C4,
}

/// How many documents of C4 are measured, and the maximum number of windows.
const C4_DOCUMENTS: usize = 1100;
const C4_WINDOWS: usize = 256;

/// The purpose of a text. A data set has a separate split for each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Calibration segments are drawn from it.
    Calibration,
    /// Perplexity is measured on it.
    Evaluation,
}

/// One of the authors' data sets: its name, its id on the hub, and the file there for each
/// use.
struct DataSet {
    name: &'static str,
    protocol: Protocol,
    id: &'static str,
    train: &'static str,
    test: &'static str,
}

const DATA_SETS: [DataSet; 3] = [
    DataSet {
        name: "wikitext2",
        protocol: Protocol::WikiText2,
        id: "Salesforce/wikitext",
        train: "wikitext-2-raw-v1/train-00000-of-00001.parquet",
        test: "wikitext-2-raw-v1/test-00000-of-00001.parquet",
    },
    DataSet {
        name: "ptb",
        protocol: Protocol::Ptb,
        id: "ptb-text-only/ptb_text_only@refs/convert/parquet",
        train: "penn_treebank/train/0000.parquet",
        test: "penn_treebank/test/0000.parquet",
    },
    DataSet {
        name: "c4",
        protocol: Protocol::C4,
        id: "allenai/c4",
        train: "en/c4-train.00000-of-01024.json.gz",
        test: "en/c4-validation.00000-of-00008.json.gz",
    },
];

fn data_set(name: &str) -> Option<&'static DataSet> {
    DATA_SETS.iter().find(|set| set.name == name)
}

/// A file of text, and how its rows become one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    protocol: Protocol,
    path: PathBuf,
}

/// A row of a text data set, under any of the usual field names.
#[derive(Deserialize)]
struct TextRow {
    text: Option<String>,
    sentence: Option<String>,
}

const KINDS: [&str; 8] =
    [".txt", ".raw", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".npy"];

impl Source {
    /// Finds a text by the name that a user gives: `wikitext2`, `ptb` or `c4`, from the hub;
    /// any other file on the hub as `hf://datasets/ORG/NAME/PATH` (or `ORG/NAME@REVISION` for
    /// another revision); or whatever [`Source::file`] accepts. Files missing from the cache
    /// are downloaded, and `observe` is told of the progress.
    ///
    /// # Errors
    /// Returns an error if the kind of file is not recognized, the hub does not provide it,
    /// or `observe` ends the download.
    pub fn find(argument: &str, purpose: Use, hub: &Hub, observe: &mut Observer) -> Result<Source> {
        let mut fetch = |protocol, id: &str, path: &str| {
            Ok(Source { protocol, path: hub.dataset_file(id, path, observe)? })
        };
        if let Some(set) = data_set(argument) {
            return match purpose {
                Use::Calibration => fetch(set.protocol, set.id, set.train),
                Use::Evaluation => fetch(set.protocol, set.id, set.test),
            };
        }
        let Some(rest) = argument.strip_prefix("hf://datasets/") else {
            return Source::file(argument);
        };
        check_kind(argument)?;
        let (id, path) = on_hub(rest)?;
        fetch(Protocol::Plain, &id, path)
    }

    /// Takes a file's path, or `NAME:FILE` for a file that is a split of the data set `NAME`
    /// (`wikitext2`, `ptb` or `c4`). A `.raw` file is a split of WikiText.
    ///
    /// # Errors
    /// Returns an error if the kind of file is not recognized, or a git-lfs pointer stands in
    /// its place.
    pub fn file(argument: &str) -> Result<Source> {
        let split = argument.split_once(':').and_then(|(name, file)| Some((data_set(name)?, file)));
        let (protocol, file) = match split {
            Some((set, file)) => (set.protocol, file),
            None if argument.ends_with(".raw") => (Protocol::WikiText2, argument),
            None => (Protocol::Plain, argument),
        };
        check_kind(argument)?;
        refuse_lfs_pointer(file.as_ref())?;
        Ok(Source { protocol, path: file.into() })
    }

    /// Draws `samples` calibration segments of `seq_len` tokens, as the authors' Python does
    /// for `seed`. Token ids in a `.npy` file are taken in order, without drawing.
    /// `tokenizer` is called only if the source is text.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or holds too little, and any error of
    /// `tokenizer`.
    pub fn segments(
        &self,
        samples: usize,
        seq_len: usize,
        seed: u64,
        tokenizer: impl FnOnce() -> Result<Tokenizer>,
    ) -> Result<Segments> {
        if self.is("npy") {
            return self.named(first(&npy::read(&self.path)?, samples, seq_len));
        }
        if self.protocol == Protocol::C4 {
            let (mut documents, tokenizer) = (Documents::new()?, tokenizer()?);
            self.texts()?.try_for_each(|text| documents.push(&text?))?;
            let encode = |text: &str| tokenizer.encode(text);
            return self.named(documents.draw(encode, samples, seq_len, seed));
        }
        let text = self.joined(" ", usize::MAX)?;
        self.named(draw(&tokenizer()?.encode(&text)?, samples, seq_len, seed))
    }

    /// Cuts the text into windows of `seq_len` tokens, at most `max` of them.
    ///
    /// # Errors
    /// Fails as [`Source::segments`] does.
    pub fn windows(
        &self,
        seq_len: usize,
        max: Option<usize>,
        tokenizer: impl FnOnce() -> Result<Tokenizer>,
    ) -> Result<Segments> {
        if self.is("npy") {
            return self.named(windows(&npy::read(&self.path)?, seq_len, max));
        }
        let (text, most) = match self.protocol {
            Protocol::WikiText2 => (self.joined("\n\n", usize::MAX)?, None),
            Protocol::Plain | Protocol::Ptb => (self.joined(" ", usize::MAX)?, None),
            Protocol::C4 => (self.joined(" ", C4_DOCUMENTS)?, Some(C4_WINDOWS)),
        };
        let max = [max, most].into_iter().flatten().min();
        self.named(windows(&tokenizer()?.encode(&text)?, seq_len, max))
    }

    fn is(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|e| e == extension)
    }

    /// Adds the file's name to an error.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| match e {
            Error::Input(what) => Error::Input(format!("{}: {what}", self.path.display())),
            other => other,
        })
    }

    /// Joins the first `most` rows into one text.
    fn joined(&self, separator: &str, most: usize) -> Result<String> {
        let texts: Vec<String> = self.texts()?.take(most).collect::<Result<_>>()?;
        if texts.iter().all(|text| text.trim().is_empty()) {
            return input_error!("{}: the file holds no text", self.path.display());
        }
        Ok(texts.join(separator))
    }

    /// Reads the file's rows. A text file is a single row, unless its lines are the rows of a
    /// data set.
    fn texts(&self) -> Result<Box<dyn Iterator<Item = Result<String>>>> {
        if self.is("txt") || self.is("raw") {
            let lines = lines(&self.path)?.map(|line| line.map(|line| line.value));
            return Ok(match self.protocol {
                Protocol::WikiText2 => Box::new(lines.map(|line| line.map(wikitext_row))),
                Protocol::Ptb => Box::new(lines.map(|line| line.map(|l| l.trim().to_string()))),
                Protocol::Plain | Protocol::C4 => Box::new(std::iter::once(lines.collect())),
            });
        }
        let path = self.path.clone();
        Ok(Box::new(rows::<TextRow>(&path)?.map(move |row| {
            let row = row?;
            let text = row.value.text.or(row.value.sentence);
            text.ok_or_else(|| at(&path, row.number, "no \"text\" or \"sentence\" field"))
        })))
    }
}

/// Splits `ORG/NAME/PATH` or `ORG/NAME@REVISION/PATH` into the data set's id with its
/// revision, and the path in it. A revision that is a ref contains slashes itself.
fn on_hub(text: &str) -> Result<(String, &str)> {
    let hint = || {
        let what = "not a file on the hub; hf://datasets/ORG/NAME/PATH was expected";
        Error::Usage(format!("hf://datasets/{text}: {what}"))
    };
    let mut parts = text.splitn(3, '/');
    let (Some(org), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(hint());
    };
    if !name.ends_with("@refs") {
        return Ok((format!("{org}/{name}"), path));
    }
    let mut parts = path.splitn(3, '/');
    let (Some(kind), Some(which), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(hint());
    };
    Ok((format!("{org}/{name}/{kind}/{which}"), path))
}

fn check_kind(argument: &str) -> Result<()> {
    if KINDS.iter().any(|kind| argument.ends_with(kind)) {
        return Ok(());
    }
    input_error!(
        "{argument}: cannot tell what this is; give wikitext2, ptb, c4, hf://datasets/ORG/NAME/PATH, or a .txt (one text), .raw (a WikiText split), .jsonl, .json.gz or .parquet (a \"text\" or \"sentence\" field per row) or .npy (token ids) file"
    )
}

/// Converts a line to a row as in the hub's `wikitext-2-raw-v1`: `""` for a blank line, and
/// any other line with its newline.
fn wikitext_row(line: String) -> String {
    if line.trim().is_empty() { String::new() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_on_the_hub_are_named_as_python_names_them() {
        let parts = |text| on_hub(text).unwrap();
        assert_eq!(parts("allenai/c4/en/a.json.gz"), ("allenai/c4".into(), "en/a.json.gz"));
        let (id, path) = parts("org/set@refs/convert/parquet/default/train/0000.parquet");
        assert_eq!(
            (id.as_str(), path),
            ("org/set@refs/convert/parquet", "default/train/0000.parquet")
        );
        assert!(on_hub("org/set").is_err() && on_hub("org/set@refs/convert/x").is_err());
    }

    #[test]
    fn wikitext_rows_are_the_hubs() {
        let rows =
            [" \n", " = Title = \n", " \n", " Text \n"].map(|line| wikitext_row(line.into()));
        assert_eq!(rows, ["", " = Title = \n", "", " Text \n"]);
    }
}
