//! Element types of stored tensors.

use sparsellm_tensor::FloatType;

/// The element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Anything else that a file may carry (integers, f64, f8): copied, never read.
    Other(::safetensors::Dtype),
}

impl Dtype {
    /// As a type that weights can be read from and written to; `None` for others.
    pub fn float(self) -> Option<FloatType> {
        match self {
            Dtype::F32 => Some(FloatType::F32),
            Dtype::F16 => Some(FloatType::F16),
            Dtype::Bf16 => Some(FloatType::Bf16),
            Dtype::Other(_) => None,
        }
    }

    /// The name that safetensors gives it, such as `"BF16"`.
    pub fn name(self) -> String {
        match self {
            Dtype::Other(dtype) => format!("{dtype:?}"),
            float => float.float().map_or("", FloatType::name).into(),
        }
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Dtype::Other(dtype) => dtype.bitsize().div_ceil(8),
            float => float.float().map_or(0, FloatType::size),
        }
    }
}
