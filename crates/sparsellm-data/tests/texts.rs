//! Texts are read alike from every format, joined as the data sets' authors
//! join them, and what is wrong with a file is said with file and row.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use sparsellm_base::{Observer, Result};
use sparsellm_data::Source;
use sparsellm_testing::{assets, fixture};
use sparsellm_text::{Segments, Tokenizer};
use std::path::PathBuf;

const ROWS: [&str; 4] =
    [" = A small title = \n", "", " The cat sat on the mat . \n", " Où est le café ? \n"];

/// The folder of the tokenizer.
fn model() -> PathBuf {
    assets().join("tiny-llama")
}

fn windows(argument: &str) -> Result<Segments> {
    Source::file(argument)?.windows(1, None, &model(), &mut Observer::silent())
}

fn segments(argument: &str, samples: usize, seq_len: usize, seed: u64) -> Segments {
    let (source, observe) = (Source::file(argument).unwrap(), &mut Observer::silent());
    source.segments(samples, seq_len, seed, &model(), observe).unwrap()
}

fn ids(text: &str) -> Vec<u32> {
    Tokenizer::from_folder(&model()).unwrap().encode(text).unwrap()
}

fn path(file: &str) -> String {
    fixture("texts").join(file).display().to_string()
}

#[test]
fn every_format_gives_the_same_text() {
    let files = ["rows.jsonl", "rows.json", "rows.json.gz"];
    let codecs = ["snappy", "zstd", "gzip", "lz4", "none"].map(|c| format!("{c}.parquet"));
    for file in files.iter().map(|f| f.to_string()).chain(codecs) {
        let file = path(&file);
        assert_eq!(windows(&file).unwrap().tokens, ids(&ROWS.join(" ")), "{file}");
        for (name, separator) in [("wikitext2", "\n\n"), ("ptb", " "), ("c4", " ")] {
            let got = windows(&format!("{name}:{file}")).unwrap();
            assert_eq!(got.tokens, ids(&ROWS.join(separator)), "{name} {file}");
        }
    }
    // A text file of lines, under each protocol.
    let raw = path("rows.raw");
    assert_eq!(windows(&raw).unwrap().tokens, ids(&ROWS.join("\n\n")));
    let calibration = segments(&raw, 1, 30, 0);
    let all = ids(&ROWS.join(" "));
    assert!(all.windows(30).any(|w| w == calibration.tokens), "joined by spaces to calibrate");
    let sentences = ROWS.map(str::trim).join(" ");
    assert_eq!(windows(&format!("ptb:{raw}")).unwrap().tokens, ids(&sentences));
}

#[test]
fn c4_is_measured_on_its_first_documents_and_windows() {
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    let rows = (0..1200).map(|i| format!("{{\"text\":\"document {i}\"}}\n"));
    std::fs::write(file.path(), rows.collect::<String>()).unwrap();
    let argument = format!("c4:{}", file.path().display());
    let text: Vec<String> = (0..1100).map(|i| format!("document {i}")).collect();
    let all = ids(&text.join(" "));
    assert_eq!(windows(&argument).unwrap().tokens, all[..256]);
    let source = Source::file(&argument).unwrap();
    let twenty = source.windows(20, None, &model(), &mut Observer::silent()).unwrap();
    assert_eq!(twenty.tokens, all[..256 * 20]);
    // A calibration segment is part of one document.
    let drawn = segments(&argument, 5, 3, 1);
    let documents: Vec<Vec<u32>> = (0..1200).map(|i| ids(&format!("document {i}"))).collect();
    for segment in drawn.tokens.chunks(3) {
        assert!(documents.iter().any(|d| d.windows(3).any(|w| w == segment)));
    }
}

/// The error for a file with this name and these bytes.
fn error(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    let message = windows(&file.display().to_string()).unwrap_err().to_string();
    assert!(message.starts_with(&file.display().to_string()), "{message}");
    message
}

#[test]
fn errors_name_file_and_row() {
    let good = "{\"text\": \"one\"}\n";
    let gz = std::fs::read(path("rows.json.gz")).unwrap();
    for (name, bytes, says) in [
        ("a.jsonl", format!("{good}\n{{\"txt\": \"two\"}}\n").into_bytes(), "row 3: no \"text\""),
        (
            "a.jsonl",
            format!("{good}{{\"text\": 5}}\n").into_bytes(),
            "row 2: not a row of this kind",
        ),
        ("a.jsonl", format!("{good}{{\"text\": ").into_bytes(), "row 2: not valid JSON by itself"),
        (
            "a.jsonl",
            [good.as_bytes(), b"{\"text\": \"\xff\"}\n"].concat(),
            "row 2: not UTF-8 text (byte 10",
        ),
        ("a.json", b"[{\"text\": \"one\"}, {\"n\": 1}]".to_vec(), "row 2: no \"text\""),
        (
            "a.json",
            b"[{\"text\": \"one\"},\n {\"n\": 1}".to_vec(),
            "line 2: not a valid JSON array",
        ),
        ("a.txt", b"one\ntwo \xff\n".to_vec(), "row 2: not UTF-8 text (byte 4"),
        ("a.raw", b"one\n\xfftwo\n".to_vec(), "row 2: not UTF-8 text (byte 0"),
        ("a.txt", b"".to_vec(), "holds no text"),
        ("a.jsonl", b"\n\n".to_vec(), "holds no text"),
        ("a.json.gz", b"".to_vec(), "row 1: damaged or truncated .gz data"),
        ("a.json", b"[]".to_vec(), "holds no text"),
        ("a.json.gz", b"no gzip at all".to_vec(), "row 1: damaged or truncated .gz data"),
        ("a.json.gz", gz[..gz.len() / 2].to_vec(), "damaged or truncated .gz data"),
        ("a.parquet", b"PAR1 and no more".to_vec(), "damaged or unreadable parquet"),
        ("a.parquet", b"".to_vec(), "damaged or unreadable parquet"),
    ] {
        let message = error(name, &bytes);
        assert!(message.contains(says), "{name}: {message}");
    }
    assert!(windows("text.docx").unwrap_err().to_string().contains("cannot tell"));
}

#[test]
fn a_file_cut_anywhere_is_refused_or_shorter() {
    for name in ["rows.json.gz", "snappy.parquet", "zstd.parquet"] {
        let whole = std::fs::read(path(name)).unwrap();
        for length in 1..whole.len() {
            error(name, &whole[..length]);
        }
    }
}

/// The parquet crate asserts what a damaged file does not keep.
#[test]
fn every_damaged_byte_is_an_error_or_harmless() {
    let whole = std::fs::read(path("none.parquet")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.parquet");
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = 221;
        std::fs::write(&file, bytes).unwrap();
        if let Err(e) = windows(&file.display().to_string()) {
            assert!(e.to_string().starts_with(&file.display().to_string()), "byte {at}: {e}");
            refused += 1;
        }
    }
    assert!(refused > whole.len() / 4, "{refused}");
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        name in proptest::sample::select(vec!["rows.json.gz", "snappy.parquet", "none.parquet", "rows.json"]),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = std::fs::read(path(name)).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let _ = windows(&file.display().to_string());
    }
}
