//! Tests hostile files, with the command and with the functions that are fuzzed. Each file must be
//! read or refused with an error message, and take little memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "../../../fuzz/src/lib.rs"]
mod readers;

use common::{asset, family, npy, repository, sparsellm};
use flate2::{Compression, write::GzEncoder};
use std::{
    fs,
    io::Write,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use tempfile::TempDir;

const SAFETENSORS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A copy of a model in which one file is replaced. If that file holds weights, the copy has no
/// other weights.
fn model_with(temp: &Path, file: &str, bytes: &[u8]) -> String {
    let folder = temp.join("model");
    fs::create_dir(&folder).unwrap();
    let from = family(if file == INDEX { "llama-bf16-sharded" } else { "llama1" });
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !(file == "pytorch_model.bin" && name == SAFETENSORS) {
            fs::copy(&path, folder.join(name)).unwrap();
        }
    }
    fs::write(folder.join(file), bytes).unwrap();
    folder.display().to_string()
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// `of`, repeated many times and compressed.
fn gzip(of: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    (0..times).for_each(|_| encoder.write_all(of).unwrap());
    encoder.finish().unwrap()
}

/// An index whose `"weight_map"` has one tensor, in `file`.
fn index(file: &str) -> Vec<u8> {
    serde_json::json!({"weight_map": {"model.norm.weight": file}}).to_string().into_bytes()
}

/// A GGUF file of version 3 with these counts in its header, followed by `rest`.
fn gguf(tensors: u64, keys: u64, rest: &[u8]) -> Vec<u8> {
    [b"GGUF", &3u32.to_le_bytes()[..], &tensors.to_le_bytes(), &keys.to_le_bytes(), rest].concat()
}

fn gguf_string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn config(key: &str, value: serde_json::Value) -> Vec<u8> {
    let text = fs::read_to_string(family("llama1").join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config[key] = value;
    config.to_string().into_bytes()
}

/// The cases: the name of a file, its bytes, and words that the error message must have.
#[allow(clippy::too_many_lines)] // It is a table of cases.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let deep = "[".repeat(1_000_000).into_bytes();
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let one = |dtype: &str, shape: &str, offsets: &str, data: &[u8]| {
        let header = format!(
            r#"{{"model.norm.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#
        );
        safetensors(&header, data)
    };
    let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let huge_string = [&(1u64 << 63).to_le_bytes()[..], b"x"].concat();
    let dims = |dims: &[u64]| {
        let sizes: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
        let count = (dims.len() as u32).to_le_bytes();
        gguf(1, 0, &[&gguf_string("token_embd.weight")[..], &count, &sizes, &[0; 12]].concat())
    };
    let nested = {
        let (string, array) = (gguf_string("general.architecture"), 9u32.to_le_bytes());
        let level = [&array[..], &1u64.to_le_bytes()].concat();
        gguf(0, 1, &[&string[..], &array, &level.repeat(50_000)].concat())
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n".to_vec();
    let quantized = |key: &str, of: &str| config(key, serde_json::json!({"quant_method": of}));
    let row = b"{\"text\": \"a story of a story\"}\n";
    vec![
        (SAFETENSORS, Vec::new(), "safetensors"),
        (SAFETENSORS, (1u64 << 63).to_le_bytes().to_vec(), "safetensors"),
        (SAFETENSORS, safetensors(&"[".repeat(90_000), b""), "safetensors"),
        (SAFETENSORS, safetensors(two, &[0; 12]), "safetensors"),
        (SAFETENSORS, one("F32", "[2]", "[0,8]", b"1234"), "safetensors"),
        (SAFETENSORS, one("F32", "[2]", "[8,0]", &[0; 8]), "safetensors"),
        (SAFETENSORS, one("F32", "[9223372036854775808,2]", "[0,8]", &[0; 8]), "safetensors"),
        (SAFETENSORS, one("F32", "[4294967296,4294967296,4]", "[0,8]", &[0; 8]), "safetensors"),
        (SAFETENSORS, one("F32", "[2]", "[18446744073709551612,4]", &[0; 8]), "safetensors"),
        (SAFETENSORS, one("F32", "[64]", "[0,256]", &f32s(&[f32::NAN; 64])), "only 1 tensors"),
        (INDEX, index("../../x.safetensors"), "not a plain file name"),
        (INDEX, index("/etc/passwd"), "not a plain file name"),
        (INDEX, index(".."), "not a plain file name"),
        (INDEX, index(""), "not a plain file name"),
        (INDEX, index(INDEX), "safetensors"),
        (INDEX, index("config.json"), "safetensors"),
        (INDEX, index("gone.safetensors"), "gone.safetensors: this file of weights"),
        (INDEX, br#"{"weight_map": 3}"#.to_vec(), "weight_map"),
        (INDEX, br#"{"weight_map": {"a": 3}}"#.to_vec(), "not a plain file name"),
        (INDEX, deep.clone(), "not valid JSON"),
        ("pytorch_model.bin", Vec::new(), "pytorch_model.bin"),
        ("pytorch_model.bin", b"PK\x03\x04".repeat(1000), "pytorch_model.bin"),
        (
            "pytorch_model.bin",
            b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00trueR.".to_vec(),
            "pytorch_model.bin",
        ),
        ("config.json", deep.clone(), "not valid JSON"),
        ("config.json", b"{\"model_type\": \"llama\", \"hidden_size\": NaN}".to_vec(), "\"NaN\""),
        ("config.json", config("hidden_size", (1u64 << 63).into()), "hidden_size"),
        ("config.json", config("vocab_size", u64::MAX.into()), "vocab_size"),
        ("config.json", config("num_hidden_layers", 4_000_000_000u64.into()), "layers"),
        ("config.json", config("num_attention_heads", 0.into()), "num_attention_heads"),
        ("config.json", config("head_dim", (1u64 << 31).into()), "do not fit together"),
        ("config.json", config("rms_norm_eps", "1e-5".into()), "rms_norm_eps"),
        ("config.json", config("rms_norm_eps", (-1).into()), "rms_norm_eps"),
        (
            "config.json",
            config("rope_parameters", serde_json::json!({"rope_theta": {"deep": [1]}})),
            "rope_theta",
        ),
        ("config.json", quantized("quantization_config", "gptq"), "by gptq"),
        ("config.json", quantized("compression_config", "compressed-tensors"), "by compressed-"),
        (SAFETENSORS, pointer.clone(), "git-lfs pointer"),
        (INDEX, pointer.clone(), "git-lfs pointer"),
        ("pytorch_model.bin", pointer.clone(), "git-lfs pointer"),
        ("config.json", pointer.clone(), "git-lfs pointer"),
        ("ids.npy", pointer.clone(), "git-lfs pointer"),
        ("rows.jsonl", pointer.clone(), "git-lfs pointer"),
        ("tokenizer.json", pointer.clone(), "git-lfs pointer"),
        ("tokenizer.model", pointer.clone(), "git-lfs pointer"),
        ("model.gguf", pointer, "git-lfs pointer"),
        ("tokenizer.json", deep, "not a usable tokenizer"),
        ("tokenizer.json", b"{}".to_vec(), "not a usable tokenizer"),
        ("tokenizer.model", Vec::new(), "no pieces"),
        ("tokenizer.model", b"\x0a\xff\xff\xff\xff\x07<s>".to_vec(), "not a usable tokenizer"),
        ("tokenizer.model", b"IQ== 0\nIg== 1\n".to_vec(), "tiktoken"),
        ("tokenizer.model", bomb_of_merges(), "too many ways"),
        ("ids.npy", npy("<i4", "(9223372036854775808,)", &[0; 8]), "shape"),
        ("ids.npy", npy("<i8", "(4611686018427387904,)", &[]), "shape"),
        ("ids.npy", npy("<i4", "(-1,)", &[0; 8]), "one or two dimensions"),
        ("ids.npy", npy("<i4", "(2, 1, 1)", &[0; 8]), "one or two dimensions"),
        ("ids.npy", npy("|O", "(1,)", &[0; 8]), "must hold integers"),
        ("ids.npy", npy("<f4", "(2,)", &f32s(&[f32::NAN; 2])), "must hold integers"),
        ("ids.npy", npy("<i4", "(2,)", &(-1i64).to_le_bytes()), "no token id"),
        ("ids.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "header"),
        ("rows.parquet", b"PAR1\xff\xff\xff\x7fPAR1".to_vec(), "parquet"),
        ("rows.parquet", b"PAR1".to_vec(), "parquet"),
        // A compression bomb of one line, and one of many rows.
        ("rows.json.gz", gzip(&[b' '; 1 << 20], 200), "32 times"),
        ("rows.json.gz", gzip(&row.repeat(10_000), 100), "32 times"),
        ("rows.json.gz", [gzip(b"[", 1), gzip(&[b'1'; 1 << 20], 100)].concat(), "32 times"),
        ("rows.json.gz", gzip(row, 1)[..20].to_vec(), "row 1"),
        ("rows.jsonl", b"{\"text\": ".repeat(100_000), "row 1"),
        ("rows.jsonl", b"{\"text\": \"\xff\xfe\"}\n".to_vec(), "UTF-8"),
        ("model.gguf", Vec::new(), "gguf"),
        ("model.gguf", gguf(1 << 63, 0, b""), "gguf"),
        ("model.gguf", gguf(0, 1 << 63, b""), "gguf"),
        ("model.gguf", gguf(0, 1, &huge_string), "gguf"),
        ("model.gguf", nested, "gguf"),
        ("model.gguf", dims(&[1 << 63, 2]), "gguf"),
        ("model.gguf", dims(&[1 << 32, 1 << 32, 4, 4]), "gguf"),
        ("recipe.toml", b"title = [[[[".to_vec(), "recipe.toml"),
        (
            "recipe.toml",
            b"a = ".iter().chain(&b"[".repeat(100_000)).copied().collect(),
            "recipe.toml",
        ),
        ("recipe.toml", bomb_of_runs(), "more than 4096 runs"),
    ]
}

/// A SentencePiece BPE model of 4 MB, with gigabytes of merges: `a`, `aa`, `aaa` and so on.
fn bomb_of_merges() -> Vec<u8> {
    // Lengths take two bytes each, seven bits at a time.
    let field = |tag: u8, bytes: &[u8]| {
        let length = [(bytes.len() & 127) as u8 | 128, (bytes.len() >> 7) as u8];
        [&[tag], &length[..], bytes].concat()
    };
    let pieces = (1..3000).flat_map(|length| field(10, &field(10, &vec![b'a'; length])));
    pieces.chain(field(18, &[24, 2])).collect()
}

/// A recipe that asks for 10^12 runs.
fn bomb_of_runs() -> Vec<u8> {
    let list = |from: usize| (from..from + 1000).map(|i| format!("{i},")).collect::<String>();
    let lists =
        ["samples", "seq-len", "seed", "epochs"].map(|key| format!("{key} = [{}]", list(1)));
    format!("[evaluate]\ndata = [\"x.txt\"]\n[[grid]]\nmodel = \"m\"\n{}\n", lists.join("\n"))
        .into()
}

#[test]
fn constructed_files_are_refused_with_words() {
    let cases = cases();
    let (tried, mut failures) = (cases.len(), Vec::new());
    for (number, (file, bytes, words)) in cases.into_iter().enumerate() {
        let temp = TempDir::new().unwrap();
        let at = |name: &str| temp.path().join(name).display().to_string();
        let out = at("out");
        let extension = Path::new(file).extension().unwrap().to_str().unwrap();
        let output = match (file, extension) {
            (_, "gguf") => {
                fs::write(at(file), &bytes).unwrap();
                sparsellm(&["inspect", &at(file)])
            }
            (_, "toml") => {
                fs::write(at(file), &bytes).unwrap();
                sparsellm(&["sweep", &at(file), "--output", &out])
            }
            (_, "npy" | "parquet" | "gz" | "jsonl") => {
                fs::write(at(file), &bytes).unwrap();
                sparsellm(&["eval", &asset("tiny-llama"), "--data", &at(file), "--seq-len", "8"])
            }
            _ => {
                let model = model_with(temp.path(), file, &bytes);
                let text = asset("stories/calibration.txt");
                sparsellm(&[
                    "prune",
                    &model,
                    "--output",
                    &out,
                    "--calibration",
                    &text,
                    "--samples",
                    "2",
                    "--seq-len",
                    "16",
                ])
            }
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let case = format!("case {number}, {file} of {} bytes: {said}", bytes.len());
        let status = output.status.code();
        let refused = status == Some(1) || (extension == "toml" && status == Some(2));
        let told = said.contains("error: ") && said.contains(words) && said.len() < 2000;
        if !refused || !told || said.contains("panicked") || Path::new(&out).exists() {
            failures.push(format!("{words:?}: {case}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let peak = peak_of_children();
    eprintln!("{tried} bad files refused of {tried} tried, in at most {} MiB", peak >> 20);
    assert!(peak < 1 << 30, "{peak} bytes of memory");
}

/// The largest resident memory of any child so far.
fn peak_of_children() -> usize {
    // SAFETY: getrusage fills in the struct that it is given. All fields of the struct are numbers,
    // for which zero is a valid value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage
    };
    usage.ru_maxrss as usize * 1024
}

/// The files of one reader, from a folder beside the fuzz targets.
fn files_of(kind: &str, reader: &str) -> Vec<Vec<u8>> {
    let folder = repository().join("fuzz").join(kind).join(reader);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|p| fs::read(p).unwrap()).collect()
}

/// Fuzzes every reader for a short time and without feedback: it reads the seeds, the files that
/// once broke a reader, and damaged copies of both.
#[test]
fn damaged_copies_never_break_a_reader() {
    type Reader = (&'static str, fn(&[u8]));
    const READERS: [Reader; 13] = [
        ("safetensors", readers::safetensors),
        ("index", readers::index),
        ("pickle", readers::pickle),
        ("gguf", readers::gguf),
        ("config", readers::config),
        ("tokenizer", readers::tokenizer),
        ("sentencepiece", readers::sentencepiece),
        ("chat_template", readers::chat_template),
        ("npy", readers::npy),
        ("parquet", readers::parquet),
        ("gzip", readers::gzip),
        ("json_rows", readers::json_rows),
        ("recipe", readers::recipe),
    ];
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let copies = std::env::var("COPIES").map_or(200, |copies| copies.parse().unwrap());
    let mut rng = rand_mt::Mt::new(8);
    for (name, read) in READERS {
        let seeds = files_of("seeds", name);
        assert!(!seeds.is_empty(), "no seeds for {name}");
        for seed in seeds.iter().chain(&files_of("regressions", name)) {
            read(seed);
            RUNS.fetch_add(1, Relaxed);
        }
        for _ in 0..copies {
            let mut bytes = seeds[rng.next_u32() as usize % seeds.len()].clone();
            for _ in 0..=rng.next_u32() % 4 {
                damage(&mut bytes, &mut rng);
            }
            read(&bytes);
            RUNS.fetch_add(1, Relaxed);
        }
    }
    eprintln!("{} files read by {} readers", RUNS.load(Relaxed), READERS.len());
}

/// Makes one change: flips a bit, sets a byte or a length, removes a byte or the end, or repeats a
/// piece.
fn damage(bytes: &mut Vec<u8>, rng: &mut rand_mt::Mt) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.next_u32() as usize % bytes.len();
    match rng.next_u32() % 6 {
        0 => bytes[at] ^= 1 << (rng.next_u32() % 8),
        1 => bytes[at] = rng.next_u32() as u8,
        2 => {
            const LENGTHS: [u64; 6] = [0, 1, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX];
            let length = LENGTHS[rng.next_u32() as usize % LENGTHS.len()].to_le_bytes();
            let width = if rng.next_u32().is_multiple_of(2) { 4 } else { 8 };
            bytes.iter_mut().skip(at).zip(&length[..width]).for_each(|(b, l)| *b = *l);
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.remove(at)),
        _ => {
            let piece = bytes[at..bytes.len().min(at + 64)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}
