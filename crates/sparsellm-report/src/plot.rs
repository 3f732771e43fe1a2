//! Draws plots as SVG with plotters.
//!
//! Everything is drawn at twice its intended size, because the coordinates of plotters are whole
//! numbers. The key of a plot is not part of the SVG: as HTML, it wraps on a narrow screen.

use super::axis::{self, Axis};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

/// A plot of either kind.
pub enum Plot {
    Lines(Lines),
    Grid(Grid),
}

/// Lines that share their axes. The y axis is logarithmic.
pub struct Lines {
    /// The title and the scale of the x axis.
    pub x: (&'static str, axis::Scale),
    /// The title of the y axis.
    pub y: &'static str,
    pub series: Vec<Series>,
    /// The key's text for hollow markers.
    pub hollow: &'static str,
    /// The label and the y value of a horizontal dashed line.
    pub level: Option<(String, f64)>,
}

/// A line with its markers, each given as points `(x, y)`. A point is left out unless both
/// coordinates are finite and y is positive.
pub struct Series {
    pub label: String,
    pub style: Style,
    pub line: Vec<(f64, f64)>,
    /// The points with filled markers.
    pub marks: Vec<(f64, f64)>,
    /// The points with hollow markers, which do not belong to the line.
    pub hollow: Vec<(f64, f64)>,
}

impl Series {
    /// A line with a marker at each point.
    pub fn with_marks(label: String, style: Style, line: Vec<(f64, f64)>) -> Series {
        Series { label, style, marks: line.clone(), line, hollow: Vec::new() }
    }
}

/// A heat map: a table whose cells are coloured by their values, on a logarithmic scale.
pub struct Grid {
    /// The title of the x axis and the labels of the columns.
    pub x: (&'static str, Vec<String>),
    /// The title of the y axis and the labels of the rows.
    pub y: (&'static str, Vec<String>),
    /// The rows of cells. Each cell has a value and the text that is written on it; `None`
    /// leaves it empty.
    pub cells: Vec<Vec<Option<(f64, String)>>>,
}

/// The colour and the marker of a series.
#[derive(Clone, Copy)]
pub struct Style {
    colour: RGBColor,
    marker: usize,
}

impl Style {
    /// The style of the `i`-th of several categories that have no order. The colours are those
    /// of Okabe and Ito, which colour-blind readers can tell apart; the markers differ, too.
    pub fn category(i: usize) -> Style {
        const COLOURS: [(u8, u8, u8); 7] = [
            (0, 114, 178),
            (213, 94, 0),
            (0, 158, 115),
            (204, 121, 167),
            (230, 159, 0),
            (86, 180, 233),
            (0, 0, 0),
        ];
        let (r, g, b) = COLOURS[i % COLOURS.len()];
        Style { colour: RGBColor(r, g, b), marker: i % MARKERS }
    }

    /// The style of the category `label` among `all`. It is the same in every figure that
    /// passes the same `all`, even if the figure shows only some of them.
    pub fn of(label: &str, all: &[String]) -> Style {
        Style::category(all.iter().position(|l| l == label).unwrap_or(0))
    }

    /// The style of the `i`-th of `n` ordered series, whose colours go from dark to light.
    pub fn step(i: usize, n: usize) -> Style {
        // The scale stops at 0.85: its lightest yellow is hard to see on white.
        Style {
            colour: viridis(0.85 * i as f64 / n.saturating_sub(1).max(1) as f64),
            marker: i % MARKERS,
        }
    }

    /// The SVG that stands for this style in a key: a short line with its marker.
    pub fn sample(self) -> String {
        svg((52, 28), |area| {
            area.draw(&PathElement::new([(2, 14), (50, 14)], self.colour.stroke_width(4)))?;
            mark(area, (26, 14), self, false)
        })
    }
}

/// The SVG that stands for hollow markers in a key.
pub fn ring() -> String {
    svg((52, 28), |area| mark(area, (26, 14), Style { colour: INK, marker: 0 }, true))
}

/// The SVG that stands for the dashed line in a key.
pub fn dashes() -> String {
    svg((52, 28), |area| dashed(area, [(2, 14), (50, 14)]))
}

impl Lines {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|s| s.line.iter().chain(&s.marks).chain(&s.hollow)).copied()
    }

