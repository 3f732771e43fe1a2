//! Tests the reports of sweeps: the numbers in their tables, and how they show hostile or
//! missing data.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sparsellm_eval::TaskReport;
use sparsellm_prune::{
    LayerReport, LinearReport,
    tune::{HalfReport, TuneReport},
};
use sparsellm_report::{Dense, Measured, Run, Sweep, csv, html, markdown, write};

fn measured(data: &str, perplexity: f64) -> Measured {
    Measured { data: data.into(), perplexity, windows: 40, seq_len: 512 }
}

fn run(method: &str, pattern: &str, settings: &[(&str, &str)], perplexity: f64) -> Run {
    Run {
        model: "tiny".into(),
        method: method.into(),
        pattern: pattern.into(),
        settings: settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        sparsity: 0.7,
        seconds: None,
        peak_rss_bytes: None,
        perplexity: vec![measured("wiki", perplexity)],
        tasks: Vec::new(),
        layers: Vec::new(),
        tune: None,
    }
}

fn sweep(runs: Vec<Run>) -> Sweep {
    let dense = Dense {
        model: "tiny".into(),
        perplexity: vec![measured("wiki", 29.19)],
        tasks: Vec::new(),
    };
    Sweep { title: "A sweep".into(), version: "0.1.0".into(), dense: vec![dense], runs }
}

fn layer(index: usize, ffn_error: &[f64], kept_epoch: usize) -> LayerReport {
    let linear =
        LinearReport { sparsity: 0.7, error: Some(0.25), seconds: 1.5, raised_damping: Some(0.1) };
    LayerReport {
        index,
        linears: [("mlp.up_proj".to_string(), linear)].into(),
        ffn_error: ffn_error.into(),
        kept_epoch,
        tuned: std::collections::BTreeMap::new(),
    }
}

/// The lines of the Markdown table that follows `caption`.
fn table(report: &str, caption: &str) -> Vec<String> {
    let at = report.find(caption).unwrap();
    let lines = report[at..].lines().skip(2).take_while(|l| l.starts_with('|'));
    lines.map(|l| l.replace('\u{a0}', " ")).collect()
}

#[test]
fn tables_are_the_papers() {
    let report = markdown(&sweep(vec![
        run("wanda", "3:4", &[], 900.0),
        run("wanda", "90%", &[], f64::INFINITY),
        run("wanda", "2:4", &[], 200.25),
        run("wanda", "50%", &[], 70.0),
        run("sparsegpt", "50%", &[], 64.114),
        run("sparsegpt", "90%", &[], 19955.2),
        run("sparsegpt", "3:4", &[], 950.0),
    ]));
    assert_eq!(
        table(&report, "tiny on wiki, 40 windows of 512 tokens"),
        [
            "| method | 50 % | 90 % | 2:4 | 3:4 |",
            "| --- | --: | --: | --: | --: |",
            "| dense | 29.19 | 29.19 | 29.19 | 29.19 |",
            "| wanda | 70.00 | inf | 200.2 | **900.0** |",
            "| sparsegpt | **64.11** | **19955** | – | 950.0 |",
        ]
    );
    assert_eq!(table(&report, "Lowest mean perplexity")[3], "| 50 % | 64.11 by sparsegpt |");
}

#[test]
fn seeds_are_averaged_and_other_settings_kept_apart() {
    let seed = |seed, alpha, p| {
        run("sparsellm", "70%", &[("seed", seed), ("alpha", alpha), ("samples", "128")], p)
    };
    let report = markdown(&sweep(vec![
        seed("0", "5", 10.0),
        seed("1", "5", 12.0),
        seed("2", "5", 14.0),
        seed("0", "0.1", 13.0),
        run("wanda", "70%", &[("samples", "128")], 20.0),
        run("wanda", "70%", &[("samples", "128"), ("refit", "20")], 18.0),
    ]));
    assert_eq!(
        table(&report, "tiny on wiki")[2..],
        [
            "| dense | 29.19 |",
            "| sparsellm, alpha 5 | **12.00 ± 2.00** |",
            "| sparsellm, alpha 0.1 | 13.00 |",
            "| wanda | 20.00 |",
            "| wanda, refit 20 | 18.00 |",
        ]
    );
    assert!(report.contains("up to 3 seeds"));
}

