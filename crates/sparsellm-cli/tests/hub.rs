//! Tests models by id against a small hub on loopback.
#![allow(clippy::unwrap_used)]

mod common;

use common::hub::{COMMIT, Hub, Rules, files_of, git_hash, sha256};
use common::{asset, repository};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

const ID: &str = "test/tiny-llama";
const INSPECT: [&str; 3] = ["inspect", ID, "--json"];
const WEIGHTS: &str = "model.safetensors";

fn tiny_llama(rules: Rules) -> Hub {
    let mut files = files_of(&asset("tiny-llama"));
    for (name, bytes) in [
        ("LICENSE", "Do what you like"),
        ("pytorch_model.bin", "never asked for"),
        ("tf_model.h5", "nor this"),
        ("onnx/config.json", "nor this"),
    ] {
        files.push((name.into(), bytes.into()));
    }
    Hub::serve(&format!("models/{ID}"), files, rules)
}

/// The JSON document that a run printed. The run must have succeeded.
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asserts that a run ended with status 1 and printed all of `words` on stderr.
fn refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    assert!(output.stdout.is_empty() && !text.contains("panicked"), "{text}");
}

fn repo(home: &Path) -> PathBuf {
    home.join("hub/models--test--tiny-llama")
}

fn names(folder: PathBuf) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_by_id_is_the_model_and_is_downloaded_once() {
    let (temp, hub) = (TempDir::new().unwrap(), tiny_llama(Rules::default()));
    let home = temp.path();
    let first = hub.run(home, &INSPECT);
    let local = json(&common::sparsellm(&["inspect", &asset("tiny-llama"), "--json"]));
    let report = json(&first);
    assert_eq!((&report["model"], &report["tensors"]), (&Value::from(ID), &local["tensors"]));
    let told = String::from_utf8(first.stderr).unwrap();
    assert_eq!(told.lines().count(), 5, "a line a file: {told}");
    assert!(hub.requests().iter().all(|r| r.token.is_none()));

    // The cache has the layout of Python's `huggingface_hub`: files named by their hashes, relative
    // links to them, and the commit of the branch.
    let snapshot = repo(home).join("snapshots").join(COMMIT);
    let files = ["LICENSE", "config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names(snapshot.clone()), files);
    assert_eq!(std::fs::read_to_string(repo(home).join("refs/main")).unwrap(), COMMIT);
    let blob = sha256(&std::fs::read(snapshot.join(WEIGHTS)).unwrap());
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(snapshot.join(WEIGHTS)).unwrap(),
        Path::new("../../blobs").join(&blob)
    );
    assert_eq!(names(repo(home).join("blobs")).len(), 5);

    json(&hub.run(home, &INSPECT));
    let again = hub.requests();
    assert!(again.len() == 1 && again[0].path.starts_with("/api/models/"), "{again:?}");

    let text = asset("stories/test.txt");
    let eval = ["--data", &text, "--seq-len", "64", "--max-windows", "2", "--json"];
    let evaluated = |model: &str, offline: &[(&str, &str)], flag: &[&str]| {
        let args = [&["eval", model], &eval[..], flag].concat();
        json(&hub.run_with(home, &args, offline))["results"].clone()
    };
    let expected = evaluated(&asset("tiny-llama"), &[], &[]);
    assert_eq!(evaluated(ID, &[], &["--offline"]), expected);
    assert_eq!(evaluated(ID, &[("HF_HUB_OFFLINE", "1")], &[]), expected);
    assert_eq!(evaluated(&format!("{ID}@{COMMIT}"), &[], &["--offline"]), expected);
    assert!(hub.requests().is_empty(), "offline is offline");
    // Without a network, the cached files are used, with a warning.
    let dead = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    let output = hub.run_with(home, &INSPECT, &dead);
    assert_eq!(json(&output)["tensors"], local["tensors"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("warning"));

    let out = home.join("out");
    let prune = ["prune", ID, "--method", "magnitude", "--output", out.to_str().unwrap()];
    assert!(hub.run(home, &prune).status.success());
    assert_eq!(names(out), [&files[..3], &["report.html", "sparsellm.json"], &files[3..]].concat());
}

#[test]
fn what_is_not_there_is_said() {
    let (temp, hub) = (TempDir::new().unwrap(), tiny_llama(Rules::default()));
    let home = temp.path();
    let inspect = |model: &str| hub.run(home, &["inspect", model]);
    refused(&inspect("test/tiny-lama"), &["test/tiny-lama: no such model", "check the spelling"]);
    refused(&inspect("no-folder"), &["no-folder: no such model", "nor is there a file or folder"]);
    refused(&inspect(&format!("{ID}@v9")), &["no branch, tag or commit v9"]);
    hub.requests();
    refused(&hub.run(home, &["inspect", ID, "--offline"]), &[ID, "--offline", "HF_HOME"]);
    assert!(hub.requests().is_empty() && names(home.to_path_buf()).is_empty());
    let dead = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    refused(&hub.run_with(home, &INSPECT, &dead), &["cannot be reached", "HF_ENDPOINT"]);
    // A web server that is not a hub is refused.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
    });
    for endpoint in [&*url, "no url"] {
        let output = hub.run_with(home, &INSPECT, &[("HF_ENDPOINT", endpoint)]);
        refused(&output, &[endpoint, "check HF_ENDPOINT"]);
    }
}

