//! Groups the runs that share a row of a table or a line of a figure: those of one method whose
//! settings differ only in the seed.

use super::stat::Stat;
use super::sweep::{Run, Sweep, distinct};
use sparsellm_prune::Pattern;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Runs that share a row of a table or a line of a figure, in order of appearance.
pub struct Group<'a> {
    /// The method, followed by the settings that tell groups apart.
    pub label: String,
    pub runs: Vec<&'a Run>,
}

impl Group<'_> {
    /// The mean of `value` over the group's runs at `pattern`.
    pub fn stat(&self, pattern: &str, value: impl Fn(&Run) -> Option<f64>) -> Option<Stat> {
        Stat::of(self.runs.iter().filter(|r| r.pattern == pattern).filter_map(|r| value(r)))
    }
}

/// The names of the settings that vary within a sweep, which tell groups apart.
pub struct Labels<'a>(BTreeSet<&'a str>);

impl<'a> Labels<'a> {
    /// The settings that vary within `sweep`, apart from the seed.
    pub fn of(sweep: &'a Sweep) -> Self {
        let names = sweep.runs.iter().flat_map(|r| r.settings.keys());
        let varies = |name: &&String| {
            let values = distinct(sweep.runs.iter().filter_map(|r| r.settings.get(*name)));
            // Whether some run of a method sets it and another run of that method does not.
            let partly = sweep.runs.iter().any(|a| {
                let same = |b: &Run| a.method == b.method;
                a.settings.contains_key(*name)
                    && sweep.runs.iter().any(|b| same(b) && !b.settings.contains_key(*name))
            });
            *name != "seed" && (values.len() > 1 || partly)
        };
        Labels(distinct(names).into_iter().filter(varies).map(String::as_str).collect())
    }

    /// Groups `runs` by method and settings, ignoring the seed and the settings in `except`.
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

    /// The label of a run's group, such as `sparsellm, alpha 5, beta 1`. Settings in `except`
    /// are left out.
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

/// The patterns of `runs`: first the unstructured ones, then the N:M patterns, each by
/// increasing sparsity.
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

/// Parses a pattern as reports show it: `70%` or `2:4`.
pub fn parse(pattern: &str) -> Option<Pattern> {
    match pattern.strip_suffix('%') {
        Some(percent) => Pattern::unstructured(percent.trim().parse::<f64>().ok()? / 100.0).ok(),
        None => pattern.parse().ok(),
    }
}

/// Compares two values of an option, as numbers if both are numbers and as text otherwise.
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