#[test]
fn tasks_have_a_mean_and_a_best_per_pattern() {
    let task = |task: &str, acc, acc_norm| TaskReport {
        task: task.into(),
        items: 100,
        acc,
        acc_norm,
        ..TaskReport::default()
    };
    let with = |method, pattern, a, b| Run {
        tasks: vec![task("piqa", a, None), task("arc", b, Some(0.5))],
        ..run(method, pattern, &[], 1.0)
    };
    let mut sweep = sweep(vec![
        with("wanda", "70%", 0.6, 0.3),
        with("sparsegpt", "70%", 0.5, 0.5),
        with("wanda", "2:4", 0.7, 0.25),
    ]);
    sweep.dense[0].tasks = vec![task("piqa", 0.8, None), task("arc", 0.6, None)];
    let report = markdown(&sweep);
    assert_eq!(
        table(&report, "tiny, accuracy (number of questions)"),
        [
            "| method | piqa (100) | arc (100) | mean |",
            "| --- | --: | --: | --: |",
            "| dense | 80.0 | 60.0 | 70.0 |",
            "| *70 %* |  |  |  |",
            "| wanda | **60.0** | 30.0 | 45.0 |",
            "| sparsegpt | 50.0 | **50.0** | **50.0** |",
            "| *2:4* |  |  |  |",
            "| wanda | 70.0 | 25.0 | 47.5 |",
        ]
    );
    assert!(table(&report, "tiny, accuracy by likelihood per length")[0].contains("| arc (100) |"));
}

#[test]
fn csv_has_every_digit_and_no_time() {
    let mut sweep = sweep(vec![
        Run {
            seconds: Some(12.5),
            peak_rss_bytes: Some(99),
            layers: vec![layer(0, &[0.5, 0.25], 2), layer(1, &[0.75], 1)],
            ..run("sparsellm", "70%", &[("seed", "0"), ("alpha", "5")], 1.0 / 3.0)
        },
        Run { model: "a \"b\", c\nd".into(), ..run("wanda", "2:4", &[("seed", "1")], f64::NAN) },
    ]);
    sweep.runs[0].tasks =
        vec![TaskReport { task: "piqa".into(), items: 9, acc: 0.1, ..TaskReport::default() }];
    let expected = "\
model,method,pattern,sparsity,alpha,seed,perplexity wiki,acc piqa,acc_norm piqa,ffn_error
tiny,dense,,0,,,29.19,,,
tiny,sparsellm,70%,0.7,5,0,0.3333333333333333,0.1,,0.5
\"a \"\"b\"\", c
d\",wanda,2:4,0.7,,1,inf,,,
";
    assert_eq!(csv(&sweep), expected);
    // A resumed sweep reads the infinity back from JSON in this way.
    let json = serde_json::to_string(&sweep).unwrap();
    let back: Sweep = serde_json::from_str(&json).unwrap();
    assert_eq!(csv(&back), expected);
    assert_eq!(html(&back), html(&sweep));
}

#[test]
fn a_page_asks_for_nothing_and_escapes_everything() {
    let evil = "<script src=http://x>\"'&|`*\n</style></svg>";
    let name = |r: Run| Run { model: evil.into(), ..r };
    let cell = |alpha, beta| {
        name(run(evil, "70%", &[("alpha", alpha), ("beta", beta), (evil, evil)], 3.0))
    };
    let mut sweep = sweep(vec![
        cell("<b>", "1"),
        cell("<b>", "<i>"),
        cell("5", "1"),
        cell("5", "<i>"),
        name(run(evil, evil, &[("samples", evil)], 4.0)),
    ]);
    sweep.title = evil.into();
    sweep.version = evil.into();
    for run in &mut sweep.runs {
        run.perplexity[0].data = evil.into();
        run.tasks = vec![TaskReport {
            task: evil.into(),
            items: 1,
            acc: 0.5,
            acc_norm: Some(0.5),
            ..TaskReport::default()
        }];
        run.layers = vec![layer(0, &[0.5], 1), layer(1, &[0.5], 1)];
        run.layers[0].linears.insert(evil.into(), layer(0, &[], 0).linears["mlp.up_proj"].clone());
    }
    let one = Sweep { runs: sweep.runs[..1].to_vec(), ..sweep.clone() };
    for sweep in [&sweep, &one] {
        let page = html(sweep);
        well_formed(&page).unwrap();
        for tag in ["<script", "<b>", "<i>", "<img", "@import", "url("] {
            assert!(!page.contains(tag), "{tag}");
        }
        assert!(page.contains("&lt;script src=http://x&gt;"));
        assert!(!page.replace("src=http://x", "").contains("http:"));
        for line in markdown(sweep).lines() {
            assert!(!line.replace("\\<", "").contains('<'), "{line}");
            assert!(!line.starts_with("\\</style"), "a name broke its line: {line}");
        }
    }
}

