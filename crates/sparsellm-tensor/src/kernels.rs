//! Element-wise functions, written so that the compiler can vectorize them.

/// Runs `body` compiled for the widest SIMD instructions of this processor. Operations are
/// neither reordered nor implicitly fused, so the result does not depend on the width.
#[inline(always)]
pub fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

/// `eˣ` to about 2 units in the last place: range reduction by `ln 2` and a
/// polynomial of degree 6. Below -87 the result is 0, above 88 it is `e⁸⁸`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5·2²³: adding it rounds to an integer
    let clamped = x.clamp(-87.3, 88.0);
    let k = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC) - MAGIC;
    let r = k.mul_add(2.121_944_4e-4, k.mul_add(-0.693_359_4, clamped));
    let mut p = 0.001_388_9;
    for c in [0.008_333_45, 0.041_666_65, 0.166_666_67, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, c);
    }
    let scale = f32::from_bits((((k as i32) + 127) << 23) as u32);
    let y = p * scale;
    if x < -87.3 { 0.0 } else { y }
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh(x)`, computed near zero by its series, because the quotient would cancel there.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let q = x * x;
    let mut series = 62.0 / 2835.0;
    for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        series = q.mul_add(series, c);
    }
    let quotient = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if q < 0.09 { x * series } else { quotient }
}

/// `x ← c·tanh(x/c)` over a row, which bounds scores and logits by c (Gemma 2).
pub fn softcap(row: &mut [f32], c: f32) {
    vectorized(
        #[inline(always)]
        || row.iter_mut().for_each(|x| *x = c * tanh(*x / c)),
    );
}

/// `x ← e^(x − max x)` over a row, in place. Returns the sum of the new values, taken in 16
/// lanes; dividing the row by it gives the softmax.
pub fn exp_shifted(row: &mut [f32]) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            let larger = |a: f32, b: f32| if b > a { b } else { a };
            let mut lanes = [f32::NEG_INFINITY; 16];
            let chunks = row.chunks_exact(16);
            let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
            for chunk in chunks {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *lane = larger(*lane, *v);
                }
            }
            let max = lanes.into_iter().fold(rest, larger);
            let mut lanes = [0f32; 16];
            let mut chunks = row.chunks_exact_mut(16);
            for chunk in &mut chunks {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *v = exp(*v - max);
                    *lane += *v;
                }
            }
            let mut sum: f32 = lanes.iter().sum();
            for v in chunks.into_remainder() {
                *v = exp(*v - max);
                sum += *v;
            }
            sum
        },
    )
}

/// `Σ e^(x − max)` over a row, in 16 lanes.
pub fn exp_sum(row: &[f32], max: f32) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [0f32; 16];
            let chunks = row.chunks_exact(16);
            let rest: f32 = chunks.remainder().iter().map(|v| exp(v - max)).sum();
            for chunk in chunks {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *lane += exp(v - max);
                }
            }
            lanes.iter().sum::<f32>() + rest
        },
    )
}

/// The largest value of a row, or -∞.
pub fn largest(row: &[f32]) -> f32 {
    let larger = |m: f32, v: f32| if v > m { v } else { m };
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [f32::NEG_INFINITY; 16];
            let (chunks, rest) = row.as_chunks::<16>();
            for chunk in chunks {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *lane = larger(*lane, *v);
                }
            }
            rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |m, v| larger(m, *v))
        },
    )
}

/// Returns a part of the divergence of a student's next-token probabilities from a teacher's:
/// that of some tokens of the vocabulary, given as logits. The student's logits s become the
/// gradient with respect to them. `normalizers` are `ln Σ eˣ` over all logits of the student, and
/// of the teacher.
///
/// ```text
/// KL = Σ p·(ln p − ln q),   p = softmax(teacher),   q = softmax(s),   ∂KL/∂s = q − p
/// ```
pub fn divergence(student: &mut [f32], teacher: &[f32], normalizers: [f32; 2]) -> f64 {
    let [of_student, of_teacher] = normalizers;
    vectorized(
        #[inline(always)]
        || {
            let term = |s: &mut f32, t: f32| {
                let (ln_q, ln_p) = (*s - of_student, t - of_teacher);
                let p = exp(ln_p);
                *s = exp(ln_q) - p;
                p * (ln_p - ln_q)
            };
            let mut lanes = [0f32; 16];
            let (mut cs, ct) = (student.chunks_exact_mut(16), teacher.chunks_exact(16));
            let rest = ct.remainder();
            for (s, t) in (&mut cs).zip(ct) {
                for (lane, (s, t)) in lanes.iter_mut().zip(s.iter_mut().zip(t)) {
                    *lane += term(s, *t);
                }
            }
            let rest = cs.into_remainder().iter_mut().zip(rest);
            f64::from(rest.map(|(s, t)| term(s, *t)).sum::<f32>())
                + lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>()
        },
    )
}

