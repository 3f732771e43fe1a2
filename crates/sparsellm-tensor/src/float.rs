//! The floating-point types of stored values, and conversion from and to f32.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

/// A floating-point type that values can be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE 754 double precision: read and written by way of f32.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl FloatType {
    /// The type's name in safetensors, such as `"BF16"`.
    pub fn name(self) -> &'static str {
        match self {
            FloatType::F64 => "F64",
            FloatType::F32 => "F32",
            FloatType::F16 => "F16",
            FloatType::Bf16 => "BF16",
        }
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            FloatType::F64 => 8,
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::Bf16 => 2,
        }
    }

    /// The smallest positive f32 that the type can hold.
    pub fn smallest(self) -> f32 {
        match self {
            FloatType::F64 | FloatType::F32 => f32::from_bits(1),
            FloatType::F16 => f16::from_bits(1).to_f32(),
            FloatType::Bf16 => bf16::from_bits(1).to_f32(),
        }
    }

    /// The largest finite f32 that the type can hold.
    pub fn largest(self) -> f32 {
        match self {
            FloatType::F64 | FloatType::F32 => f32::MAX,
            FloatType::F16 => f16::MAX.to_f32(),
            FloatType::Bf16 => bf16::MAX.to_f32(),
        }
    }
}

/// Elements converted or scanned by one task.
pub const PIECE: usize = 1 << 16;

/// Decodes little-endian bytes of `dtype` into f32.
pub fn decode(bytes: &[u8], dtype: FloatType, out: &mut [f32]) {
    let pieces = out.par_chunks_mut(PIECE).zip(bytes.par_chunks(PIECE * dtype.size()));
    pieces.for_each(|(out, bytes)| match dtype {
        FloatType::F64 => each(out, bytes, |b| f64::from_le_bytes(b) as f32),
        FloatType::F32 => each(out, bytes, f32::from_le_bytes),
        FloatType::Bf16 => each(out, bytes, |b| bf16::from_le_bytes(b).to_f32()),
        // Convert many at a time if the bytes are aligned.
        FloatType::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
            Ok(halves) if cfg!(target_endian = "little") => halves.convert_to_f32_slice(out),
            _ => each(out, bytes, |b| f16::from_le_bytes(b).to_f32()),
        },
    });
}

fn each<const N: usize>(out: &mut [f32], bytes: &[u8], from: impl Fn([u8; N]) -> f32) {
    for (v, b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *v = from(*b);
    }
}

/// Encodes f32 as little-endian bytes of `dtype`, rounding to nearest; `bytes` has room for
/// exactly as many elements as `values`.
pub fn encode(values: &[f32], dtype: FloatType, bytes: &mut [u8]) {
    fn each<const N: usize>(bytes: &mut [u8], values: &[f32], to: impl Fn(f32) -> [u8; N]) {
        for (b, v) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
            *b = to(*v);
        }
    }
    let pieces = bytes.par_chunks_mut(PIECE * dtype.size()).zip(values.par_chunks(PIECE));
    pieces.for_each(|(bytes, values)| match dtype {
        FloatType::F64 => each(bytes, values, |v| f64::from(v).to_le_bytes()),
        FloatType::F32 => each(bytes, values, f32::to_le_bytes),
        FloatType::Bf16 => each(bytes, values, |v| bf16::from_f32(v).to_le_bytes()),
        FloatType::F16 => match bytemuck::try_cast_slice_mut::<u8, f16>(bytes) {
            Ok(halves) if cfg!(target_endian = "little") => halves.convert_from_f32_slice(values),
            _ => each(bytes, values, |v| f16::from_f32(v).to_le_bytes()),
        },
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_there_and_back() {
        let values: Vec<f32> = (0..200_001).map(|i| (i as f32 - 100_000.0) / 64.0).collect();
        for (dtype, round) in [
            (FloatType::F64, (|v| v) as fn(f32) -> f32),
            (FloatType::F32, |v| v),
            (FloatType::F16, |v| f16::from_f32(v).to_f32()),
            (FloatType::Bf16, |v| bf16::from_f32(v).to_f32()),
        ] {
            // Check every alignment.
            for at in 0..2 {
                let mut bytes = vec![0; values.len() * dtype.size() + at];
                let mut back = vec![0.0; values.len()];
                encode(&values, dtype, &mut bytes[at..]);
                decode(&bytes[at..], dtype, &mut back);
                for (back, v) in back.iter().zip(&values) {
                    assert_eq!(*back, round(*v), "{}", dtype.name());
                }
            }
        }
    }
}
