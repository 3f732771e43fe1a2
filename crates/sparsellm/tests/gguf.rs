//! GGUF files of every architecture give transformers' perplexity, in one file or several.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use sparsellm::{Evaluator, Model, Pruner, methods::Magnitude};
use sparsellm_testing::fixture;
use std::{
    fs,
    path::{Path, PathBuf},
};

fn file(name: &str) -> PathBuf {
    fixture("gguf/families").join(name)
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(file("expected.json")).unwrap()).unwrap()
}

fn perplexity(model: &Path) -> f64 {
    let model = Model::open(model).unwrap();
    let seq_len = expected()["seq_len"].as_u64().unwrap() as usize;
    let mut evaluator = Evaluator::new(&model).seq_len(seq_len);
    evaluator.perplexity(&file("ids.npy").display().to_string()).unwrap().perplexity
}

/// What opening says of the parts in a folder, when asked for that part.
fn complaint(folder: &Path, part: &str) -> String {
    match Model::open(&folder.join(part)) {
        Ok(_) => panic!("{part} is read"),
        Err(error) => error.to_string(),
    }
}

const PARTS: [&str; 3] =
    ["split-00001-of-00003.gguf", "split-00002-of-00003.gguf", "split-00003-of-00003.gguf"];

/// A folder with the parts of the split model.
fn parts() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for part in PARTS {
        fs::copy(file(part), temp.path().join(part)).unwrap();
    }
    temp
}

#[test]
fn every_architecture_gives_transformers_perplexity() {
    let expected = expected();
    let perplexities = expected["perplexity"].as_object().unwrap();
    assert_eq!(perplexities.len(), 9);
    for (name, want) in perplexities {
        let (got, want) = (perplexity(&file(&format!("{name}.gguf"))), want.as_f64().unwrap());
        assert!((got / want - 1.0).abs() < 1e-5, "{name}: {got} is not {want}");
    }
}

#[test]
fn every_architecture_is_written_as_it_is_read() {
    for name in expected()["perplexity"].as_object().unwrap().keys() {
        let temp = tempfile::tempdir().unwrap();
        let (input, output) = (file(&format!("{name}.gguf")), temp.path().join("out"));
        let model = Model::open(&input).unwrap();
        Pruner::for_model(&model).method(&Magnitude).layers(0..1).write(&output).unwrap();
        let pruned = Model::open(&output).unwrap();
        assert_eq!(pruned.architecture, model.architecture);
        assert!(pruned.checkpoint.tensors().keys().eq(model.checkpoint.tensors().keys()));
        assert_eq!(pruned.checkpoint.config, model.checkpoint.config);
        for name in pruned.checkpoint.tensors().keys().filter(|name| name.contains("layers.1.")) {
            let of = |model: &Model| model.checkpoint.vector(name).unwrap();
            // Within bfloat16's rounding.
            let near = of(&pruned).iter().zip(of(&model)).all(|(a, b)| (a - b).abs() < 5e-3);
            assert!(near, "{name}");
        }
    }
}

#[test]
fn a_split_model_is_read_whichever_part_is_named() {
    for part in PARTS {
        assert_eq!(perplexity(&file(part)), perplexity(&file("llama-bias.gguf")), "{part}");
    }
    let temp = tempfile::tempdir().unwrap();
    let outputs = ["llama-bias.gguf", PARTS[1]].map(|name| {
        let output = temp.path().join(name);
        let model = Model::open(&file(name)).unwrap();
        Pruner::for_model(&model).method(&Magnitude).sparsity(0.5).write(&output).unwrap();
        output
    });
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        assert!(outputs[1].join(name).is_file(), "{name}");
    }
    assert_eq!(perplexity(&outputs[0]), perplexity(&outputs[1]));
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let temp = parts();
    let folder = temp.path();
    let at = |name: &str| folder.join(name);
    fs::remove_file(at(PARTS[2])).unwrap();
    for named in &PARTS[..2] {
        let said = complaint(folder, named);
        assert!(said.contains("part 3 of 3 is missing") && said.contains(PARTS[2]), "{said}");
    }
    fs::copy(file(PARTS[1]), at(PARTS[2])).unwrap();
    let said = complaint(folder, PARTS[0]);
    assert!(said.contains("do not say that it is part 3 of 3"), "{said}");
    fs::copy(file("llama-bias.gguf"), at(PARTS[2])).unwrap();
    let said = complaint(folder, PARTS[0]);
    assert!(said.contains("do not say that it is part 3 of 3"), "{said}");
    fs::write(at(PARTS[2]), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert!(complaint(folder, PARTS[0]).contains("git-lfs pointer"));
    fs::rename(at(PARTS[1]), at("other.gguf")).unwrap();
    let said = complaint(folder, "other.gguf");
    assert!(
        said.contains("part 2 of 3, but its name does not end in -00002-of-00003.gguf"),
        "{said}"
    );
}

#[test]
fn damaged_parts_do_no_harm() {
    let temp = parts();
    let mut rng = rand_mt::Mt::new(3);
    for round in 0..300 {
        let part = PARTS[round % PARTS.len()];
        let mut bytes = fs::read(file(part)).unwrap();
        let header = bytes.len().min(1400);
        for _ in 0..=round % 3 {
            bytes[rng.next_u32() as usize % header] = rng.next_u32() as u8;
        }
        if round % 7 == 0 {
            bytes.truncate(rng.next_u32() as usize % bytes.len());
        }
        fs::write(temp.path().join(part), &bytes).unwrap();
        let _ = Model::open(&temp.path().join(PARTS[round % 2]));
        fs::copy(file(part), temp.path().join(part)).unwrap();
    }
    assert_eq!(perplexity(&temp.path().join(PARTS[0])), perplexity(&file(PARTS[0])));
}