    /// Whether no point can be drawn.
    pub fn is_empty(&self) -> bool {
        !self.points().any(|p| drawable(&p))
    }

    /// Whether some points cannot be drawn and are left out.
    pub fn drops_points(&self) -> bool {
        self.points().any(|p| !drawable(&p))
    }
}

impl Plot {
    /// Renders the plot as an SVG document.
    pub fn svg(&self) -> String {
        match self {
            Plot::Lines(lines) => lines.svg(),
            Plot::Grid(grid) => grid.svg(),
        }
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const TEXT: i32 = 25;
const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(221, 221, 221);

/// The style of text that is `size` units high. The factor undoes that plotters divides font
/// sizes by 1.24.
fn text(size: i32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", f64::from(size) * 1.24).into_font().color(&colour)
}

fn svg(size: (u32, u32), draw: impl FnOnce(&Area) -> Drawn) -> String {
    let mut out = String::new();
    let area = SVGBackend::with_string(&mut out, size).into_drawing_area();
    // Writing to a string cannot fail.
    let drawn = draw(&area).and_then(|()| Ok(area.present()?));
    debug_assert!(drawn.is_ok());
    drop(area);
    out
}

impl Lines {
    fn svg(&self) -> String {
        svg((800, 560), |area| self.draw(area))
    }

    fn draw(&self, area: &Area) -> Drawn {
        let points: Vec<_> = self.points().filter(drawable).collect();
        let level = self.level.as_ref().map(|l| l.1).filter(|y| drawable(&(0.0, *y)));
        let x = Axis::over(points.iter().map(|p| p.0), self.x.1);
        let y = Axis::over(points.iter().map(|p| p.1).chain(level), axis::Scale::Log);
        let longest = y.ticks.iter().map(|t| t.1.chars().count()).max().unwrap_or(0) as i32;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(80)
            .y_label_area_size(58 + longest * TEXT * 6 / 10)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(text(TEXT, INK))
            .axis_desc_style(text(TEXT, INK))
            .x_desc(self.x.0)
            .y_desc(self.y)
            .draw()?;
        let pixel = |p: (f64, f64)| chart.backend_coord(&p);
        if let Some(level) = level {
            let (xs, _) = chart.plotting_area().get_pixel_range();
            let y = chart.backend_coord(&(0.0, level)).1;
            dashed(area, [(xs.start, y), (xs.end, y)])?;
        }
        for s in &self.series {
            let line: Vec<_> = s.line.iter().copied().filter(drawable).map(pixel).collect();
            if line.len() > 1 {
                area.draw(&PathElement::new(line, s.style.colour.stroke_width(4)))?;
            }
            for (points, hollow) in [(&s.marks, false), (&s.hollow, true)] {
                for p in points.iter().copied().filter(drawable) {
                    mark(area, pixel(p), s.style, hollow)?;
                }
            }
        }
        Ok(())
    }
}

fn drawable(p: &(f64, f64)) -> bool {
    p.0.is_finite() && p.1.is_finite() && p.1 > 0.0
}

fn dashed(area: &Area, ends: [(i32, i32); 2]) -> Drawn {
    area.draw(&DashedPathElement::new(ends, 10, 8, INK.stroke_width(3)))?;
    Ok(())
}

const MARKERS: usize = 5;

fn mark(area: &Area, (x, y): (i32, i32), style: Style, hollow: bool) -> Drawn {
    let (fill, line) = (if hollow { WHITE } else { style.colour }, style.colour.stroke_width(3));
    let outline: &[(i32, i32)] = match style.marker {
        0 => {
            area.draw(&Circle::new((x, y), 8, fill.filled()))?;
            area.draw(&Circle::new((x, y), 8, line))?;
            return Ok(());
        }
        1 => &[(-7, -7), (7, -7), (7, 7), (-7, 7), (-7, -7)],
        2 => &[(0, -10), (9, 7), (-9, 7), (0, -10)],
        3 => &[(0, -11), (10, 0), (0, 11), (-10, 0), (0, -11)],
        _ => &[(0, 10), (9, -7), (-9, -7), (0, 10)],
    };
    let outline: Vec<_> = outline.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
    area.draw(&Polygon::new(outline.clone(), fill.filled()))?;
    area.draw(&PathElement::new(outline, line))?;
    Ok(())
}

impl Grid {
    fn svg(&self) -> String {
        let height = 56 * self.cells.len().clamp(4, 40) as u32 + 84;
        svg((800, height), |area| self.draw(area, height as i32))
    }

    fn draw(&self, area: &Area, height: i32) -> Drawn {
        let (columns, rows) = (self.x.1.len().max(1) as i32, self.y.1.len().max(1) as i32);
        let longest = self.y.1.iter().map(|l| l.chars().count()).max().unwrap_or(0).min(16) as i32;
        let (left, right) = (64 + longest * TEXT * 6 / 10, 792);
        let bottom = height - 80;
        let (wide, high) = ((right - left) / columns, (bottom - 4) / rows);
        let middle = Pos::new(HPos::Center, VPos::Center);
        let write = |label: &str, at, style: TextStyle<'static>| {
            area.draw(&Text::new(label.to_string(), at, style))
        };
        for (i, label) in self.x.1.iter().enumerate() {
            let at = (left + wide * i as i32 + wide / 2, bottom + 22);
            write(label, at, text(fitting(label, wide), INK).pos(middle))?;
        }
        for (j, label) in self.y.1.iter().enumerate() {
            let at = (left - 12, 4 + high * j as i32 + high / 2);
            write(label, at, text(TEXT, INK).pos(Pos::new(HPos::Right, VPos::Center)))?;
        }
        write(self.x.0, (left + wide * columns / 2, height - 20), text(TEXT, INK).pos(middle))?;
        write(self.y.0, (20, 4 + high * rows / 2), text(TEXT, INK).pos(middle))?;

        let values = self.cells.iter().flatten().flatten().map(|c| c.0);
        let values: Vec<f64> = values.filter(|v| drawable(&(0.0, *v))).map(f64::log10).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high_end = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for (j, row) in self.cells.iter().enumerate() {
            for (i, cell) in row.iter().enumerate() {
                let Some((value, label)) = cell else { continue };
                let colour = match drawable(&(0.0, *value)) {
                    true if high_end > low => viridis((value.log10() - low) / (high_end - low)),
                    true => viridis(0.5),
                    false => FAINT,
                };
                let (x, y) = (left + wide * i as i32, 4 + high * j as i32);
                let corners = [(x + 1, y + 1), (x + wide - 1, y + high - 1)];
                area.draw(&Rectangle::new(corners, colour.filled()))?;
                let style = text(fitting(label, wide), readable_on(colour));
                write(label, (x + wide / 2, y + high / 2), style.pos(middle))?;
            }
        }
        Ok(())
    }
}

/// The font size at which a label fits into a cell of this width.
fn fitting(label: &str, width: i32) -> i32 {
    let chars = label.chars().count().max(1) as i32;
    (width * 10 / (6 * chars + 4)).clamp(8, TEXT)
}

/// The viridis colour at `t`, from 0 (dark) to 1 (light). Its steps look even to the eye.
fn viridis(t: f64) -> RGBColor {
    ViridisRGB.get_color(t.clamp(0.0, 1.0))
}

/// The colour of text on this background: black or white, whichever has more contrast by
/// WCAG's relative luminance.
fn readable_on(RGBColor(r, g, b): RGBColor) -> RGBColor {
    let linear = |c: u8| (f64::from(c) / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    if luminance > 0.179 { BLACK } else { WHITE }
}
