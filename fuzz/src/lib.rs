//! What each fuzz target does with its bytes: gives them to one reader as a file,
//! and goes on as the command would with what it made of them. An error is what
//! is wanted of a bad file; a panic, a hang or much memory is not.

use serde_json::json;
use sparsellm::{Model, Observer, Pruner, methods::Magnitude};
use sparsellm_checkpoint::Checkpoint;
use sparsellm_data::Source;
use sparsellm_eval::perplexity;
use sparsellm_ranks::Local;
use sparsellm_text::{Chat, ChatTemplate, Segments, Tokenizer};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tempfile::TempDir;

/// Elements read of one checkpoint: enough for all that a small file can hold, if
/// it does not hold the same bytes many times.
const ELEMENTS: usize = 1 << 22;

/// What tokenizers are tried on.
const TEXT: &str =
    "Once upon a time, there was a <s>little</s> girl; naïve \u{1F600} 日本\n\n  12345 \u{0}!";

/// `model.safetensors`.
pub fn safetensors(bytes: &[u8]) {
    checkpoint(&[("config.json", b"{}"), ("model.safetensors", bytes)]);
}

/// `model.safetensors.index.json`, with three shards beside it.
pub fn index(bytes: &[u8]) {
    const SHARDS: [(&str, &[u8]); 3] = [
        (
            "model-00001-of-00003.safetensors",
            fixture!("llama-bf16-sharded/model-00001-of-00003.safetensors"),
        ),
        (
            "model-00002-of-00003.safetensors",
            fixture!("llama-bf16-sharded/model-00002-of-00003.safetensors"),
        ),
        (
            "model-00003-of-00003.safetensors",
            fixture!("llama-bf16-sharded/model-00003-of-00003.safetensors"),
        ),
    ];
    let files =
        [&[("config.json", b"{}" as &[u8]), ("model.safetensors.index.json", bytes)], &SHARDS[..]]
            .concat();
    checkpoint(&files);
}

/// `pytorch_model.bin`.
pub fn pickle(bytes: &[u8]) {
    checkpoint(&[("config.json", b"{}"), ("pytorch_model.bin", bytes)]);
}

/// A `.gguf` file, its configuration and its tokenizer.
pub fn gguf(bytes: &[u8]) {
    let folder = folder(&[("model.gguf", bytes)]);
    let path = folder.join("model.gguf");
    read_all(&path);
    if let Ok(model) = Model::open(&path) {
        if let Ok(tokenizer) = Tokenizer::from_checkpoint(&model.checkpoint) {
            let _ = tokenizer.encode(TEXT);
        }
        run(&model);
    }
}

/// `config.json`, beside the weights of the family that the first byte picks: run,
/// and pruned.
pub fn config(bytes: &[u8]) {
    const WEIGHTS: [&[u8]; 8] = [
        fixture!("smollm2/model.safetensors"),
        fixture!("opt-no-bias/model.safetensors"),
        fixture!("qwen3/model.safetensors"),
        fixture!("mistral/model.safetensors"),
        fixture!("opt-gelu/model.safetensors"),
        fixture!("llama3/model.safetensors"),
        fixture!("gemma2/model.safetensors"),
        fixture!("gpt-neox/model.safetensors"),
    ];
    let Some((which, json)) = bytes.split_first() else { return };
    let weights = WEIGHTS[usize::from(*which) % WEIGHTS.len()];
    let folder = folder(&[("config.json", json), ("model.safetensors", weights)]);
    if let Ok(model) = Model::open(&folder) {
        run(&model);
        let _ = Pruner::for_model(&model).method(&Magnitude).write(&folder.join("pruned"));
    }
}

/// Tokenizer files: the first byte says which, and a zero byte separates them.
pub fn tokenizer(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let cut = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    let (first, second) = (&rest[..cut], rest.get(cut + 1..).unwrap_or_default());
    let folder = match which % 3 {
        0 => folder(&[("tokenizer.json", rest)]),
        1 => folder(&[("tokenizer.json", first), ("tokenizer_config.json", second)]),
        _ => {
            let config = br#"{"tokenizer_class": "Qwen2Tokenizer"}"#;
            folder(&[
                ("vocab.json", first),
                ("merges.txt", second),
                ("tokenizer_config.json", config),
            ])
        }
    };
    encode(&folder);
}

