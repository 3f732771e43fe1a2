//! Renders `report.md`.

use super::document::{Cell, Row, Table};
use super::page::page;
use super::sweep::Sweep;

/// Renders the tables of a sweep's report as GitHub-flavoured Markdown.
pub fn markdown(sweep: &Sweep) -> String {
    let page = page(sweep);
    let mut out = format!("# {}\n\n{}\n", escape(&page.title), escape(&page.lead));
    for section in page.sections.iter().filter(|s| !s.tables.is_empty()) {
        out.push_str(&format!("\n## {}\n", section.title));
        if !section.note.is_empty() {
            out.push_str(&format!("\n{}\n", escape(&section.note)));
        }
        section.tables.iter().for_each(|t| out.push_str(&table(t)));
    }
    out
}

fn table(table: &Table) -> String {
    let line = |label: &str, cells: Vec<String>| format!("| {} | {} |\n", label, cells.join(" | "));
    let columns = table.columns.iter().map(|c| escape(c)).collect();
    let mut out = format!("\n{}:\n\n", escape(&table.caption));
    out.push_str(&line(&escape(table.corner), columns));
    out.push_str(&line("---", table.columns.iter().map(|_| "--:".into()).collect()));
    let cell = |c: &Cell| if c.best { format!("**{}**", escape(&c.text)) } else { escape(&c.text) };
    for Row { label, cells } in &table.rows {
        match cells.is_empty() {
            true => {
                let empty = table.columns.iter().map(|_| String::new()).collect();
                out.push_str(&line(&format!("*{}*", escape(label)), empty));
            }
            false => out.push_str(&line(&escape(label), cells.iter().map(cell).collect())),
        }
    }
    out
}

/// Escapes text so that Markdown shows it as it is, on one line.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '&' | '$' => {
                out.extend(['\\', c]);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
