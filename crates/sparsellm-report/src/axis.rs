//! The axes of plots, labelled at round numbers.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// How values are placed along an axis, and which of them are labelled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// A linear scale, labelled at round numbers.
    Linear,
    /// A linear scale, labelled at whole numbers only.
    Whole,
    /// A logarithmic scale, labelled at round numbers.
    Log,
    /// A logarithmic scale, labelled at the values themselves.
    LogValues,
}

/// An axis that plotters can draw.
pub struct Axis {
    log: bool,
    /// The first and last value, or their decimal logarithms if the axis is logarithmic.
    range: Range<f64>,
    /// The labelled values with their labels.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that covers all of `values` that are finite and, if the axis is logarithmic,
    /// positive.
    pub fn over(values: impl Iterator<Item = f64>, scale: Scale) -> Axis {
        let log = matches!(scale, Scale::Log | Scale::LogValues);
        let usable = |v: &f64| v.is_finite() && (!log || *v > 0.0);
        let mut values: Vec<f64> = values.filter(usable).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = match (values.first(), values.last()) {
            (Some(low), Some(high)) => (*low, *high),
            _ => (1.0, 10.0),
        };
        let place = |v: f64| if log { v.log10() } else { v };
        let (start, end) = (place(low), place(high));
        let pad = match end > start {
            true => 0.05 * (end - start),
            false if log => 0.1,
            false => 0.5,
        };
        let range = start - pad..end + pad;
        let round = match scale {
            Scale::Linear => even(range.start, range.end, 0.0),
            Scale::Whole => even(low, high, 1.0),
            Scale::Log => round(range.start, range.end),
            Scale::LogValues => values,
        };
        let mut axis = Axis { log, range, ticks: Vec::new() };
        for v in round {
            // A label too close to the last one would overlap it.
            let clear = |last: &(f64, String)| axis.along(v) - axis.along(last.0) > 0.08;
            if (0.0..=1.0).contains(&axis.along(v)) && axis.ticks.last().is_none_or(clear) {
                axis.ticks.push((v, label(v)));
            }
        }
        axis
    }

    /// The position of a value along the axis, from 0 at its start to 1 at its end.
    fn along(&self, value: f64) -> f64 {
        let place = if self.log { value.log10() } else { value };
        (place - self.range.start) / (self.range.end - self.range.start)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (self.along(*value) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.iter().map(|t| t.0).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        match self.log {
            true => 10f64.powf(self.range.start)..10f64.powf(self.range.end),
            false => self.range.clone(),
        }
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|t| t.0 == *value).map(|t| t.1.clone()).unwrap_or_default()
    }
}

/// About five evenly spaced round numbers from `low` to `high`. They are multiples of 1, 2 or 5
/// times a power of ten, and at least `least` apart.
fn even(low: f64, high: f64, least: f64) -> Vec<f64> {
    let span = high - low;
    let power = (span / 5.0).log10().floor();
    let steps = [1.0, 2.0, 5.0, 10.0].map(|m| exact(m, power as i32));
    let step =
        steps.into_iter().find(|s| *s >= least && span / s <= 6.0).unwrap_or(least.max(span));
    if !(step.is_finite() && step > 0.0) {
        return vec![low];
    }
    // For a fractional step, dividing is exact where multiplying is not: 3 / 10 is 0.3, but
    // 3 * 0.1 is not.
    let multiple = |k: f64| if step < 1.0 { k / (1.0 / step).round() } else { k * step };
    let first = (low / step).ceil();
    let count = ((high / step).floor() - first).clamp(0.0, 20.0) as usize;
    (0..=count).map(|k| multiple(first + k as f64)).collect()
}

/// Round numbers between `10^start` and `10^end`: powers of ten if there are enough of them,
/// otherwise more numbers between the powers.
fn round(start: f64, end: f64) -> Vec<f64> {
    let inside = |v: &f64| (start..=end).contains(&v.log10());
    let apart = ((end - start) / 6.0).ceil().max(1.0);
    let decades = ((start / apart).floor() * apart) as i32..=end.ceil() as i32;
    let mantissas: [&[f64]; 4] =
        [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]];
    for set in mantissas {
        let of = |d: i32| set.iter().map(move |m| exact(*m, d)).filter(inside);
        let ticks: Vec<f64> = decades.clone().step_by(apart as usize).flat_map(of).collect();
        if ticks.len() > 3 {
            return ticks;
        }
    }
    even(10f64.powf(start), 10f64.powf(end), 0.0)
}

/// `m·10^power`, parsed from its digits, because computed powers of ten carry rounding errors.
fn exact(m: f64, power: i32) -> f64 {
    format!("{m}e{power}").parse().unwrap_or(m)
}

/// The label of a value: plain digits, or scientific notation for very small and large values.
fn label(v: f64) -> String {
    match v.abs() {
        s if s == 0.0 || (1e-3..1e6).contains(&s) => v.to_string(),
        _ => format!("{v:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(values: &[f64], scale: Scale) -> Vec<String> {
        Axis::over(values.iter().copied(), scale).ticks.into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&[1.8, 603.8], Scale::Log), ["3", "10", "30", "100", "300"]);
        assert_eq!(labels(&[1.8, 62.0], Scale::Log), ["2", "5", "10", "20", "50"]);
        assert_eq!(labels(&[1.9, 2.6], Scale::Log), ["2", "2.2", "2.4", "2.6"]);
        assert_eq!(labels(&[0.5, 2e9], Scale::Log), ["1", "100", "10000", "1e6", "1e8"]);
        assert_eq!(labels(&[50.0, 90.0], Scale::Linear), ["50", "60", "70", "80", "90"]);
        assert_eq!(labels(&[0.0, 5.0], Scale::Whole), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(labels(&[0.0, 31.0], Scale::Whole), ["0", "10", "20", "30"]);
        assert_eq!(labels(&[8.0, 32.0, 128.0], Scale::LogValues), ["8", "32", "128"]);
    }

    proptest! {
        #[test]
        fn any_values_have_an_axis(values in prop::collection::vec(any::<f64>(), 0..6)) {
            for scale in [Scale::Linear, Scale::Whole, Scale::Log, Scale::LogValues] {
                let axis = Axis::over(values.iter().copied(), scale);
                prop_assert!(axis.ticks.len() <= 20);
                for v in values.iter().filter(|v| v.abs() < 1e300) {
                    axis.map(v, (0, 800));
                }
            }
        }
    }
}