#[test]
fn sections_without_data_are_absent() {
    let page = html(&sweep(vec![run("wanda", "70%", &[], 3.0), run("sparsegpt", "70%", &[], 2.0)]));
    for title in [
        "Zero-shot",
        "feed-forward",
        "α and β",
        "calibration set",
        "Time and memory",
        "<figure",
        "<details",
    ] {
        assert!(!page.contains(title), "{title}");
    }
    let empty = Sweep { dense: Vec::new(), ..sweep(Vec::new()) };
    well_formed(&html(&empty)).unwrap();
    assert!(!html(&empty).contains("<h2"));
    assert!(!markdown(&empty).contains("##"));
}

#[test]
fn figures_name_every_series() {
    let mut runs = vec![
        run("wanda", "50%", &[("samples", "32")], 5.0),
        run("wanda", "70%", &[("samples", "32")], 50.0),
        run("wanda", "70%", &[("samples", "128")], 40.0),
        run("sparsellm", "50%", &[("samples", "32")], 4.0),
        run("sparsellm", "2:4", &[("samples", "32")], 6.0),
        run("sparsellm", "90%", &[("samples", "32")], 600.0),
    ];
    runs[3].layers = vec![layer(0, &[0.5, 0.25], 2), layer(1, &[0.5, 0.75], 1)];
    for (alpha, beta, p) in
        [("1", "1", 9.5), ("1", "10", 8.25), ("10", "1", 7.125), ("10", "10", 6.0)]
    {
        runs.push(run("admm", "70%", &[("alpha", alpha), ("beta", beta)], p));
    }
    let page = html(&sweep(runs));
    well_formed(&page).unwrap();
    let figures: Vec<&str> = page.split("<figure>").skip(1).collect();
    assert_eq!(figures.len(), 4);
    let has = |figure: &str, words: &[&str]| words.iter().all(|w| figure.contains(w));
    assert!(has(
        figures[0],
        &["wanda, samples 32", "sparsellm, samples 32", "N:M patterns", "dense 29.19", "300"]
    ));
    assert!(has(figures[1], &["tiny at 50\u{a0}% by sparsellm", "epoch 1", "epoch 2", "layer"]));
    assert!(has(figures[2], &["α", "β", "9.500", "8.250", "7.125", "6.000"]));
    assert!(has(figures[3], &["tiny at 70\u{a0}% on wiki", "wanda", "samples"]));
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), 4);
}

#[test]
fn one_run_tells_of_its_layers() {
    let mut sweep = sweep(vec![run("sparsellm", "70%", &[("alpha", "5")], 241.3)]);
    sweep.runs[0].layers = vec![layer(0, &[0.5, 0.25], 2), layer(1, &[0.0312, 0.75], 1)];
    let report = markdown(&sweep);
    assert_eq!(table(&report, "Perplexity")[2], "| wiki | 29.19 | 241.3 | 40 | 512 |");
    assert_eq!(
        table(&report, "Each decoder layer")[2..],
        [
            "| 0 | 70.00 % | 0.500 | 0.250 | 2 | mlp.up\\_proj: 0.1 |",
            "| 1 | 70.00 % | 0.0312 | 0.0312 | 1 | mlp.up\\_proj: 0.1 |",
        ]
    );
    assert_eq!(table(&report, "Sparsity of every linear")[2], "| 0 | 70.00 % |");
    let page = html(&sweep);
    well_formed(&page).unwrap();
    assert!(page.contains("<details>") && page.contains("epoch 2"));
    assert!(!page.contains("seconds") && !page.contains("memory"));
}

