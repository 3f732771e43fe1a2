//! Which runs share a row: those whose settings differ in the seed alone.

use super::stat::Stat;
use super::sweep::{Run, Sweep, distinct};
use sparsellm_prune::Pattern;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Runs that share a row or a line, in order of appearance.
pub struct Group<'a> {
    /// The method, and those settings by which groups differ.
    pub label: String,
    pub runs: Vec<&'a Run>,
}

impl Group<'_> {
    /// The mean of `value` over the runs with one pattern.
    pub fn stat(&self, pattern: &str, value: impl Fn(&Run) -> Option<f64>) -> Option<Stat> {
        Stat::of(self.runs.iter().filter(|r| r.pattern == pattern).filter_map(|r| value(r)))
    }
}

/// Tells groups apart by the settings that vary within a sweep.
pub struct Labels<'a>(BTreeSet<&'a str>);

impl<'a> Labels<'a> {
    pub fn of(sweep: &'a Sweep) -> Self {
        let names = sweep.runs.iter().flat_map(|r| r.settings.keys());
        let varies = |name: &&String| {
            let values = distinct(sweep.runs.iter().filter_map(|r| r.settings.get(*name)));
            // Set for one run of a method and left alone for another.
            let partly = sweep.runs.iter().any(|a| {
                let same = |b: &Run| a.method == b.method;
                a.settings.contains_key(*name)
                    && sweep.runs.iter().any(|b| same(b) && !b.settings.contains_key(*name))
            });
            *name != "seed" && (values.len() > 1 || partly)
        };
        Labels(distinct(names).into_iter().filter(varies).map(String::as_str).collect())
    }

    /// `runs` by method and settings, but for the seed and those in `except`.
    pub fn groups<'r>(&self, runs: &[&'r Run], except: &[&str]) -> Vec<Group<'r>> {
        let mut groups: Vec<Group> = Vec::new();
        for run in runs {
            let label = self.label(run, except);
            match groups.iter_mut().find(|g| g.label == label) {
                Some(group) => group.runs.push(run),
                None => groups.push(Group { label, runs: vec![run] }),
            }
        }
        groups
    }

    /// `sparsellm, alpha 5, beta 1`.
    pub fn label(&self, run: &Run, except: &[&str]) -> String {
        let mut label = run.method.clone();
        for (name, value) in &run.settings {
            if self.0.contains(name.as_str()) && !except.contains(&name.as_str()) {
                label.push_str(&format!(", {name} {value}"));
            }
        }
        label
    }
}

/// The patterns of `runs`: fractions by size, then N:M by sparsity.
pub fn patterns<'a>(runs: &[&'a Run]) -> Vec<&'a str> {
    let mut patterns = distinct(runs.iter().map(|r| r.pattern.as_str()));
    let key = |p: &str| match parse(p) {
        Some(Pattern::Unstructured(rho)) => (0, rho),
        Some(pattern) => (1, pattern.sparsity()),
        None => (2, 0.0),
    };
    patterns.sort_by(|a, b| {
        let ((class_a, rho_a), (class_b, rho_b)) = (key(a), key(b));
        class_a.cmp(&class_b).then(rho_a.total_cmp(&rho_b)).then(a.cmp(b))
    });
    patterns
}

/// A pattern from its name, where it is one.
pub fn parse(pattern: &str) -> Option<Pattern> {
    match pattern.strip_suffix('%') {
        Some(percent) => Pattern::unstructured(percent.trim().parse::<f64>().ok()? / 100.0).ok(),
        None => pattern.parse().ok(),
    }
}

/// Orders option values as numbers where both are.
pub fn by_number(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.total_cmp(&y).then(a.cmp(b)),
        _ => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_as_numbers() {
        let mut values = ["10", "9", "auto", "0.5"];
        values.sort_by(|a, b| by_number(a, b));
        assert_eq!(values, ["0.5", "9", "10", "auto"]);
    }
}
