//! Tests the zero-shot tasks against lm-evaluation-harness: its prompts, and its scores on the
//! embedded models (tools/fixtures/zeroshot.py). Also tests the errors for malformed files.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use sparsellm_base::{Error, Event, Observer};
use sparsellm_eval::{
    Request, likelihoods, perplexity,
    tasks::{self, Item, Task},
};
use sparsellm_model::Model;
use sparsellm_ranks::Local;
use sparsellm_testing::{assets, fixture};
use sparsellm_text::{Segments, Tokenizer};
use std::path::PathBuf;

fn expected() -> Value {
    let text = std::fs::read_to_string(fixture("zeroshot/expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Each file of the fixture, with its task and the name of lm-evaluation-harness's results for it.
fn files() -> Vec<(Task, String, PathBuf)> {
    let mut files = Vec::new();
    for folder in ["documents", "local"] {
        for entry in std::fs::read_dir(fixture("zeroshot").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".lst") {
                continue;
            }
            let task = name.split('.').next().unwrap();
            let lines = if name.contains(".txt") { "_lines" } else { "" };
            files.push((task.parse().unwrap(), format!("{task}{lines}"), path));
        }
    }
    assert_eq!(files.len(), 9 + 3 + 8);
    files
}

#[test]
fn prompts_are_lm_evals() {
    let expected = expected();
    for (task, name, path) in files() {
        let items = tasks::load(task, &path, None).unwrap();
        let requests: Vec<&Vec<[String; 2]>> = items.iter().map(|item| &item.requests).collect();
        let got = serde_json::to_value(&requests).unwrap();
        assert_eq!(got, expected["requests"][&name], "{}", path.display());
    }
}

#[test]
fn scores_are_lm_evals() {
    let expected = expected();
    for name in ["tiny-llama", "tiny-opt"] {
        let model = Model::open(&assets().join(name)).unwrap();
        let tokenizer = Tokenizer::from_checkpoint(&model.checkpoint).unwrap();
        for (task, made, path) in files() {
            let items = tasks::load(task, &path, None).unwrap();
            check(&model, &tokenizer, task, &items, &expected["models"][name][made]);
        }
    }
}

fn check(model: &Model, tokenizer: &Tokenizer, task: Task, items: &[Item], want: &Value) {
    let mut observer = Observer::silent();
    let (report, outcomes) =
        tasks::evaluate(model, tokenizer, task, items, &Local, &mut observer).unwrap();
    let place = |i: usize| format!("{} {} question {i}", model.architecture, task.name());
    for (i, (got, want)) in outcomes.iter().zip(want["documents"].as_array().unwrap()).enumerate() {
        for (got, want) in
            got.log_likelihoods.iter().zip(want["loglikelihoods"].as_array().unwrap())
        {
            let want = want.as_f64().unwrap();
            assert!((got - want).abs() < 1e-3 + 1e-5 * want.abs(), "{}: {got} {want}", place(i));
        }
        assert_eq!(f64::from(u8::from(got.acc)), want["acc"].as_f64().unwrap(), "{}", place(i));
        let norm = got.acc_norm.map(|right| f64::from(u8::from(right)));
        assert_eq!(norm, want["acc_norm"].as_f64(), "{}", place(i));
    }
    let near = |got: Option<f64>, key: &str| match (got, want[key].as_f64()) {
        (Some(got), Some(want)) => assert!((got / want - 1.0).abs() < 1e-3, "{key}: {got} {want}"),
        (got, want) => assert_eq!(got, want, "{key}"),
    };
    assert_eq!(report.items, items.len());
    assert_eq!(report.acc, want["acc"].as_f64().unwrap());
    assert_eq!(report.acc_norm, want["acc_norm"].as_f64());
    near(report.perplexity, "perplexity");
}

#[test]
fn errors_name_file_and_row() {
    let folder = tempfile::tempdir().unwrap();
    for (task, file, text, says) in [
        ("piqa", "a.jsonl", "{\"goal\": \"g\", \"sol1\": \"a\"}", "row 1: no \"sol2\" field"),
        (
            "piqa",
            "a.jsonl",
            "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 2}",
            "row 1: the answer is choice 2 of 2",
        ),
        (
            "winogrande",
            "a.jsonl",
            "{\"sentence\": \"no blank\"}",
            "row 1: the sentence has no blank",
        ),
        (
            "arc_easy",
            "a.json",
            "[{\"instruction\": \"Please choose well\", \"answer\": \"answer1\"}]",
            "row 1: the instruction has no",
        ),
        ("arc_easy", "a.json", "[{\"question\": \"q\"}]", "row 1: no \"choices\" field"),
        ("hellaswag", "a.txt", "Cooking: a pot\n1\nboils\n", "row 1: the file ends within"),
        ("hellaswag", "a.txt", "no colon\n1\na\nb\nc\nd\n", "row 1: no \"activity: context\""),
        ("hellaswag", "a.txt", "Cooking: a pot\nx\na\nb\nc\nd\n", "row 1: \"label\" is \"x\""),
        ("boolq", "a.jsonl", "{\"prompt\": \"p\", \"subject\": \"s\"}", "row 1: "),
        ("rte", "a.jsonl", "{\"sentence1\": 3}", "row 1: \"sentence1\" is not a text"),
        ("lambada_openai", "a.jsonl", "", "holds no rows"),
        ("hellaswag", "a.txt.bz2", "not bzip2", "row 1: damaged or truncated .bz2"),
    ] {
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        let message = tasks::load(task.parse().unwrap(), &path, None).unwrap_err().to_string();
        assert!(message.starts_with(&path.display().to_string()), "{message}");
        assert!(message.contains(says), "{task}: {message}");
    }
    let unknown = "mmlu".parse::<Task>().unwrap_err();
    assert!(unknown.contains("mmlu") && unknown.contains("hellaswag"), "{unknown}");
}

#[test]
fn a_tasks_file_is_found_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
    make("arc-easy_test.json");
    make("piqa_dev-labels.lst");
    let find = |task: Task| tasks::file_in(task, folder.path());
    assert!(find(Task::ArcEasy).unwrap().ends_with("arc-easy_test.json"));
    assert!(find(Task::Piqa).unwrap_err().to_string().contains("no file for piqa"));
    make("arc_easy.parquet");
    assert!(find(Task::ArcEasy).unwrap_err().to_string().contains("could both be"));
}

#[test]
fn an_observer_hears_every_layer_and_can_end_the_measurement() {
    let model = Model::open(&assets().join("tiny-llama")).unwrap();
    let layers = model.shape().layers;
    let windows = Segments { tokens: (0..64).collect(), seq_len: 16 };
    let request = Request { context: vec![1, 2], continuation: vec![3, 4] };
    let mut heard = Vec::new();
    let mut observer = Observer::new(|event| match event {
        Event::Measured { what, done, of } => {
            heard.push((what.to_string(), done, of));
            Ok(())
        }
        _ => Err("nothing else is told".into()),
    });
    perplexity(&model, &windows, "a text", &Local, &mut observer).unwrap();
    likelihoods(&model, std::slice::from_ref(&request), "a task", &Local, &mut observer).unwrap();
    drop(observer);
    let all = |what: &str| (1..=layers).map(|done| (what.to_string(), done, layers)).collect();
    let expected: [Vec<_>; 2] = [all("a text"), all("a task")];
    assert_eq!(heard, expected.concat());

    let mut refuse = Observer::new(|_| Err("enough".into()));
    let stopped = perplexity(&model, &windows, "a text", &Local, &mut refuse);
    assert!(matches!(stopped, Err(Error::Observer(e)) if e.to_string() == "enough"));
    let stopped = likelihoods(&model, &[request], "a task", &Local, &mut refuse);
    assert!(matches!(stopped, Err(Error::Observer(e)) if e.to_string() == "enough"));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let model = Model::open(&assets().join("tiny-opt")).unwrap();
    let mut observer = Observer::silent();
    for (tokens, seq_len) in [(vec![], 16), (vec![1, 2], 1), (vec![1; 100_000], 100_000)] {
        let windows = Segments { tokens, seq_len };
        assert!(perplexity(&model, &windows, "a text", &Local, &mut observer).is_err());
    }
    for (context, continuation) in [(vec![], vec![1]), (vec![1], vec![]), (vec![1], vec![u32::MAX])]
    {
        let request = Request { context, continuation };
        assert!(likelihoods(&model, &[request], "a task", &Local, &mut observer).is_err());
    }
}
