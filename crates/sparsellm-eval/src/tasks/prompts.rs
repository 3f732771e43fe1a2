//! Turns a row of a data set, in the hub's form, into a question for the model, by the templates of
//! lm-evaluation-harness's task files. Each function's comment gives its template: the context, and
//! after a semicolon the continuations.

use super::{
    fields::{number, text, texts},
    item::{Item, Parsed},
    task::Task,
};
use serde_json::Value;

/// The question that a row asks.
pub fn item(task: Task, row: &Value) -> Parsed<Item> {
    match task {
        Task::LambadaOpenai => lambada(row),
        Task::HellaSwag => hellaswag(row),
        Task::Piqa => piqa(row),
        Task::WinoGrande => winogrande(row),
        Task::ArcEasy | Task::ArcChallenge => arc(row),
        Task::BoolQ => boolq(row),
        Task::Rte => rte(row),
        Task::OpenBookQa => openbookqa(row),
    }
}

/// The passage without its last word, which is split off at the last space; that word.
fn lambada(row: &Value) -> Parsed<Item> {
    let text = text(row, "text")?;
    let (context, word) = text.rsplit_once(' ').unwrap_or(("", text));
    Ok(Item { requests: vec![[context.into(), format!(" {word}")]], lengths: vec![1], gold: 0 })
}

/// `{activity_label}: {ctx_a} {ctx_b}`; the endings. All of them are tidied.
fn hellaswag(row: &Value) -> Parsed<Item> {
    let (label, a, b) = (text(row, "activity_label")?, text(row, "ctx_a")?, text(row, "ctx_b")?);
    let context = tidy(format!("{label}: {a} {}", capitalize(b)));
    let endings = texts(row, "endings")?;
    choices(&context, endings.into_iter().map(tidy).collect(), number(row, "label")?)
}

/// `Question: {goal}\nAnswer:`; the two solutions.
fn piqa(row: &Value) -> Parsed<Item> {
    let solutions = vec![text(row, "sol1")?.into(), text(row, "sol2")?.into()];
    choices(&question(text(row, "goal")?), solutions, number(row, "label")?)
}

/// The sentence up to its blank, filled with either name; the rest of the sentence.
fn winogrande(row: &Value) -> Parsed<Item> {
    let sentence = text(row, "sentence")?;
    let (before, after) = sentence.split_once('_').ok_or("the sentence has no blank \"_\"")?;
    let names = [text(row, "option1")?, text(row, "option2")?];
    let answer = number(row, "answer")?;
    let gold = answer.checked_sub(1).filter(|gold| *gold < 2).ok_or("\"answer\" is not 1 or 2")?;
    Ok(Item {
        requests: names
            .map(|name| [format!("{before}{name}"), format!(" {}", after.trim())])
            .to_vec(),
        lengths: names.map(|name| length(before) + length(name)).to_vec(),
        gold,
    })
}

/// `Question: {question}\nAnswer:`; the choices.
fn arc(row: &Value) -> Parsed<Item> {
    let (texts, gold) = labelled(row)?;
    choices(&question(text(row, "question")?), texts, gold)
}

/// `{question_stem}`; the choices.
fn openbookqa(row: &Value) -> Parsed<Item> {
    let (texts, gold) = labelled(row)?;
    choices(text(row, "question_stem")?, texts, gold)
}

/// `{passage}\nQuestion: {question}?\nAnswer:`; `no` or `yes`.
fn boolq(row: &Value) -> Parsed<Item> {
    let (passage, question) = (text(row, "passage")?, text(row, "question")?);
    let context = format!("{passage}\nQuestion: {question}?\nAnswer:");
    choices(&context, vec!["no".into(), "yes".into()], number(row, "label")?)
}

/// `{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:`; `True` or `False`.
fn rte(row: &Value) -> Parsed<Item> {
    let (premise, hypothesis) = (text(row, "sentence1")?, text(row, "sentence2")?);
    let context = format!("{premise}\nQuestion: {hypothesis} True or False?\nAnswer:");
    choices(&context, vec!["True".into(), "False".into()], number(row, "label")?)
}

fn question(question: &str) -> String {
    format!("Question: {question}\nAnswer:")
}

/// A question with one context for all choices. Each continuation is a space and the choice.
fn choices(context: &str, choices: Vec<String>, gold: usize) -> Parsed<Item> {
    if gold >= choices.len() {
        return Err(format!("the answer is choice {gold} of {} (from 0)", choices.len()));
    }
    if choices.iter().any(String::is_empty) {
        return Err("a choice is empty".into());
    }
    Ok(Item {
        requests: choices.iter().map(|choice| [context.into(), format!(" {choice}")]).collect(),
        lengths: choices.iter().map(|choice| length(choice)).collect(),
        gold,
    })
}

/// The choices in `choices.text`, and the index at which `choices.label` equals `answerKey`.
fn labelled(row: &Value) -> Parsed<(Vec<String>, usize)> {
    let choices = row.get("choices").ok_or("no \"choices\" field")?;
    let (labels, key) = (texts(choices, "label")?, text(row, "answerKey")?.trim_start());
    let gold = labels.iter().position(|label| *label == key);
    let gold = gold.ok_or_else(|| format!("\"answerKey\" is {key}, which is no choice's label"))?;
    Ok((texts(choices, "text")?.into_iter().map(String::from).collect(), gold))
}

/// Python's `len` of a string.
fn length(text: &str) -> usize {
    text.chars().count()
}

/// Python's `str.capitalize`.
fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.as_str().to_lowercase().chars()).collect()
}

/// HellaSwag's `preprocess`, which removes artefacts of the data set: WikiHow's `[title]` and other
/// text in brackets.
fn tidy(text: impl AsRef<str>) -> String {
    let text = text.as_ref().trim().replace(" [title]", ". ");
    let (mut out, mut rest) = (String::new(), text.as_str());
    // This is `re.sub("\[.*?\]", "", text)`, in which `.` matches no line break.
    while let Some(open) = rest.find('[') {
        let inside = &rest[open + 1..];
        match inside.find([']', '\n']) {
            Some(close) if inside.as_bytes()[close] == b']' => {
                out.push_str(&rest[..open]);
                rest = &inside[close + 1..];
            }
            _ => {
                out.push_str(&rest[..=open]);
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    out.replace("  ", " ")
}