#[test]
fn a_file_is_written_whole_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.md");
    for text in ["first", "second"] {
        write(&path, text).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(write(&folder.path().join("absent/report.md"), "").is_err());
}

/// Checks that every tag is closed, in order.
fn well_formed(page: &str) -> Result<(), String> {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').ok_or("a tag without an end")?;
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(name) if open.pop() == Some(name) => {}
            Some(name) => return Err(format!("</{name}> closes nothing")),
            None if tag.ends_with('/') || ["!DOCTYPE", "meta", "link"].contains(&name) => {}
            None => open.push(name),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} are not closed")) }
}

fn any_run() -> impl Strategy<Value = Run> {
    let names = || prop::sample::select(vec!["a", "b", "<c>", ""]);
    let number = || prop_oneof![any::<f64>(), 1.0..1e4f64, Just(f64::NAN), Just(0.0)];
    let patterns =
        prop::sample::select(vec!["50%", "70%", "2:4", "0:0", "1e999%", "%", "∞", "3:4"]);
    let settings = prop::collection::btree_map(
        prop::sample::select(vec!["alpha", "beta", "samples", "seed", "x"]),
        prop::sample::select(vec!["1", "10", "1e308", "-3", "inf", "auto", "NaN"]),
        0..5,
    );
    let layers = prop::collection::vec(
        (any::<usize>(), prop::collection::vec(number(), 0..4), 0..5usize),
        0..3,
    );
    let finite = 0.0..1.0f64;
    (names(), names(), patterns, settings, number(), prop::option::of(finite), layers).prop_map(
        |(model, method, pattern, settings, p, acc, layers)| Run {
            model: model.into(),
            seconds: acc,
            peak_rss_bytes: acc.map(|v| (v * 1e20) as u64),
            perplexity: [("wiki", Some(p)), ("<c4>", acc)]
                .into_iter()
                .filter_map(|(data, p)| Some(measured(data, p?)))
                .collect(),
            tasks: acc
                .map(|acc| TaskReport {
                    task: "t".into(),
                    items: 0,
                    acc,
                    acc_norm: Some(acc),
                    ..TaskReport::default()
                })
                .into_iter()
                .collect(),
            layers: layers.into_iter().map(|(i, errors, kept)| layer(i, &errors, kept)).collect(),
            ..run(method, pattern, &settings.into_iter().collect::<Vec<_>>(), p)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_sweep_has_a_report(runs in prop::collection::vec(any_run(), 0..12)) {
        let sweep = sweep(runs);
        let page = html(&sweep);
        prop_assert_eq!(well_formed(&page), Ok(()));
        markdown(&sweep);
        let text = csv(&sweep);
        prop_assert!(text.lines().count() == sweep.runs.len() + 2);
        let back: Sweep = serde_json::from_str(&serde_json::to_string(&sweep).unwrap()).unwrap();
        prop_assert_eq!(csv(&back), text);
    }
}

#[test]
fn a_tuned_runs_losses_are_drawn() {
    let half = |held_out: [f64; 2]| HalfReport { kept_epoch: 1, held_out: held_out.into() };
    let tuned = |index| LayerReport {
        tuned: [("attention".to_string(), half([0.3, 0.2]))].into(),
        ..layer(index, &[], 0)
    };
    let tune = TuneReport {
        epochs: 2,
        kept_epoch: 2,
        held_out: vec![0.9, 0.5, 0.4],
        training: vec![0.8, 0.3],
    };
    let run = Run {
        layers: vec![tuned(0), tuned(1)],
        tune: Some(tune),
        ..run("wanda", "70%", &[], 12.0)
    };
    let page = html(&sweep(vec![run.clone()]));
    for words in ["Tuning", "while the whole model was tuned", "attention, before", "held out"] {
        assert!(page.contains(words), "{words}");
    }
    let untuned = Run { layers: vec![layer(0, &[], 0)], tune: None, ..run };
    assert!(!html(&sweep(vec![untuned])).contains("Tuning"));
}
