//! Dequantization of GGUF's block formats to `f32`.
//!
//! The arithmetic follows ggml operation by operation (as does gguf-py's
//! `quants.dequantize`), so the results are bit-identical.

use std::fmt;

use half::{bf16, f16};

/// The largest number of elements in a block of any format.
const MAX_BLOCK: usize = 256;

/// The storage format of a tensor.
#[allow(missing_docs, non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Kind {
    /// Finds the format with ggml's type number `id`. For a format that is not supported, the
    /// error is its name.
    pub fn from_id(id: u32) -> Result<Kind, String> {
        Ok(match id {
            0 => Kind::F32,
            1 => Kind::F16,
            2 => Kind::Q4_0,
            3 => Kind::Q4_1,
            6 => Kind::Q5_0,
            7 => Kind::Q5_1,
            8 => Kind::Q8_0,
            10 => Kind::Q2_K,
            11 => Kind::Q3_K,
            12 => Kind::Q4_K,
            13 => Kind::Q5_K,
            14 => Kind::Q6_K,
            15 => Kind::Q8_K,
            20 => Kind::IQ4_NL,
            23 => Kind::IQ4_XS,
            30 => Kind::BF16,
            34 => Kind::TQ1_0,
            35 => Kind::TQ2_0,
            39 => Kind::MXFP4,
            _ => return Err(other_name(id)),
        })
    }

    /// Elements in one block.
    pub fn block(self) -> usize {
        match self {
            Kind::F32 | Kind::F16 | Kind::BF16 => 1,
            Kind::Q4_0 | Kind::Q4_1 | Kind::Q5_0 | Kind::Q5_1 | Kind::Q8_0 => 32,
            Kind::IQ4_NL | Kind::MXFP4 => 32,
            _ => MAX_BLOCK,
        }
    }

    /// Bytes of one block.
    pub fn bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::F16 | Kind::BF16 => 2,
            Kind::MXFP4 => 17,
            Kind::Q4_0 | Kind::IQ4_NL => 18,
            Kind::Q4_1 => 20,
            Kind::Q5_0 => 22,
            Kind::Q5_1 => 24,
            Kind::Q8_0 => 34,
            Kind::Q2_K => 84,
            Kind::Q3_K => 110,
            Kind::Q4_K => 144,
            Kind::Q5_K => 176,
            Kind::Q6_K => 210,
            Kind::Q8_K => 292,
            Kind::IQ4_XS => 136,
            Kind::TQ1_0 => 54,
            Kind::TQ2_0 => 66,
        }
    }
}

fn other_name(id: u32) -> String {
    let name = match id {
        9 => "Q8_1",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return format!("the unknown type {id}"),
    };
    name.to_owned()
}

/// Dequantizes elements `first..first + out.len()` of the blocks in `data` into `out`.
///
/// Returns `false`, leaving the rest of `out` unchanged, if `data` is too short.
#[must_use]
pub fn dequantize(kind: Kind, data: &[u8], first: usize, out: &mut [f32]) -> bool {
    let (block, bytes) = (kind.block(), kind.bytes());
    let Some(data) = (first / block).checked_mul(bytes).and_then(|start| data.get(start..)) else {
        return out.is_empty();
    };
    let mut blocks = data.chunks_exact(bytes);
    let mut skip = first % block;
    let mut rest = out;
    while !rest.is_empty() {
        let Some(source) = blocks.next() else { return false };
        let (part, after) = rest.split_at_mut((block - skip).min(rest.len()));
        if part.len() == block {
            one_block(kind, source, part);
        } else {
            let mut whole = [0f32; MAX_BLOCK];
            one_block(kind, source, &mut whole[..block]);
            part.copy_from_slice(&whole[skip..skip + part.len()]);
        }
        (rest, skip) = (after, 0);
    }
    true
}

/// Dequantizes one block: `b` has exactly `kind.bytes()` bytes, `y` exactly `kind.block()`
/// elements.
fn one_block(kind: Kind, b: &[u8], y: &mut [f32]) {
    match kind {
        Kind::F32 => y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Kind::F16 => y[0] = half_at(b, 0),
        Kind::BF16 => y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        Kind::Q4_0 => {
            let d = half_at(b, 0);
            fill(y, |i| d * (nibble(&b[2..], i) as i32 - 8) as f32);
        }
        Kind::Q4_1 => {
            let (d, m) = (half_at(b, 0), half_at(b, 2));
            fill(y, |i| d * f32::from(nibble(&b[4..], i)) + m);
        }
        Kind::Q5_0 => {
            let (d, high) = (half_at(b, 0), &b[2..6]);
            fill(y, |i| d * (i32::from(nibble(&b[6..], i) | bit(high, i) << 4) - 16) as f32);
        }
        Kind::Q5_1 => {
            let (d, m, high) = (half_at(b, 0), half_at(b, 2), &b[4..8]);
            fill(y, |i| d * f32::from(nibble(&b[8..], i) | bit(high, i) << 4) + m);
        }
        Kind::Q8_0 => {
            let d = half_at(b, 0);
            fill(y, |i| f32::from(b[2 + i] as i8) * d);
        }
        Kind::Q2_K => q2_k(b, y),
        Kind::Q3_K => q3_k(b, y),
        Kind::Q4_K => {
            let (scales, quants) = (&b[4..16], &b[16..144]);
            k_groups(b, scales, y, |group, i| quants[group / 2 * 32 + i] >> (group % 2 * 4) & 15);
        }
        Kind::Q5_K => {
            let (scales, high, quants) = (&b[4..16], &b[16..48], &b[48..176]);
            k_groups(b, scales, y, |group, i| {
                let low = quants[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
                low | (high[i] >> group & 1) << 4
            });
        }
        Kind::Q6_K => q6_k(b, y),
        Kind::Q8_K => {
            let d = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            fill(y, |i| d * f32::from(b[4 + i] as i8));
        }
        Kind::IQ4_NL => {
            let d = half_at(b, 0);
            fill(y, |i| d * f32::from(IQ4_VALUES[usize::from(nibble(&b[2..], i))]));
        }
        Kind::IQ4_XS => iq4_xs(b, y),
        Kind::TQ1_0 => tq1_0(b, y),
        Kind::TQ2_0 => {
            let d = half_at(b, 64);
            fill(y, |i| {
                let two = b[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
                d * (i32::from(two) - 1) as f32
            });
        }
        Kind::MXFP4 => {
            let d = half_power_of_two(b[0]);
            fill(y, |i| d * f32::from(MXFP4_VALUES[usize::from(nibble(&b[1..], i))]));
        }
    }
}

/// The 16 levels of IQ4_NL and IQ4_XS.
const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of 4-bit floats with two bits of exponent (E2M1).
const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of what an exponent byte (E8M0) stands for, 2^(e − 128).
fn half_power_of_two(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e), // subnormal
        _ => f32::from_bits(u32::from(e - 1) << 23),
    }
}

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

