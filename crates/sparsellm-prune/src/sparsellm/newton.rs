//! Safeguarded Gauss–Newton steps on one argument of φ, taken for each element by itself.

use sparsellm_tensor::Scalar;

/// The number of steps per element and epoch, at most.
const STEPS: usize = 8;
/// The step lengths that are tried in turn: the full step, then ever shorter halves.
const LENGTHS: [f32; 4] = [1.0, 0.5, 0.25, 0.125];
/// An element stops moving when its step is shorter than this, relative to 1 + |s|.
const TOLERANCE: f32 = 1e-4;
/// The number of elements that move together, so that the compiler can vectorise.
pub(super) const LANES: usize = 16;

/// The terms of the objective that involve s:
///
/// ```text
/// α(s − g)² + β(a − f(s) z)²
/// ```
///
/// for gated networks. With z = 1 and g = m they are those of the z of plain networks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newton<F> {
    pub alpha: f32,
    pub beta: f32,
    pub f: F,
}

impl<F: Scalar> Newton<F> {
    /// These terms, given `value = f(s)`.
    #[inline(always)]
    pub fn objective(&self, a: f32, g: f32, z: f32, s: f32, value: f32) -> f32 {
        let (linear, activation) = (s - g, a - value * z);
        self.alpha * linear * linear + self.beta * activation * activation
    }

    /// Repeats `s ← s − g'/h` with `g' = 2α(s − g) + 2β(f(s) z − a) f'(s) z` and
    /// `h = 2α + 2β(f'(s) z)²`. An element takes a step only if its objective falls. (The authors
    /// take two gradient steps of 0.01, which diverge when z has outliers.)
    #[inline(always)]
    pub fn steps(
        &self,
        a: &[f32; LANES],
        g: &[f32; LANES],
        z: &[f32; LANES],
        s: &mut [f32; LANES],
    ) {
        let mut value = [0f32; LANES];
        let mut slope = [0f32; LANES];
        let mut lowest = [0f32; LANES];
        for i in 0..LANES {
            (value[i], slope[i]) = self.f.value_and_slope(s[i]);
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
                    let (f, slope_there) = self.f.value_and_slope(candidate);
                    let objective = self.objective(a[i], g[i], z[i], candidate, f);
                    let open = active[i] & !moved[i];
                    let take = open & (objective < lowest[i]);
                    s[i] = if take { candidate } else { s[i] };
                    value[i] = if take { f } else { value[i] };
                    slope[i] = if take { slope_there } else { slope[i] };
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

    /// Moves all elements of `s`. `z` returns the values of z for a range of elements.
    #[inline(always)]
    pub fn move_all(
        &self,
        a: &[f32],
        g: &[f32],
        z: impl Fn(std::ops::Range<usize>) -> [f32; LANES],
        s: &mut [f32],
    ) {
        for start in (0..a.len()).step_by(LANES) {
            let lanes = start..(start + LANES).min(a.len());
            let mut s_lanes = load(&s[lanes.clone()]);
            let (a, g) = (load(&a[lanes.clone()]), load(&g[lanes.clone()]));
            self.steps(&a, &g, &z(lanes.clone()), &mut s_lanes);
            let n = lanes.len();
            s[lanes].copy_from_slice(&s_lanes[..n]);
        }
    }
}

/// Copies up to [`LANES`] elements and fills the rest with zeros.
#[inline(always)]
pub(super) fn load(from: &[f32]) -> [f32; LANES] {
    let mut lanes = [0f32; LANES];
    lanes[..from.len()].copy_from_slice(from);
    lanes
}
