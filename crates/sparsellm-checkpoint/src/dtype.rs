//! Element types of stored tensors.

use sparsellm_tensor::FloatType;

/// The element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 double precision.
    F64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Any other type found in files (integers, f8): copied but never interpreted.
    Other(::safetensors::Dtype),
}

impl Dtype {
    /// The equivalent type for reading and writing weights; `None` if there is none.
    pub fn float(self) -> Option<FloatType> {
        match self {
            Dtype::F64 => Some(FloatType::F64),
            Dtype::F32 => Some(FloatType::F32),
            Dtype::F16 => Some(FloatType::F16),
            Dtype::Bf16 => Some(FloatType::Bf16),
            Dtype::Other(_) => None,
        }
    }

    /// The type's name in safetensors, such as `"BF16"`.
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
