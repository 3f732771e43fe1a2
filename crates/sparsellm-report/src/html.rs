//! Renders `report.html`: one file that loads no other file and runs no script.

use super::document::{Cell, Figure, Look, Page, Row, Section, Table};
use super::page::page;
use super::plot::{Plot, dashes, ring};
use super::sweep::Sweep;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("report.css");

/// Renders a sweep's report as one HTML page, which loads no other file and runs no script. The
/// report of a sweep with a single run shows the layers and linears of that run.
pub fn html(sweep: &Sweep) -> String {
    let Page { title, lead, sections } = page(sweep);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p { (lead) }
                    @if sections.len() > 2 {
                        nav aria-label="Sections" {
                            ul {
                                @for (i, section) in sections.iter().enumerate() {
                                    li { a href={ "#s" (i) } { (section.title) } }
                                }
                            }
                        }
                    }
                }
                main {
                    @for (i, section) in sections.iter().enumerate() {
                        (self::section(i, section))
                    }
                }
            }
        }
    };
    page.into_string()
}

fn section(i: usize, section: &Section) -> Markup {
    let id = format!("s{i}");
    let tables = |folded| section.tables.iter().filter(move |t| (t.look == Look::Folded) == folded);
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (section.title) }
            @if !section.note.is_empty() { p { (section.note) } }
            div.tables { @for table in tables(false) { (self::table(table)) } }
            @if !section.figures.is_empty() {
                div.figures { @for figure in &section.figures { (self::figure(figure)) } }
            }
            @for table in tables(true) {
                details {
                    summary { (table.caption) ", as a table" }
                    (rows(table))
                }
            }
        }
    }
}

fn table(table: &Table) -> Markup {
    html! {
        div.table {
            h3 { (table.caption) }
            (rows(table))
        }
    }
}

/// The table itself, which scrolls on its own if it is wider than the screen.
fn rows(table: &Table) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(table.caption) {
            table.words[table.look == Look::Words].methods[table.corner.starts_with("method")] aria-label=(table.caption) {
                thead {
                    tr {
                        th scope="col" { (table.corner) }
                        @for column in &table.columns { th scope="col" { (column) } }
                    }
                }
                tbody {
                    @for Row { label, cells } in &table.rows {
                        @if cells.is_empty() {
                            tr.group { th scope="rowgroup" colspan=(table.columns.len() + 1) { (label) } }
                        } @else {
                            tr {
                                th scope="row" { (label) }
                                @for cell in cells { (self::cell(cell)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(cell: &Cell) -> Markup {
    html! { td { @if cell.best { strong { (cell.text) } } @else { (cell.text) } } }
}

fn figure(figure: &Figure) -> Markup {
    html! {
        figure {
            figcaption { (figure.caption) }
            (svg(&figure.plot.svg(), Some(&figure.caption)))
            @if let Plot::Lines(lines) = &figure.plot {
                ul.key {
                    @for series in &lines.series {
                        li { (svg(&series.style.sample(), None)) (series.label) }
                    }
                    @if lines.series.iter().any(|s| !s.hollow.is_empty()) {
                        li { (svg(&ring(), None)) (lines.hollow) }
                    }
                    @if let Some((label, _)) = &lines.level {
                        li { (svg(&dashes(), None)) (label) }
                    }
                }
            }
        }
    }
}

/// Wraps what plotters drew in an `<svg>` element of our own, which has no size in pixels. With
/// a name, it is announced to screen readers; without one, it is hidden from them.
fn svg(drawn: &str, name: Option<&str>) -> Markup {
    let view = drawn.split_once("viewBox=\"").and_then(|(_, rest)| rest.split_once('"'));
    let body = drawn.split_once('>').map_or("", |(_, body)| body);
    html! {
        svg viewBox=(view.map_or("", |v| v.0)) role=[name.map(|_| "img")] aria-label=[name]
            aria-hidden=[name.is_none().then_some("true")] {
            (PreEscaped(body.trim_end().trim_end_matches("</svg>")))
        }
    }
}