#[test]
fn a_gated_model_needs_the_right_token() {
    let rules = Rules { token: Some("hf_secret"), ..Rules::default() };
    let (temp, hub) = (TempDir::new().unwrap(), tiny_llama(rules));
    let home = temp.path();
    let page = format!("{}/{ID}", hub.url());
    refused(&hub.run(home, &INSPECT), &["gated", "set HF_TOKEN", &page]);
    let wrong = hub.run_with(home, &INSPECT, &[("HF_TOKEN", "hf_wrong")]);
    refused(&wrong, &["gated", "was refused", &page]);
    assert!(!String::from_utf8(wrong.stderr).unwrap().contains("hf_wrong"), "a token is a secret");
    assert!(names(repo(home).join("blobs")).is_empty());
    let broken = hub.run_with(home, &INSPECT, &[("HF_TOKEN", "hf\tsecret")]);
    assert_eq!(broken.status.code(), Some(2));
    hub.requests();

    json(&hub.run_with(home, &INSPECT, &[("HF_TOKEN", "hf_secret\n")]));
    let (storage, own): (Vec<_>, Vec<_>) = hub.requests().into_iter().partition(|r| r.at_storage);
    assert!(own.iter().all(|r| r.token.as_deref() == Some("Bearer hf_secret")), "{own:?}");
    assert!(!storage.is_empty() && storage.iter().all(|r| r.token.is_none()), "{storage:?}");

    let temp = TempDir::new().unwrap();
    std::fs::write(temp.path().join("token"), "hf_secret\n").unwrap();
    json(&hub.run(temp.path(), &INSPECT));
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_ended() {
    let weights = std::fs::read(Path::new(&asset("tiny-llama")).join(WEIGHTS)).unwrap();
    let (size, piece) = (weights.len(), 1_000_000);
    let ranges = |hub: &Hub| -> Vec<Option<String>> {
        hub.requests().into_iter().filter(|r| r.at_storage).map(|r| r.range).collect()
    };
    let from = |byte: usize| Some(format!("bytes={byte}-"));
    let snapshot = |home: &Path| repo(home).join("snapshots").join(COMMIT).join(WEIGHTS);

    // A broken download continues within one run.
    let cut = Rules { cut_at: piece, cuts: 2, ..Rules::default() };
    let (temp, hub) = (TempDir::new().unwrap(), tiny_llama(cut));
    json(&hub.run(temp.path(), &INSPECT));
    assert_eq!(ranges(&hub), [None, from(piece), from(piece)]);
    assert_eq!(std::fs::read(snapshot(temp.path())).unwrap(), weights);

    // A broken download continues in the next run.
    let temp = TempDir::new().unwrap();
    let home = temp.path();
    hub.set(Rules { cut_at: piece, cuts: usize::MAX, ..Rules::default() });
    let broke = format!("broke at byte {piece} of {size} of {WEIGHTS}");
    refused(&hub.run(home, &INSPECT), &[&broke, "run the command again"]);
    let partial = repo(home).join("blobs").join(format!("{}.incomplete", sha256(&weights)));
    assert_eq!(std::fs::read(&partial).unwrap().len(), piece);
    refused(&hub.run(home, &["inspect", ID, "--offline"]), &["--offline"]);
    hub.set(Rules::default());
    ranges(&hub);
    json(&hub.run(home, &INSPECT));
    assert_eq!(ranges(&hub), [from(piece)]);
    assert_eq!(std::fs::read(snapshot(home)).unwrap(), weights);
    assert!(!partial.exists());

    // It starts anew if the server supports no ranges, or if the partial file is longer than the
    // whole file.
    for (left, rules) in
        [(piece, Rules { no_ranges: true, ..Rules::default() }), (size + 1, Rules::default())]
    {
        let temp = TempDir::new().unwrap();
        let blobs = repo(temp.path()).join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(partial.file_name().unwrap()), vec![1; left]).unwrap();
        hub.set(rules);
        json(&hub.run(temp.path(), &INSPECT));
        assert_eq!(std::fs::read(snapshot(temp.path())).unwrap(), weights);
    }
}

