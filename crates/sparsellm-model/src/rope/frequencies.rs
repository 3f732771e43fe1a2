//! How fast each pair of features rotates, and how the kinds of scaling stretch
//! that for texts that are longer than those of pre-training.

use std::f64::consts::TAU;

/// The rotation frequencies of a head, in radians per position.
#[derive(Clone, Debug)]
pub(super) struct Frequencies {
    /// The base θ.
    pub theta: f64,
    /// The number of rotated features of a head, r.
    pub features: usize,
    /// How the frequencies are stretched.
    pub scaling: Scaling,
}

/// The kinds of scaling that `rope_type` in `config.json` names.
#[derive(Clone, Debug)]
pub(super) enum Scaling {
    /// `default`: none.
    Default,
    /// `linear` (kaiokendev, 2023): every frequency is divided by the factor.
    Linear { factor: f64 },
    /// `dynamic` (NTK-aware; emozilla, 2023): the base grows with the text.
    Dynamic { factor: f64, positions: f64 },
    /// `yarn` (Peng et al., *YaRN*, 2023).
    Yarn(Yarn),
    /// `longrope` (Ding et al., *LongRoPE*, 2024): a factor for each pair of features.
    LongRope { short: Vec<f64>, long: Vec<f64>, original: usize, magnitude: f64 },
    /// `llama3` (LLaMA 3.1).
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
}

/// What YaRN's frequencies follow from.
#[derive(Clone, Debug)]
pub(super) struct Yarn {
    /// The stretch of the slow pairs, s.
    pub factor: f64,
    /// The positions of pre-training, L.
    pub original: f64,
    /// Pairs that rotate more often than this over L positions are kept, β.
    pub fast: f64,
    /// Pairs that rotate less often than this over L positions are stretched, α.
    pub slow: f64,
    /// Whether the ends of the ramp between the two are rounded to whole pairs.
    pub truncate: bool,
    /// What cosines and sines are multiplied by.
    pub magnitude: f64,
}

impl Frequencies {
    /// The frequency of each of the r/2 pairs in a text of `length` tokens.
    pub fn at(&self, length: usize) -> Vec<f64> {
        let plain = powers(self.theta, self.features);
        match &self.scaling {
            Scaling::Default => plain,
            Scaling::Linear { factor } => plain.into_iter().map(|f| f / factor).collect(),
            Scaling::Dynamic { factor, positions } => {
                // θ' = θ·(s·n/L − (s − 1))^(r/(r−2)), where n is at least L.
                let (n, r) = (positions.max(length as f64), self.features as f64);
                let growth = factor * n / positions - (factor - 1.0);
                powers(self.theta * growth.powf(r / (r - 2.0)), self.features)
            }
            Scaling::Yarn(yarn) => yarn.stretch(plain, self.theta),
            Scaling::LongRope { short, long, original, .. } => {
                let factors = if length > *original { long } else { short };
                plain.iter().zip(factors).map(|(f, factor)| f / factor).collect()
            }
            Scaling::Llama3 { factor, low, high, original } => {
                plain.into_iter().map(|f| llama3(f, *factor, [*low, *high], *original)).collect()
            }
        }
    }

    /// Texts of two lengths with the same regime have the same frequencies.
    pub fn regime(&self, length: usize) -> usize {
        match &self.scaling {
            Scaling::Dynamic { positions, .. } if length as f64 > *positions => length,
            Scaling::LongRope { original, .. } => usize::from(length > *original),
            _ => 0,
        }
    }

    /// What cosines and sines are multiplied by: transformers' `attention_scaling`.
    pub fn magnitude(&self) -> f64 {
        match &self.scaling {
            Scaling::Yarn(yarn) => yarn.magnitude,
            Scaling::LongRope { magnitude, .. } => *magnitude,
            _ => 1.0,
        }
    }
}

/// `θ^(−2i/r)` for each of the r/2 pairs of features.
fn powers(theta: f64, features: usize) -> Vec<f64> {
    (0..features / 2).map(|i| theta.powf(-(2.0 * i as f64) / features as f64)).collect()
}

impl Yarn {
    /// `f/s·γ + f·(1 − γ)`, where the ramp γ rises from 0 at the last pair that is
    /// kept to 1 at the first that is stretched (YaRN, equations 18 to 23).
    fn stretch(&self, plain: Vec<f64>, theta: f64) -> Vec<f64> {
        let r = 2.0 * plain.len() as f64;
        // The pair that rotates `n` times over L positions: r·ln(L/(2πn)) / (2·ln θ).
        let pair = |n: f64| r * (self.original / (n * TAU)).ln() / (2.0 * theta.ln());
        let (mut first, mut last) = (pair(self.fast), pair(self.slow));
        if self.truncate {
            (first, last) = (first.floor(), last.ceil());
        }
        let (first, mut last) = (first.max(0.0), last.min(r - 1.0));
        if first == last {
            last += 0.001;
        }
        let ramp = |i: usize| ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
        let stretched = |(i, f): (usize, f64)| f / self.factor * ramp(i) + f * (1.0 - ramp(i));
        plain.into_iter().enumerate().map(stretched).collect()
    }
}

/// LLaMA 3.1's scaling: long wavelengths are stretched by `factor`, short ones are
/// kept, and those between are interpolated.
fn llama3(f: f64, factor: f64, [low, high]: [f64; 2], original: f64) -> f64 {
    let wavelength = TAU / f;
    if wavelength > original / low {
        f / factor
    } else if wavelength >= original / high {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * f / factor + smooth * f
    } else {
        f
    }
}
