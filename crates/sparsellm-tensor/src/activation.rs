//! The activation functions between the linears of a feed-forward network.

use crate::kernels::{exp, sigmoid, vectorized};

/// A scalar function with its derivative.
pub trait Scalar: Copy + Send + Sync {
    /// `f(x)`.
    fn value(self, x: f32) -> f32;

    /// `(f(x), f'(x))`.
    fn value_and_slope(self, x: f32) -> (f32, f32);
}

/// `max(0, x)`.
#[derive(Clone, Copy, Debug)]
pub struct Relu;

/// `x·σ(x)`, also called swish.
#[derive(Clone, Copy, Debug)]
pub struct Silu;

/// The exact GELU, `x·Φ(x)`.
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

/// The tanh approximation of GELU, `x/2·(1 + tanh(√(2/π)(x + 0.044715x³)))`.
#[derive(Clone, Copy, Debug)]
pub struct GeluTanh;

impl Scalar for Relu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x.max(0.0)
    }

    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        (x.max(0.0), f32::from(x > 0.0))
    }
}

impl Scalar for Silu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * sigmoid(x)
    }

    /// `silu'(x) = σ(x)·(1 + x·(1 − σ(x)))`.
    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        let s = sigmoid(x);
        (x * s, s * (1.0 + x * (1.0 - s)))
    }
}

/// `Φ(x)`, the normal distribution function, by Abramowitz & Stegun 7.1.26 (error below
/// 1.5·10⁻⁷), and `e^(−x²/2)`, the density without its constant factor.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
    let mut poly = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        poly = t.mul_add(poly, c);
    }
    let bell = exp(-z * z);
    let tail = 0.5 * t * poly * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

impl Scalar for Gelu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * normal(x).0
    }

    /// `gelu'(x) = Φ(x) + x·φ(x)`, where φ is the normal density.
    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        const DENSITY: f32 = 0.398_942_3; // 1/√(2π)
        let (below, bell) = normal(x);
        (x * below, below + x * DENSITY * bell)
    }
}

impl Scalar for GeluTanh {
    /// `(1 + tanh u)/2 = σ(2u)`, which does not cancel.
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        self.value_and_slope(x).0
    }

    /// With `v = 2√(2/π)(x + 0.044715x³)`: `(x·σ(v), σ(v) + x·σ(v)(1 − σ(v))·v')`.
    #[inline(always)]
    fn value_and_slope(self, x: f32) -> (f32, f32) {
        const SCALE: f32 = 1.595_769; // 2√(2/π)
        const CUBIC: f32 = 0.044_715;
        let s = sigmoid(SCALE * (x + CUBIC * x * x * x));
        let slope = SCALE * (1.0 + 3.0 * CUBIC * x * x);
        (x * s, s + x * s * (1.0 - s) * slope)
    }
}

/// The activation function of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// [`Relu`].
    Relu,
    /// [`Silu`].
    Silu,
    /// [`Gelu`].
    Gelu,
    /// [`GeluTanh`].
    GeluTanh,
}

/// Runs `$body` with `$f` bound to the scalar function of an [`Activation`]; the body is
/// compiled once per function.
#[macro_export]
macro_rules! with_activation {
    ($activation:expr, |$f:ident| $body:expr) => {
        match $activation {
            $crate::Activation::Relu => {
                let $f = $crate::Relu;
                $body
            }
            $crate::Activation::Silu => {
                let $f = $crate::Silu;
                $body
            }
            $crate::Activation::Gelu => {
                let $f = $crate::Gelu;
                $body
            }
            $crate::Activation::GeluTanh => {
                let $f = $crate::GeluTanh;
                $body
            }
        }
    };
}

impl Activation {
    /// Looks up an activation by its name in `config.json`.
    pub fn from_name(name: &str) -> Option<Activation> {
        match name {
            "relu" => Some(Activation::Relu),
            "silu" | "swish" => Some(Activation::Silu),
            "gelu" => Some(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Some(Activation::GeluTanh),
            _ => None,
        }
    }

    /// `v ← f(v)` for each value.
    pub fn apply(self, values: &mut [f32]) {
        with_activation!(self, |f| vectorized(
            #[inline(always)]
            || values.iter_mut().for_each(|v| *v = f.value(*v)),
        ));
    }

    /// `s ← f(s) ⊙ z`.
    pub fn apply_gate(self, s: &mut [f32], z: &[f32]) {
        with_activation!(self, |f| vectorized(
            #[inline(always)]
            || s.iter_mut().zip(z).for_each(|(s, z)| *s = f.value(*s) * z),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Φ(x)` by its series around zero, in f64.
    fn phi(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for k in 1..200 {
            term *= x * x / f64::from(2 * k + 1);
            sum += term;
        }
        0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
    }

    #[test]
    fn activations_agree_with_their_definitions() {
        for i in -160..160 {
            let x = f64::from(i) / 20.0;
            let s = 1.0 / (1.0 + (-x).exp());
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let want = [
                (Activation::Relu, x.max(0.0)),
                (Activation::Silu, x * s),
                (Activation::Gelu, x * phi(x)),
                (Activation::GeluTanh, 0.5 * x * (1.0 + u.tanh())),
            ];
            for (activation, want) in want {
                let mut got = [x as f32];
                activation.apply(&mut got);
                assert!(
                    (f64::from(got[0]) - want).abs() < 1e-6 * (1.0 + x.abs()),
                    "{activation:?} {x}"
                );
                let mut gated = [x as f32];
                activation.apply_gate(&mut gated, &[3.0]);
                assert_eq!(gated[0], 3.0 * got[0]);
            }
        }
    }

    #[test]
    fn slopes_are_the_differences_quotients() {
        let h = 1e-3;
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            for i in -100..100 {
                let x = i as f32 / 20.0 + 0.013;
                with_activation!(activation, |f| {
                    let (value, slope) = f.value_and_slope(x);
                    let quotient = (f.value(x + h) - f.value(x - h)) / (2.0 * h);
                    assert!(
                        (slope - quotient).abs() < 2e-3,
                        "{activation:?} {x}: {slope} {quotient}"
                    );
                    assert_eq!(value, f.value(x));
                });
            }
        }
    }
}
