//! Reads the rows of a task from a local file. The data sets are distributed in several forms, all
//! of which are converted to the form of the data set on the hub.

use super::{fields::text, item::Parsed, task::Task};
use serde_json::{Value, json};
use sparsellm_base::{Error, Result, input_error};
use sparsellm_data::rows::{self, Row, Rows, at};
use std::path::{Path, PathBuf};

/// Finds a task's file in a folder: the one whose name starts with the name of the task, such as
/// `arc-easy_test.json`.
///
/// # Errors
/// If the folder cannot be read, or holds no such file or more than one.
pub fn file_in(task: Task, folder: &Path) -> Result<PathBuf> {
    let start = match task {
        Task::LambadaOpenai => "lambada",
        _ => task.name(),
    };
    let fail = |e| Error::io(folder, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase().replace('-', "_");
        let kinds = [".json", ".jsonl", ".gz", ".parquet", ".txt", ".bz2"];
        if name.starts_with(start) && kinds.iter().any(|kind| name.ends_with(kind)) {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => input_error!(
            "{}: no file for {}; its name must start with \"{start}\" and end in .json, .jsonl, .parquet or .txt, gzipped or not",
            folder.display(),
            task.name()
        ),
        [one, other, ..] => input_error!(
            "{} and {} could both be {}; name one of them in `tasks`, as {}:FILE",
            one.display(),
            other.display(),
            task.name(),
            task.name()
        ),
    }
}

/// The rows of a file, converted to the hub's form.
pub fn rows(task: Task, path: &Path) -> Result<Rows<Value>> {
    let name = path.to_string_lossy();
    if task == Task::HellaSwag && (name.ends_with(".txt") || name.ends_with(".txt.bz2")) {
        return six_lines(path);
    }
    let labels = (task == Task::Piqa).then(|| piqa_labels(path)).transpose()?.flatten();
    let path = path.to_path_buf();
    Ok(Box::new(rows::rows::<Value>(&path)?.enumerate().map(move |(i, row)| {
        let Row { number, mut value } = row?;
        if let Some(labels) = &labels
            && let Some(row) = value.as_object_mut()
        {
            let label = labels.get(i).ok_or_else(|| at(&path, number, "no label for it"))?;
            row.insert("label".into(), json!(label));
        }
        let value = hub_form(task, value).map_err(|e| at(&path, number, e))?;
        Ok(Row { number, value })
    })))
}

/// Converts one row to the hub's form.
fn hub_form(task: Task, row: Value) -> Parsed<Value> {
    if row.get("instruction").is_some() {
        let (instruction, answer) = (text(&row, "instruction")?, text(&row, "answer")?);
        return match task {
            Task::WinoGrande => blank(instruction, answer),
            _ => numbered_answers(instruction, answer),
        };
    }
    if task == Task::BoolQ && row.get("prompt").is_some() {
        return passage(&row);
    }
    Ok(row)
}

/// Reads HellaSwag from a text file with six lines per row: the context (`activity_label: ctx`),
/// the number of the right ending, and four endings. Errors give the line instead of the row.
fn six_lines(path: &Path) -> Result<Rows<Value>> {
    let mut lines = rows::lines(path)?;
    let path = path.to_path_buf();
    Ok(Box::new(std::iter::from_fn(move || {
        let first = lines.next()?;
        let row = || {
            let Row { number, value: context } = first?;
            let mut next = || match lines.next() {
                Some(line) => Ok(line?.value.trim_end_matches(['\n', '\r']).to_string()),
                None => Err(at(&path, number, "the file ends within this row's six lines")),
            };
            let label = next()?;
            let endings = [next()?, next()?, next()?, next()?];
            let context = context.trim_end_matches(['\n', '\r']);
            let Some((activity, context)) = context.split_once(": ") else {
                return Err(at(&path, number, "no \"activity: context\" line"));
            };
            let value = json!({"activity_label": activity, "ctx_a": context, "ctx_b": "",
                               "endings": endings, "label": label});
            Ok(Row { number, value })
        };
        Some(row())
    })))
}

/// PIQA's labels, which its authors keep in a file beside the questions: `dev-labels.lst` belongs
/// to `dev.jsonl`.
fn piqa_labels(path: &Path) -> Result<Option<Vec<String>>> {
    let labels = path.with_file_name(match path.file_stem() {
        Some(stem) => format!("{}-labels.lst", stem.to_string_lossy()),
        None => return Ok(None),
    });
    if !labels.is_file() {
        return Ok(None);
    }
    let lines = rows::lines(&labels)?;
    lines.map(|line| Ok(line?.value.trim().to_string())).collect::<Result<_>>().map(Some)
}

/// Converts a BoolQ row of the form
/// `{"prompt": "passage: P\nquestion: {}", "subject": Q, "target_new": {"str": "True"}}`.
fn passage(row: &Value) -> Parsed<Value> {
    let passage = text(row, "prompt")?
        .strip_prefix("passage: ")
        .and_then(|p| p.strip_suffix("\nquestion: {}"));
    let passage = passage.ok_or("\"prompt\" is not \"passage: ...\\nquestion: {}\"")?;
    let answer = row.get("target_new").ok_or("no \"target_new\" field")?;
    let label = match text(answer, "str")? {
        "True" => 1,
        "False" => 0,
        other => return Err(format!("\"target_new\" is {other}, not True or False")),
    };
    Ok(json!({"passage": passage, "question": text(row, "subject")?, "label": label}))
}

/// Converts an instruction of the form
/// `...question: Q\n\nAnswer1: A Answer2: B ...\n\nAnswer format: answer1/answer2/...`, whose
/// answer has the form `answerN`.
fn numbered_answers(instruction: &str, answer: &str) -> Parsed<Value> {
    let [question, answers, format] = parts(
        instruction,
        "Please choose the correct answer to the question: ",
        ["\n\nAnswer1: ", "\n\nAnswer format: "],
    )?;
    let labels: Vec<&str> = format.split('/').collect();
    let mut texts = Vec::new();
    let mut rest = answers;
    for k in 2..=labels.len() {
        let cut = rest.split_once(&format!(" Answer{k}: "));
        let (text, next) = cut.ok_or_else(|| format!("the instruction has no Answer{k}"))?;
        texts.push(text);
        rest = next;
    }
    texts.push(rest);
    Ok(json!({"question": question, "question_stem": question, "answerKey": answer,
              "choices": {"text": texts, "label": labels}}))
}

/// Converts a WinoGrande instruction of the form
/// `...sentence: S\n\nOption1: A Option2: B Answer format: option1/option2`.
fn blank(instruction: &str, answer: &str) -> Parsed<Value> {
    let [sentence, options, _] = parts(
        instruction,
        "Please choose the correct answer to fill in the blank to complete the given sentence: ",
        ["\n\nOption1: ", " Answer format: "],
    )?;
    let (one, two) = options.split_once(" Option2: ").ok_or("the instruction has no Option2")?;
    let answer = answer.strip_prefix("option").ok_or("\"answer\" is not option1 or option2")?;
    Ok(json!({"sentence": sentence, "option1": one, "option2": two, "answer": answer}))
}

/// Removes `start` from an instruction and splits the rest at the two `marks`.
fn parts<'a>(instruction: &'a str, start: &str, marks: [&str; 2]) -> Parsed<[&'a str; 3]> {
    let lacks = |what: &str| format!("the instruction has no \"{}\"", what.trim());
    let rest = instruction.strip_prefix(start).ok_or_else(|| lacks(start))?;
    let (first, rest) = rest.split_once(marks[0]).ok_or_else(|| lacks(marks[0]))?;
    let (second, third) = rest.split_once(marks[1]).ok_or_else(|| lacks(marks[1]))?;
    Ok([first, second, third])
}