/// `aᵀb`, summed in 16 lanes.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (ca, cb) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = ca.remainder().iter().zip(cb.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in ca.zip(cb) {
        for i in 0..16 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_that_of_its_definition() {
        for n in [1, 7, 16, 100] {
            let logits = |a: f64, b: f64| (0..n).map(move |i| 8.0 * (a * i as f64 + b).sin());
            let (s, t): (Vec<f64>, Vec<f64>) =
                (logits(0.7, 0.1).collect(), logits(1.3, 0.5).collect());
            let softmax = |x: &[f64]| {
                let sum: f64 = x.iter().map(|x| x.exp()).sum();
                x.iter().map(|x| x.exp() / sum).collect::<Vec<f64>>()
            };
            let (q, p) = (softmax(&s), softmax(&t));
            let want: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
            let mut student: Vec<f32> = s.iter().map(|v| *v as f32).collect();
            let teacher: Vec<f32> = t.iter().map(|v| *v as f32).collect();
            let normalizer = |row: &[f32]| {
                let max = largest(row);
                max + exp_sum(row, max).ln()
            };
            let normalizers = [normalizer(&student), normalizer(&teacher)];
            let got = divergence(&mut student, &teacher, normalizers);
            assert!((got - want).abs() < 1e-5 * (1.0 + want), "{n}: {got} {want}");
            for ((got, q), p) in student.iter().zip(&q).zip(&p) {
                assert!((f64::from(*got) - (q - p)).abs() < 1e-5, "{n}: {got} {q} {p}");
            }
            // Of equal logits it is zero, however large they are.
            let mut same: Vec<f32> = teacher.iter().map(|v| v * 1e4).collect();
            let other = same.clone();
            let normalizers = [normalizer(&same); 2];
            assert!(divergence(&mut same, &other, normalizers).abs() < 1e-6);
            assert!(same.iter().all(|d| d.abs() < 1e-5));
        }
    }

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 4e-7, "{x}");
        }
        assert_eq!(exp(-1000.0), 0.0);
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn tanh_is_accurate_over_its_range() {
        for i in -4000..4000 {
            let x = i as f32 / 200.0;
            let want = f64::from(x).tanh();
            assert!((f64::from(tanh(x)) - want).abs() <= 4e-7 * want.abs(), "{x}");
        }
        let mut row = [0.0, 1e4, -1e4, 2.0];
        softcap(&mut row, 4.0);
        assert_eq!(row[..3], [0.0, 4.0, -4.0]);
    }

    #[test]
    fn softmax_sums_to_one_and_keeps_ratios() {
        let mut row: Vec<f32> = (0..37).map(|i| (i as f32).sin() * 9.0).collect();
        let want: Vec<f64> = row.iter().map(|&v| f64::from(v).exp()).collect();
        let total: f64 = want.iter().sum();
        let sum = exp_shifted(&mut row);
        for (p, w) in row.iter().zip(want) {
            assert!((f64::from(*p / sum) - w / total).abs() < 1e-6);
        }
    }
}
