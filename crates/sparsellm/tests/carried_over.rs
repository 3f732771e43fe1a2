//! What of a model's folder is in the output beside the pruned weights, and what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use sparsellm::{Event, Model, Observer, Pruner, methods::Magnitude};
use sparsellm_checkpoint::{Checkpoint, Existing};
use sparsellm_testing::fixture;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A copy of a family's fixture in a new folder.
fn model(at: &Path, family: &str) -> PathBuf {
    fs::create_dir_all(at).unwrap();
    for entry in fs::read_dir(fixture("families").join(family)).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "expected.safetensors" {
            fs::copy(&path, at.join(path.file_name().unwrap())).unwrap();
        }
    }
    at.into()
}

fn put(folder: &Path, files: &[&str]) {
    for file in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
}

/// All files below a folder, as paths in it.
fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.is_symlink(), "{}", path.display());
            match path.is_dir() {
                true => folders.push(path),
                false => all.push(path.strip_prefix(folder).unwrap().display().to_string()),
            }
        }
    }
    all.sort();
    all
}

/// Prunes `model`; gives what was said to be left out.
fn prune(model: &Path, output: &Path) -> BTreeMap<String, String> {
    let model = Model::open(model).unwrap();
    let mut told = Vec::new();
    let observer = Observer::new(|event| {
        if let Event::LeftOut { paths } = event {
            told.push(paths.to_vec());
        }
        Ok(())
    });
    let existing = Existing { replace: true, resume: false };
    let pruner = Pruner::for_model(&model).method(&Magnitude).existing(existing);
    pruner.observer(observer).write(output).unwrap();
    assert!(told.len() <= 1, "one event says it all");
    told.concat().into_iter().map(|(path, why)| (path, why.to_string())).collect()
}

/// What every output of a model in safetensors has, with `more`.
fn with_own(more: &[&str]) -> Vec<String> {
    let own = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "report.html",
        "sparsellm.json",
    ];
    let mut all: Vec<String> = own.iter().chain(more).map(|name| (*name).to_string()).collect();
    all.sort();
    all
}

#[test]
fn all_but_weights_is_carried_over_and_nothing_that_misleads() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, output) = (model(&temp.path().join("in"), "llama1"), temp.path().join("out"));
    let carried = [
        "1_Pooling/config.json",
        "LICENSE",
        "a/b/c/notes.txt",
        "additional_chat_templates/tool_use.jinja",
        "chat_template.jinja",
        "modeling_own.py",
        "tokenizer.model",
        "trainer_state.json",
    ];
    put(&folder, &carried);
    let left = [
        (".cache/huggingface/x.lock", ".cache", "hidden"),
        (".git/config", ".git", "hidden"),
        ("Model-Q4_K_M.GGUF", "Model-Q4_K_M.GGUF", "other weights"),
        ("adapter_config.json", "adapter_config.json", "an adapter"),
        ("adapter_model.safetensors", "adapter_model.safetensors", "an adapter"),
        ("checkpoint-500/trainer_state.json", "checkpoint-500", "training run"),
        ("consolidated.00.pth", "consolidated.00.pth", "other weights"),
        ("flax_model.msgpack", "flax_model.msgpack", "other weights"),
        ("global_step500/x.txt", "global_step500", "training run"),
        ("model-q8.safetensors", "model-q8.safetensors", "other weights"),
        ("model.safetensors.index.json", "model.safetensors.index.json", "other weights"),
        ("onnx/config.json", "onnx", "weights of its own"),
        ("onnx/model_quantized.onnx", "onnx", "weights of its own"),
        ("optimizer.pt", "optimizer.pt", "training run"),
        ("original/consolidated.00.pth", "original", "weights of its own"),
        ("original/params.json", "original", "weights of its own"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin.index.json", "other weights"),
        ("quantize_config.json", "quantize_config.json", "quantized"),
        ("rng_state_0.pth", "rng_state_0.pth", "training run"),
        ("tf_model.h5", "tf_model.h5", "other weights"),
        ("training_args.bin", "training_args.bin", "training run"),
    ];
    put(&folder, &left.map(|(file, ..)| file));
    put(&folder, &["sparsellm.json", "report.html"]); // an earlier run's, whose place is taken
    let told = prune(&folder, &output);
    assert_eq!(files(&output), with_own(&carried));
    for (_, path, why) in &left {
        let said = told.get(*path).unwrap_or_else(|| panic!("{path} is not told"));
        assert!(said.contains(why), "{path}: {said}");
    }
    assert_eq!(told.len(), left.len() - 2, "{told:?}");
    assert_eq!(fs::read_to_string(output.join("a/b/c/notes.txt")).unwrap(), "a/b/c/notes.txt");
    Model::open(&output).unwrap();
    // A model with nothing but its own files has nothing to tell, also in shards.
    let plain = model(&temp.path().join("plain"), "llama-bf16-sharded");
    assert_eq!(prune(&plain, &temp.path().join("pruned")), BTreeMap::new());
}

