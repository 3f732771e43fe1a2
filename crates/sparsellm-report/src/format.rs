//! How reports write numbers.

use super::stat::Stat;

/// The placeholder for a missing value.
pub const NOTHING: &str = "–";

/// The value written by `write`, or the placeholder if there is none.
pub fn shown<T>(value: Option<T>, write: impl Fn(T) -> String) -> String {
    value.map_or(NOTHING.into(), write)
}

/// Writes a number with about four significant digits: `1.838`, `62.05`, `19955`, `1.20e9`.
pub fn number(v: f64) -> String {
    let size = v.abs();
    match size {
        _ if !size.is_finite() => "inf".into(),
        _ if size >= 1e6 => format!("{v:.2e}"),
        _ => format!("{v:.*}", decimals(v)),
    }
}

/// Writes a mean like `number`, and its deviation with as many decimals as the mean.
pub fn with_deviation(stat: &Stat) -> String {
    match stat.deviation {
        Some(d) if d.is_finite() && stat.mean.abs() < 1e6 => {
            format!("{} ± {d:.*}", number(stat.mean), decimals(stat.mean))
        }
        Some(d) => format!("{} ± {}", number(stat.mean), number(d)),
        None => number(stat.mean),
    }
}

/// The number of decimals that gives about four significant digits.
fn decimals(v: f64) -> usize {
    match v.abs() {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        s if s < 1000.0 => 1,
        _ => 0,
    }
}

/// Writes a relative error with three significant digits: `0.0312`, `4.10e-5`.
pub fn error(v: f64) -> String {
    let size = v.abs();
    match size {
        _ if !size.is_finite() => "inf".into(),
        _ if size == 0.0 => "0".into(),
        s if !(1e-3..1e3).contains(&s) => format!("{v:.2e}"),
        s if s < 0.01 => format!("{v:.5}"),
        s if s < 0.1 => format!("{v:.4}"),
        s if s < 1.0 => format!("{v:.3}"),
        _ => format!("{v:.2}"),
    }
}

/// Writes a fraction in percent, with a no-break space before the sign.
pub fn percent(v: f64, decimals: usize) -> String {
    format!("{:.decimals$}\u{a0}%", 100.0 * v)
}

/// Writes a pattern's percentage with a no-break space, so that `70%` becomes `70 %`.
pub fn spaced(pattern: &str) -> String {
    match pattern.strip_suffix('%') {
        Some(number) => format!("{}\u{a0}%", number.trim_end()),
        None => pattern.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_significant_digits() {
        let shown = [1.8376, 62.049, 337.84, 19954.6, 1.2e9, f64::NAN].map(number);
        assert_eq!(shown, ["1.838", "62.05", "337.8", "19955", "1.20e9", "inf"]);
        let stat = Stat { mean: 24.04, deviation: Some(0.3456) };
        assert_eq!(with_deviation(&stat), "24.04 ± 0.35");
        assert_eq!(
            [0.0, 0.5, 0.03124, 0.00312, 4.1e-5].map(error),
            ["0", "0.500", "0.0312", "0.00312", "4.10e-5"]
        );
        assert_eq!(spaced("62.5%"), "62.5\u{a0}%");
    }
}