/// `tokenizer.model`, as the class that the first byte picks reads it.
pub fn sentencepiece(bytes: &[u8]) {
    const CONFIGS: [&[u8]; 3] = [
        b"{}",
        br#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true}"#,
        br#"{"added_tokens_decoder": {"3": {"content": "<s>"}}, "legacy": false}"#,
    ];
    let Some((which, model)) = bytes.split_first() else { return };
    let config = CONFIGS[usize::from(*which) % CONFIGS.len()];
    encode(&folder(&[("tokenizer.model", model), ("tokenizer_config.json", config)]));
}

/// Encodes with the tokenizer of a folder, if it has one.
fn encode(folder: &Path) {
    if let Ok(tokenizer) = Tokenizer::from_folder(folder) {
        let _ = tokenizer.encode(TEXT);
        let _ = tokenizer.encode_after_start(TEXT);
    }
}

/// `chat_template.jinja`, on a conversation with tools.
pub fn chat_template(bytes: &[u8]) {
    let folder = folder(&[
        ("chat_template.jinja", bytes),
        ("tokenizer_config.json", br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}}"#),
    ]);
    let Ok(template) = ChatTemplate::from_folder(&folder) else { return };
    let call = json!({"function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}, "id": "a1"});
    let messages = vec![
        json!({"role": "system", "content": "Be kind.\n"}),
        json!({"role": "user", "content": TEXT}),
        json!({"role": "assistant", "tool_calls": [call], "reasoning": "Hm."}),
        json!({"role": "tool", "content": "{}", "tool_call_id": "a1"}),
    ];
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let _ = template.render(&Chat { messages: messages.clone(), tools: None }, true);
    let _ = template.render(&Chat { messages, tools: Some(tools) }, false);
}

/// A `.npy` file of token ids.
pub fn npy(bytes: &[u8]) {
    text("ids.npy", bytes);
}

/// A `.parquet` file of texts.
pub fn parquet(bytes: &[u8]) {
    text("rows.parquet", bytes);
}

/// A `.json.gz` file of texts.
pub fn gzip(bytes: &[u8]) {
    text("rows.json.gz", bytes);
}

/// A `.jsonl` file of texts.
pub fn json_rows(bytes: &[u8]) {
    text("rows.jsonl", bytes);
}

/// A sweep's recipe.
pub fn recipe(bytes: &[u8]) {
    let folder = folder(&[("recipe.toml", bytes)]);
    let _ = sparsellm_cli::runs_of_recipe(&folder.join("recipe.toml"));
}

/// A folder with these files and no others; the last call's is emptied.
fn folder(files: &[(&str, &[u8])]) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let home = FOLDER.get_or_init(|| {
        // Files and libFuzzer's own forks aside, nothing runs here in parallel.
        rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("one pool");
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        made.expect("a temporary folder")
    });
    let folder = home.path().join("model");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).expect("a file");
    }
    folder
}

fn checkpoint(files: &[(&str, &[u8])]) {
    read_all(&folder(files));
}

fn read_all(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    let mut left = ELEMENTS;
    for (name, info) in checkpoint.tensors() {
        let Some(rest) = left.checked_sub(info.len()) else { continue };
        left = rest;
        let _ = checkpoint.vector(name);
        let _ = checkpoint.count_zeros(name);
    }
}

/// A forward pass over a few tokens.
fn run(model: &Model) {
    let windows = Segments::new(vec![1, 2, 3, 4], 4);
    if model.check_seq_len(4).is_ok() {
        let _ = perplexity(model, &windows, "windows", &Local, &mut Observer::silent());
    }
}

fn text(name: &str, bytes: &[u8]) {
    const WORDS: &[u8] = include_bytes!("../../assets/tiny-llama/tokenizer.json");
    const TEMPLATE: &[u8] = b"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let files =
        folder(&[(name, bytes), ("tokenizer.json", WORDS), ("chat_template.jinja", TEMPLATE)]);
    let path = files.join(name);
    let Ok(source) = Source::file(&path.to_string_lossy()) else { return }; // a git-lfs pointer
    let mut observe = Observer::silent();
    let _ = source.windows(8, Some(4), &files, &mut observe);
    let _ = source.segments(2, 8, 0, &files, &mut observe);
}

macro_rules! fixture {
    ($path:literal) => {
        include_bytes!(concat!("../../crates/sparsellm-testing/fixtures/families/", $path))
    };
}
use fixture;