#[test]
fn an_output_in_the_models_folder_is_no_part_of_itself() {
    let temp = tempfile::tempdir().unwrap();
    let folder = model(&temp.path().join("in"), "llama1");
    assert_eq!(prune(&folder, &folder.join("pruned")), BTreeMap::new());
    assert_eq!(files(&folder.join("pruned")), with_own(&[]));
    let told = prune(&folder, &folder.join("again"));
    assert_eq!(told.into_keys().collect::<Vec<_>>(), ["pruned"]);
    assert_eq!(files(&folder.join("again")), with_own(&[]));
}

#[cfg(unix)]
#[test]
fn links_are_followed_to_files_and_nowhere_else() {
    use std::os::unix::fs::symlink;
    let temp = tempfile::tempdir().unwrap();
    // As the cache of the hub is laid out: all files are links to blobs.
    let (blobs, snapshot) = (temp.path().join("m/blobs"), temp.path().join("m/snapshots/abc"));
    model(&snapshot, "llama1");
    put(&snapshot, &["templates/tool.jinja"]);
    fs::create_dir(&blobs).unwrap();
    for file in files(&snapshot) {
        let (path, blob) = (snapshot.join(&file), blobs.join(file.replace('/', "-")));
        fs::rename(&path, &blob).unwrap();
        symlink(&blob, &path).unwrap();
    }
    let output = temp.path().join("out");
    assert_eq!(prune(&snapshot, &output), BTreeMap::new());
    let carried = ["templates/tool.jinja"];
    assert_eq!(files(&output), with_own(&carried));

    let secret = temp.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    put(&snapshot, &["inner/notes.txt"]);
    for (target, link) in [
        (secret.as_path(), "inner/out"),
        (Path::new(".."), "inner/cycle"),
        (Path::new("self"), "self"),
        (Path::new("gone"), "gone"),
        (temp.path(), "parent"),
        (Path::new("notes.txt"), "inner/same"),
    ] {
        symlink(target, snapshot.join(link)).unwrap();
    }
    let told = prune(&snapshot, &output);
    let paths: Vec<&str> = told.keys().map(String::as_str).collect();
    assert_eq!(paths, ["gone", "inner/cycle", "inner/out", "parent", "self"]);
    assert!(told["inner/out"].contains("out of the model's folder"));
    let carried = ["templates/tool.jinja", "inner/notes.txt", "inner/same"];
    assert_eq!(files(&output), with_own(&carried));
}

#[test]
fn folders_nested_without_end_are_left_out() {
    let temp = tempfile::tempdir().unwrap();
    let folder = model(&temp.path().join("in"), "llama1");
    let deep = format!("{}x.txt", "d/".repeat(60));
    put(&folder, &[&deep, "d/d/kept.txt"]);
    let output = temp.path().join("out");
    let told = prune(&folder, &output);
    assert_eq!(told.into_values().collect::<Vec<_>>(), ["nested too deep"]);
    assert_eq!(files(&output), with_own(&["d/d/kept.txt"]));
}

/// Rewrites the weights of a model in f64, with a mask of infinities beside them.
fn widen(folder: &Path) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let wide: Vec<(String, Vec<usize>, Vec<u8>)> = stored
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            assert_eq!(tensor.dtype(), Dtype::F32);
            let values = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
            let data = values.flat_map(|v| f64::from(v).to_le_bytes()).collect();
            (name, tensor.shape().to_vec(), data)
        })
        .collect();
    let mask: Vec<u8> = [f64::NEG_INFINITY, f64::NAN, 0.0, 1.0].map(f64::to_le_bytes).concat();
    let views = wide.iter().map(|(name, shape, data)| {
        (name.as_str(), TensorView::new(Dtype::F64, shape.clone(), data).unwrap())
    });
    let mask = ("masked_bias", TensorView::new(Dtype::F64, vec![4], &mask).unwrap());
    serialize_to_file(views.chain([mask]), None, &path).unwrap();
}

#[test]
fn f64_weights_are_read_and_written_and_buffers_may_hold_anything() {
    let temp = tempfile::tempdir().unwrap();
    let single = model(&temp.path().join("single"), "llama1");
    let double = model(&temp.path().join("double"), "llama1");
    widen(&double);
    let outputs = [&single, &double].map(|folder| {
        let output = folder.with_extension("out");
        prune(folder, &output);
        Checkpoint::open(&output).unwrap()
    });
    let [single, double] = &outputs;
    for (name, info) in single.tensors() {
        assert_eq!(single.vector(name).unwrap(), double.vector(name).unwrap(), "{name}");
        assert_eq!(double.info(name).unwrap().dtype.name(), "F64");
        assert_eq!(double.info(name).unwrap().shape, info.shape);
    }
    // The buffer is copied bit by bit, and is no weight to be read.
    let source = Checkpoint::open(&temp.path().join("double")).unwrap();
    let mask = |from: &Checkpoint| from.source().bytes("masked_bias").unwrap().into_owned();
    assert_eq!(mask(&source), mask(double));
    assert_eq!(source.count_zeros("masked_bias").unwrap(), 1);
    assert!(source.vector("masked_bias").unwrap_err().to_string().contains("-inf"));
}
