//! Means over repetitions.

/// The mean over repetitions, and the standard deviation if there are several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    pub mean: f64,
    pub deviation: Option<f64>,
}

impl Stat {
    /// The mean and deviation of `values`, or `None` if there are no values. NaN counts as
    /// infinity.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Stat> {
        let finite = |v: f64| if v.is_nan() { f64::INFINITY } else { v };
        let values: Vec<f64> = values.into_iter().map(finite).collect();
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().map(|v| v / n).sum::<f64>();
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let deviation = (n > 1.0 && mean.is_finite()).then(|| (squares / (n - 1.0)).sqrt());
        Some(Stat { mean, deviation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_that_of_a_sample() {
        let stat = Stat::of([2.0, 4.0, 6.0]).unwrap();
        assert_eq!(stat, Stat { mean: 4.0, deviation: Some(2.0) });
        assert_eq!(Stat::of([3.0]).unwrap().deviation, None);
        assert_eq!(Stat::of([1.0, f64::NAN]).unwrap().mean, f64::INFINITY);
        assert_eq!(Stat::of([]), None);
    }
}
