//! The updates for SwiGLU networks (LLaMA).

use super::Updates;
use crate::linalg::{silu, silu_grad, vectorized};

/// Newton steps per element and epoch.
const STEPS: usize = 8;
/// Step lengths tried in turn: the full step, then halves.
const LENGTHS: [f32; 4] = [1.0, 0.5, 0.25, 0.125];
/// A step shorter than this, relative to 1 + |s|, is not taken.
const TOLERANCE: f32 = 1e-4;
/// Elements moved together, so that the compiler can vectorise.
const LANES: usize = 16;

/// `a = silu(s) ⊙ z`, with penalties α and β.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu {
    /// Penalty of the linear constraints.
    pub alpha: f32,
    /// Penalty of the activation constraint.
    pub beta: f32,
}

impl SwiGlu {
    /// `z = (αm + β silu(s) a)/(α + β silu(s)²)`, the minimiser of
    /// `α(z − m)² + β(a − silu(s) z)²`.
    #[inline(always)]
    pub fn z(&self, a: f32, m: f32, s: f32) -> f32 {
        let silu = silu(s);
        (self.alpha * m + self.beta * silu * a) / (self.alpha + self.beta * silu * silu)
    }

    /// The terms of the objective that hold s: `α(s − g)² + β(a − silu(s) z)²`.
    #[inline(always)]
    pub fn objective(&self, a: f32, g: f32, z: f32, s: f32, silu: f32) -> f32 {
        let (linear, activation) = (s - g, a - silu * z);
        self.alpha * linear * linear + self.beta * activation * activation
    }

    /// Safeguarded Gauss–Newton steps on [`objective`](Self::objective):
    /// `s ← s − g'/h`, `g' = 2α(s − g) + 2β(silu(s) z − a) silu'(s) z`,
    /// `h = 2α + 2β(silu'(s) z)²`, each taken only where the objective falls.
    /// (The authors' two gradient steps of 0.01 diverge where z has outliers.)
    #[inline(always)]
    pub fn s(&self, a: &[f32; LANES], g: &[f32; LANES], z: &[f32; LANES], s: &mut [f32; LANES]) {
        let mut value = [0f32; LANES];
        let mut slope = [0f32; LANES];
        let mut lowest = [0f32; LANES];
        for i in 0..LANES {
            (value[i], slope[i]) = silu_grad(s[i]);
            lowest[i] = self.objective(a[i], g[i], z[i], s[i], value[i]);
        }
        let mut active = [true; LANES];
        for _ in 0..STEPS {
            let mut step = [0f32; LANES];
            for i in 0..LANES {
                let pull = slope[i] * z[i];
                let gradient = 2.0 * self.alpha * (s[i] - g[i])
                    + 2.0 * self.beta * (value[i] * z[i] - a[i]) * pull;
                step[i] = gradient / (2.0 * self.alpha + 2.0 * self.beta * pull * pull);
                active[i] &= step[i].abs() > TOLERANCE * (1.0 + s[i].abs());
            }
            if !active.contains(&true) {
                break;
            }
            let mut moved = [false; LANES];
            for length in LENGTHS {
                let mut waiting = false;
                for i in 0..LANES {
                    let candidate = s[i] - length * step[i];
                    let (silu, grad) = silu_grad(candidate);
                    let objective = self.objective(a[i], g[i], z[i], candidate, silu);
                    let open = active[i] & !moved[i];
                    let take = open & (objective < lowest[i]);
                    s[i] = if take { candidate } else { s[i] };
                    value[i] = if take { silu } else { value[i] };
                    slope[i] = if take { grad } else { slope[i] };
                    lowest[i] = if take { objective } else { lowest[i] };
                    moved[i] |= take;
                    waiting |= open & !take;
                }
                if !waiting {
                    break;
                }
            }
            active = moved;
        }
    }
}

impl Updates for SwiGlu {
    fn phi(&self, pre: &[f32], a: &mut [f32]) {
        let (z, s) = pre.split_at(a.len());
        vectorized(
            #[inline(always)]
            || {
                for ((a, z), s) in a.iter_mut().zip(z).zip(s) {
                    *a = silu(*s) * z;
                }
            },
        );
    }

    fn slopes(&self, pre: &[f32], slopes: &mut [f32]) {
        let (z, s) = pre.split_at(pre.len() / 2);
        let (dz, ds) = slopes.split_at_mut(z.len());
        vectorized(
            #[inline(always)]
            || {
                let slopes = dz.iter_mut().zip(ds.iter_mut());
                for ((dz, ds), (z, s)) in slopes.zip(z.iter().zip(s)) {
                    let (silu, slope) = silu_grad(*s);
                    (*dz, *ds) = (silu, slope * z);
                }
            },
        );
    }

    fn update(&self, a: &[f32], pre: &[f32], state: &mut [f32]) {
        let ((m, g), (z, s)) = (pre.split_at(a.len()), state.split_at_mut(a.len()));
        vectorized(
            #[inline(always)]
            || {
                for (((z, &s), &a), &m) in z.iter_mut().zip(s.iter()).zip(a).zip(m) {
                    *z = self.z(a, m, s);
                }
                for start in (0..a.len()).step_by(LANES) {
                    let lanes = start..(start + LANES).min(a.len());
                    let mut s_lanes = load(&s[lanes.clone()]);
                    let (a, g) = (load(&a[lanes.clone()]), load(&g[lanes.clone()]));
                    self.s(&a, &g, &load(&z[lanes.clone()]), &mut s_lanes);
                    let n = lanes.len();
                    s[lanes].copy_from_slice(&s_lanes[..n]);
                }
            },
        );
    }
}

#[inline(always)]
fn load(from: &[f32]) -> [f32; LANES] {
    let mut lanes = [0f32; LANES];
    lanes[..from.len()].copy_from_slice(from);
    lanes
}
