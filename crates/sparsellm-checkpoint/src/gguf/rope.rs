//! Recovers Llama 3's position scaling from the table that llama.cpp bakes it into.
//!
//! The conversion to GGUF keeps neither the factor nor the original context length. Instead
//! it stores a divisor for each rotary frequency: 1 for short wavelengths, `factor` for long
//! ones, and a blend in between. Every Llama 3 blends from a quarter of the original context
//! to all of it, so both numbers can be recovered; recomputing the table from them verifies
//! the result.

use std::f64::consts::TAU;

use serde_json::{Value, json};

/// Llama 3's `low_freq_factor` and `high_freq_factor`.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
/// The relative tolerance, since the table is `f32` and was made from `f32` wavelengths.
const TOLERANCE: f64 = 1e-4;

/// The `rope_scaling` that yields `table`: null if it divides by 1 throughout, and `None` if
/// it is not a table of Llama 3's kind.
pub(super) fn llama3(table: &[f32], head_dim: usize, theta: f64) -> Option<Value> {
    if table.iter().all(|factor| *factor == 1.0) {
        return Some(Value::Null);
    }
    let wavelengths: Vec<f64> =
        (0..table.len()).map(|i| TAU * theta.powf(2.0 * i as f64 / head_dim as f64)).collect();
    // Every Llama 3.x has 8192; the other powers of two are for similar models.
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

/// The weight of the unscaled frequency in the blend: 1 for short wavelengths, 0 for long
/// ones.
fn smooth(wavelength: f64, original: f64) -> f64 {
    ((original / wavelength - LOW) / (HIGH - LOW)).clamp(0.0, 1.0)
}

fn divisor(wavelength: f64, original: f64, factor: f64) -> f64 {
    let smooth = smooth(wavelength, original);
    1.0 / ((1.0 - smooth) / factor + smooth)
}

/// The factor, computed from the table's last entry, which is scaled the most.
fn factor(last: f32, wavelength: f64, original: f64) -> Option<f64> {
    let smooth = smooth(wavelength, original);
    let factor = (1.0 - smooth) / (1.0 / f64::from(last) - smooth);
    let whole = factor.round();
    let factor = if (factor / whole - 1.0).abs() < TOLERANCE { whole } else { factor };
    (factor.is_finite() && factor > 1.0).then_some(factor)
}