fn fill(y: &mut [f32], value: impl Fn(usize) -> f32) {
    y.iter_mut().enumerate().for_each(|(i, y)| *y = value(i));
}

/// Quant `i` of 32: the low nibbles hold the first 16, the high nibbles the rest.
fn nibble(quants: &[u8], i: usize) -> u8 {
    if i < 16 { quants[i] & 15 } else { quants[i - 16] >> 4 }
}

fn bit(bits: &[u8], i: usize) -> u8 {
    bits[i / 8] >> (i % 8) & 1
}

/// Sixteen groups of 16: scales and minima in nibbles, two bits per quant.
fn q2_k(b: &[u8], y: &mut [f32]) {
    let (scales, quants) = (&b[..16], &b[16..80]);
    let (d, minimum) = (half_at(b, 80), half_at(b, 82));
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] & 15);
        let low = minimum * f32::from(scales[group] >> 4);
        let (from, shift) = (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2);
        fill(y, |i| scale * f32::from(quants[from + i] >> shift & 3) - low);
    }
}

/// Sixteen groups of 16: six-bit scales; two bits per quant, and a third in a mask.
fn q3_k(b: &[u8], y: &mut [f32]) {
    let (mask, quants, scales) = (&b[..32], &b[32..96], &b[96..108]);
    let d = half_at(b, 108);
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        let (from, shift) = (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2);
        fill(y, |i| {
            let low = i32::from(quants[from + i] >> shift & 3);
            let high = i32::from(mask[group % 2 * 16 + i] >> (group / 2) & 1);
            scale * (low - 4 * (1 - high)) as f32
        });
    }
}

/// Q4_K and Q5_K: eight groups of 32, six-bit scales and minima.
fn k_groups(b: &[u8], scales: &[u8], y: &mut [f32], quant: impl Fn(usize, usize) -> u8) {
    let (d, minimum) = (half_at(b, 0), half_at(b, 2));
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, low) = if group < 4 {
            (scales[group] & 63, scales[group + 4] & 63)
        } else {
            let both = scales[group + 4];
            (both & 15 | scales[group - 4] >> 2 & 48, both >> 4 | scales[group] >> 2 & 48)
        };
        let (scale, low) = (d * f32::from(scale), minimum * f32::from(low));
        fill(y, |i| scale * f32::from(quant(group, i)) - low);
    }
}

/// Sixteen groups of 16: eight-bit scales, six bits per quant.
fn q6_k(b: &[u8], y: &mut [f32]) {
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = half_at(b, 208);
    for (group, y) in y.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[group] as i8);
        fill(y, |i| {
            let e = group * 16 + i;
            let four = low[e / 128 * 64 + e % 64] >> (e % 128 / 64 * 4) & 15;
            let two = high[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3;
            scale * (i32::from(four | two << 4) - 32) as f32
        });
    }
}

/// Eight groups of 32: six-bit scales, and levels by number.
fn iq4_xs(b: &[u8], y: &mut [f32]) {
    let (d, high) = (half_at(b, 0), u16::from_le_bytes([b[2], b[3]]));
    let (low, quants) = (&b[4..8], &b[8..136]);
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let four = low[group / 2] >> (group % 2 * 4) & 15;
        let two = (high >> (2 * group) & 3) as u8;
        let scale = d * (i32::from(four | two << 4) - 32) as f32;
        let quants = &quants[group * 16..];
        fill(y, |i| scale * f32::from(IQ4_VALUES[usize::from(nibble(quants, i))]));
    }
}

/// Ternary digits, five to a byte: 160 elements in 32 bytes, 80 in 16, and 16 in four bytes
/// of four digits. A byte is the fraction of 256 that begins with its digits.
fn tq1_0(b: &[u8], y: &mut [f32]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let d = half_at(b, 52);
    fill(y, |i| {
        let (byte, digit) = match i {
            0..160 => (i % 32, i / 32),
            160..240 => (32 + (i - 160) % 16, (i - 160) / 16),
            _ => (48 + (i - 240) % 4, (i - 240) / 4),
        };
        let shifted = b[byte].wrapping_mul(POWERS[digit]);
        d * (i32::from((u16::from(shifted) * 3) >> 8) - 1) as f32
    });
}
