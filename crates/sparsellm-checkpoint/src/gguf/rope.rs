//! Llama 3's position scaling, told from the table that llama.cpp bakes it into.
//!
//! The conversion to GGUF keeps neither the factor nor the original context;
//! it writes, for each rotary frequency, what that frequency is divided by: 1
//! for short wavelengths, `factor` for long ones, a blend in between. Every
//! Llama 3 blends from a quarter of the original context to all of it, so the
//! two numbers can be read back, and putting them to the test reproduces the
//! table or doesn't.

use std::f64::consts::TAU;

use serde_json::{Value, json};

/// Llama 3's `low_freq_factor` and `high_freq_factor`.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
/// The table is `f32`, made from `f32` wavelengths.
const TOLERANCE: f64 = 1e-4;

/// The `rope_scaling` that gives `table`; null if it divides by 1 throughout,
/// `None` if it is no table of Llama 3's kind.
pub(super) fn llama3(table: &[f32], head_dim: usize, theta: f64) -> Option<Value> {
    if table.iter().all(|factor| *factor == 1.0) {
        return Some(Value::Null);
    }
    let wavelengths: Vec<f64> =
        (0..table.len()).map(|i| TAU * theta.powf(2.0 * i as f64 / head_dim as f64)).collect();
    // 8192 in every Llama 3.x; the other powers of two for models of its kind.
    let mut originals = [8192.0].into_iter().chain((5..=24).map(|power| f64::from(1u32 << power)));
    originals.find_map(|original| {
        let factor = factor(*table.last()?, *wavelengths.last()?, original)?;
        let same = table.iter().zip(&wavelengths).all(|(entry, wavelength)| {
            let blend = 1.0 / divisor(*wavelength, original, factor);
            (f64::from(*entry) * blend - 1.0).abs() < TOLERANCE
        });
        same.then(|| {
            json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LOW,
                "high_freq_factor": HIGH,
                "original_max_position_embeddings": original as u64,
            })
        })
    })
}

/// How much of the unscaled frequency remains: 1 for short wavelengths, 0 for long.
fn smooth(wavelength: f64, original: f64) -> f64 {
    ((original / wavelength - LOW) / (HIGH - LOW)).clamp(0.0, 1.0)
}

fn divisor(wavelength: f64, original: f64, factor: f64) -> f64 {
    let smooth = smooth(wavelength, original);
    1.0 / ((1.0 - smooth) / factor + smooth)
}

/// The factor, from the table's last entry, which is the one scaled most.
fn factor(last: f32, wavelength: f64, original: f64) -> Option<f64> {
    let smooth = smooth(wavelength, original);
    let factor = (1.0 - smooth) / (1.0 / f64::from(last) - smooth);
    let whole = factor.round();
    let factor = if (factor / whole - 1.0).abs() < TOLERANCE { whole } else { factor };
    (factor.is_finite() && factor > 1.0).then_some(factor)
}
