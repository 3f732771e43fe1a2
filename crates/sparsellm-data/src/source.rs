//! Texts for calibration and measurement: the authors' three data sets, and files.

use crate::{
    hub::Hub,
    npy,
    rows::{Row, at, lines, rows},
    sampling::{Documents, draw, first, windows},
    texts::{Content, Contents, Texts, content},
};
use serde_json::Value;
use sparsellm_base::{Error, Observer, Result, input_error, refuse_lfs_pointer};
use sparsellm_text::{Segments, TokenizerFiles};
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
    /// The field of each row that holds its text; by default one of the usual ones.
    text_field: Option<String>,
    /// Whether this is one of the authors' data sets from the hub, with fields of its own.
    is_data_set: bool,
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
        if let Some(set) = data_set(argument) {
            let file = match purpose {
                Use::Calibration => set.train,
                Use::Evaluation => set.test,
            };
            let path = hub.dataset_file(set.id, file, observe)?;
            return Ok(Source { is_data_set: true, ..Source::new(set.protocol, path) });
        }
        let Some(rest) = argument.strip_prefix("hf://datasets/") else {
            return Source::file(argument);
        };
        check_kind(argument)?;
        let (id, path) = on_hub(rest)?;
        Ok(Source::new(Protocol::Plain, hub.dataset_file(&id, path, observe)?))
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
        Ok(Source::new(protocol, file.into()))
    }

    fn new(protocol: Protocol, path: PathBuf) -> Source {
        Source { protocol, path, text_field: None, is_data_set: false }
    }

    /// Takes the text of each row from the field of that name: a text, or a list of messages. By
    /// default it is the first of `text`, `sentence`, `messages` and `conversations` that is not
    /// null. The setting does not affect files without fields, or the authors' data sets when they
    /// are named.
    pub fn text_field(mut self, name: impl Into<Option<String>>) -> Source {
        self.text_field = name.into().filter(|_| !self.is_data_set);
        self
    }

    /// Draws `samples` calibration segments of `seq_len` tokens, as the authors' Python does
    /// for `seed`. Token ids in a `.npy` file are taken in order, without drawing; the rows of a
    /// 2-D array follow one another, so that those of `seq_len` tokens are the segments.
    ///
    /// `files` give the tokenizer if the source is text, and the chat template if its rows are
    /// conversations. `observe` is told of rows that are skipped.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or holds too little, and any error of
    /// `files` and `observe`.
    pub fn segments(
        &self,
        samples: usize,
        seq_len: usize,
        seed: u64,
        files: &dyn TokenizerFiles,
        observe: &mut Observer,
    ) -> Result<Segments> {
        if self.is("npy") {
            return self.named(first(&npy::read(&self.path)?, samples, seq_len));
        }
        if self.protocol == Protocol::C4 {
            let (mut documents, tokenizer) = (Documents::new()?, files.tokenizer()?);
            let mut texts = self.texts(files)?;
            texts.by_ref().try_for_each(|text| documents.push(&text?))?;
            texts.tell_of_nulls(observe)?;
            let encode = |text: &str| texts.encode(&tokenizer, text);
            return self.named(documents.draw(encode, samples, seq_len, seed));
        }
        let tokens = self.tokens(" ", usize::MAX, files, observe)?;
        self.named(draw(&tokens, samples, seq_len, seed))
    }

    /// The number of segments of `seq_len` tokens, if the file holds the segments themselves and
    /// none can be drawn beyond them.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn most_segments(&self, seq_len: usize) -> Result<Option<usize>> {
        match self.is("npy") {
            true => Ok(Some(npy::read(&self.path)?.len() / seq_len.max(1))),
            false => Ok(None),
        }
    }

    /// Cuts the text into windows of `seq_len` tokens, at most `max` of them.
    ///
    /// # Errors
    /// Fails as [`Source::segments`] does.
    pub fn windows(
        &self,
        seq_len: usize,
        max: Option<usize>,
        files: &dyn TokenizerFiles,
        observe: &mut Observer,
    ) -> Result<Segments> {
        if self.is("npy") {
            return self.named(windows(&npy::read(&self.path)?, seq_len, max));
        }
        let (separator, documents, most) = match self.protocol {
            Protocol::WikiText2 => ("\n\n", usize::MAX, None),
            Protocol::Plain | Protocol::Ptb => (" ", usize::MAX, None),
            Protocol::C4 => (" ", C4_DOCUMENTS, Some(C4_WINDOWS)),
        };
        let max = [max, most].into_iter().flatten().min();
        let tokens = self.tokens(separator, documents, files, observe)?;
        self.named(windows(&tokens, seq_len, max))
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

    /// The token ids of the first `most` rows, joined into one text.
    fn tokens(
        &self,
        separator: &str,
        most: usize,
        files: &dyn TokenizerFiles,
        observe: &mut Observer,
    ) -> Result<Vec<u32>> {
        let mut texts = self.texts(files)?;
        let all: Vec<String> = texts.by_ref().take(most).collect::<Result<_>>()?;
        texts.tell_of_nulls(observe)?;
        if all.iter().all(|text| text.trim().is_empty()) {
            return input_error!("{}: the file holds no text", self.path.display());
        }
        let text = all.join(texts.separator(separator));
        drop(all);
        texts.encode(&files.tokenizer()?, &text)
    }

    /// Reads the texts of the file's rows.
    fn texts<'a>(&'a self, files: &'a dyn TokenizerFiles) -> Result<Texts<'a>> {
        Ok(Texts::new(&self.path, self.contents()?, files))
    }

    /// Reads the file's rows. A text file is a single row, unless its lines are the rows of a
    /// data set.
    fn contents(&self) -> Result<Contents> {
        if !(self.is("txt") || self.is("raw")) {
            let (path, field) = (self.path.clone(), self.text_field.clone());
            return Ok(Box::new(rows::<Value>(&self.path)?.map(move |row| {
                let Row { number, value } = row?;
                let value = content(value, field.as_deref()).map_err(|e| at(&path, number, e))?;
                Ok(Row { number, value })
            })));
        }
        let lines = lines(&self.path)?;
        let each: fn(String) -> String = match self.protocol {
            Protocol::WikiText2 => wikitext_row,
            Protocol::Ptb => |line| line.trim().to_string(),
            Protocol::Plain | Protocol::C4 => {
                let text = lines.map(|line| line.map(|line| line.value)).collect::<Result<_>>()?;
                let row = Row { number: 1, value: Content::Text(text) };
                return Ok(Box::new(std::iter::once(Ok(row))));
            }
        };
        Ok(Box::new(lines.map(move |line| {
            let Row { number, value } = line?;
            Ok(Row { number, value: Content::Text(each(value)) })
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
        "{argument}: cannot tell what this is; give wikitext2, ptb, c4, hf://datasets/ORG/NAME/PATH, or a .txt (one text), .raw (a WikiText split), .jsonl, .json.gz or .parquet (a \"text\", \"sentence\" or \"messages\" field per row, or `text_field`) or .npy (token ids) file"
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
