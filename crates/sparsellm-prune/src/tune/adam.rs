//! Adam (Kingma & Ba, *Adam: A Method for Stochastic Optimization*, 2015), with the learning rate
//! and the clipping of gradients that tuning uses.

use std::f64::consts::PI;

/// The decay of the mean of the gradients, β₁.
const FIRST: f32 = 0.9;
/// The decay of the mean of their squares, β₂. There are few steps, so it is shorter than usual.
const SECOND: f32 = 0.99;
/// What keeps the step finite, ε.
const EPS: f32 = 1e-8;
/// The largest norm of a step's gradient; longer ones are scaled down to it.
const LONGEST: f64 = 1.0;
/// The fraction of the steps over which the learning rate rises.
const WARM_UP: f64 = 0.1;

/// One step of Adam, for all parameters.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The factor on the gradients.
    scale: f64,
    /// The learning rate, with the correction of both means' bias towards their start.
    rate: f32,
    correction: f32,
}

impl Step {
    /// Step `t`, from 0, of `of` steps whose learning rate is at most `rate`, for gradients of
    /// this norm.
    pub fn new(t: usize, of: usize, rate: f64, norm: f64) -> Step {
        let steps = (t + 1) as i32;
        let (first, second) =
            (1.0 - f64::from(FIRST).powi(steps), 1.0 - f64::from(SECOND).powi(steps));
        Step {
            scale: if norm > LONGEST { LONGEST / norm } else { 1.0 },
            rate: (rate * schedule(t, of) / first) as f32,
            correction: (1.0 / second) as f32,
        }
    }

    /// Moves a parameter, given its moments m and v, one after the other for each value:
    /// `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`, `x ← x − η·m̂/(√v̂ + ε)`.
    pub fn apply(self, moments: &mut [f32], values: &mut [f32], gradient: &[f64]) {
        let moments = moments.as_chunks_mut::<2>().0;
        for ((x, g), [m, v]) in values.iter_mut().zip(gradient).zip(moments) {
            let g = (g * self.scale) as f32;
            *m += (1.0 - FIRST) * (g - *m);
            *v += (1.0 - SECOND) * (g * g - *v);
            *x -= self.rate * *m / ((*v * self.correction).sqrt() + EPS);
        }
    }
}

/// The learning rate of step `t` of `of`, relative to the largest: it rises over the first steps,
/// and then falls to zero along a cosine.
fn schedule(t: usize, of: usize) -> f64 {
    let rise = (WARM_UP * of as f64).ceil().max(1.0);
    let t = t as f64;
    if t < rise {
        return (t + 1.0) / rise;
    }
    let rest = (of as f64 - rise).max(1.0);
    0.5 * (1.0 + (PI * (t - rise) / rest).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() {
        let step = Step::new(0, 1, 0.01, 0.5);
        let mut values = [1.0, 1.0, 1.0];
        step.apply(&mut [0.0; 6], &mut values, &[0.3, -0.001, 0.0]);
        for (value, want) in values.iter().zip([0.99, 1.01, 1.0]) {
            assert!((value - want).abs() < 1e-5, "{value} {want}");
        }
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|t| schedule(t, 100)).collect();
        assert!(rates[..10].is_sorted() && rates[9] == 1.0);
        assert!(rates[10..].is_sorted_by(|a, b| a >= b) && rates[99] < 1e-3);
    }
}