#[test]
fn a_damaged_file_never_gets_its_name() {
    for file in [WEIGHTS, "config.json"] {
        let rules = Rules { damaged: Some(file), ..Rules::default() };
        let (temp, hub) = (TempDir::new().unwrap(), tiny_llama(rules));
        refused(&hub.run(temp.path(), &INSPECT), &[file, "damaged", "announced"]);
        let blobs = repo(temp.path()).join("blobs");
        for name in names(blobs.clone()) {
            let bytes = std::fs::read(blobs.join(&name)).unwrap();
            assert!([sha256(&bytes), git_hash(&bytes)].contains(&name), "{name}");
        }
        assert!(!repo(temp.path()).join("snapshots").join(COMMIT).join(file).exists());
        hub.set(Rules::default());
        json(&hub.run(temp.path(), &INSPECT));
    }
}

#[test]
fn all_weight_layouts_are_found_and_hostile_names_refused() {
    let fixture = |name: &str| {
        let folder = repository().join("crates/sparsellm-testing/fixtures/families").join(name);
        folder.display().to_string()
    };
    for (name, weights) in
        [("llama-bf16-sharded", 3), ("opt-125m-style-bin", 1), ("opt-125m-style-bin-sharded", 2)]
    {
        let local = json(&common::sparsellm(&["inspect", &fixture(name), "--json"]));
        let hub = Hub::serve("models/m", files_of(&fixture(name)), Rules::default());
        let temp = TempDir::new().unwrap();
        let report = json(&hub.run(temp.path(), &["inspect", "m@refs/pr/1", "--json"]));
        assert_eq!(report["tensors"], local["tensors"], "{name}");
        let offline = hub.run(temp.path(), &["inspect", "m@refs/pr/1", "--json", "--offline"]);
        assert_eq!(json(&offline)["tensors"], local["tensors"], "{name}");
        let snapshot = names(temp.path().join("hub/models--m/snapshots").join(COMMIT));
        let is_weight = |n: &&String| n.ends_with(".safetensors") || n.ends_with(".bin");
        assert_eq!(snapshot.iter().filter(is_weight).count(), weights, "{snapshot:?}");

        // With one shard missing, the cache no longer holds the model.
        let gone = snapshot.iter().find(is_weight).unwrap();
        std::fs::remove_file(temp.path().join("hub/models--m/snapshots").join(COMMIT).join(gone))
            .unwrap();
        refused(&hub.run(temp.path(), &["inspect", "m@refs/pr/1", "--offline"]), &["is not in"]);
    }

    let config = std::fs::read(Path::new(&asset("tiny-llama")).join("config.json")).unwrap();
    let with = |name: &str, bytes: &str| {
        let files = vec![("config.json".into(), config.clone()), (name.into(), bytes.into())];
        Hub::serve("models/m", files, Rules::default())
    };
    let temp = TempDir::new().unwrap();
    let index = r#"{"weight_map": {"a": "../../../../x.safetensors"}}"#;
    let hostile = with("model.safetensors.index.json", index).run(temp.path(), &["inspect", "m"]);
    refused(&hostile, &["../../../../x.safetensors", "not a plain file name"]);
    let temp = TempDir::new().unwrap();
    let none = with("README-../../../x", "text").run(temp.path(), &["inspect", "m"]);
    refused(&none, &["no weights"]);
    let temp = TempDir::new().unwrap();
    let gguf = Hub::serve("models/m", vec![("m.gguf".into(), vec![])], Rules::default());
    refused(&gguf.run(temp.path(), &["inspect", "m"]), &["no config.json", ".gguf"]);
    let files = [("config.json", r#"{"architectures": ["BertModel"]}"#), (WEIGHTS, "large")];
    let files = files.map(|(name, bytes)| (name.to_string(), bytes.as_bytes().to_vec()));
    let bert = Hub::serve("models/m", files.into(), Rules::default());
    refused(&bert.run(temp.path(), &["inspect", "m"]), &["BertModel is not supported"]);
    assert!(bert.requests().iter().all(|r| !r.path.contains(WEIGHTS)), "its weights are no use");
}
