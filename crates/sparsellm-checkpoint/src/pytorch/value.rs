//! The values that the pickle of a state dict can hold.

use super::cursor::{Step, shown};
use crate::Dtype;
use std::ops::Range;

/// A value on the machine's stack. Containers are indices into the machine's lists, so that a
/// value is small, `Copy` and never nested.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Text(&'a str),
    /// Start and end in the machine's `items`.
    Tuple(usize, usize),
    /// Index into the machine's `dicts`.
    Dict(usize),
    Class(Class),
    Storage(Storage),
    /// Index into the machine's `tensors`.
    Tensor(usize),
}

impl Value<'_> {
    /// A description of the kind of value, for error messages.
    pub fn kind(self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool => "a bool",
            Value::Int(_) => "an int",
            Value::Text(_) => "a string",
            Value::Tuple(..) => "a tuple",
            Value::Dict(_) => "a dict",
            Value::Class(_) => "a class",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// The elements in one `data/…` entry of the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage {
    pub dtype: Dtype,
    /// Bytes per element.
    pub size: usize,
    /// Offset of its first byte in the file; the whole storage was checked to fit.
    pub start: usize,
    /// Number of elements.
    pub elements: usize,
}

/// The classes and functions that a state dict's pickle may name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A storage class: element type and size.
    Storage(Dtype, usize),
}

impl Class {
    /// Finds the class of that name, if it is one of these.
    pub fn find(module: &str, name: &str) -> Step<Class> {
        use ::safetensors::Dtype as Other;
        let other = |dtype, size| Class::Storage(Dtype::Other(dtype), size);
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Class::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Class::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Class::RebuildParameter,
            ("torch", "FloatStorage") => Class::Storage(Dtype::F32, 4),
            ("torch", "HalfStorage") => Class::Storage(Dtype::F16, 2),
            ("torch", "BFloat16Storage") => Class::Storage(Dtype::Bf16, 2),
            ("torch", "DoubleStorage") => Class::Storage(Dtype::F64, 8),
            ("torch", "LongStorage") => other(Other::I64, 8),
            ("torch", "IntStorage") => other(Other::I32, 4),
            ("torch", "ShortStorage") => other(Other::I16, 2),
            ("torch", "CharStorage") => other(Other::I8, 1),
            ("torch", "ByteStorage") => other(Other::U8, 1),
            ("torch", "BoolStorage") => other(Other::BOOL, 1),
            _ => {
                return Err(format!(
                    "it names `{} {}`, which is no part of a state dict of tensors; nothing is called",
                    shown(module),
                    shown(name)
                ));
            }
        })
    }
}

/// A tensor's type and shape, and where its elements lie in the file.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Range<usize>,
    pub strides: Option<Vec<usize>>,
}

/// More dimensions than any weight has, which bounds the cost of a tensor.
const MOST_DIMENSIONS: usize = 8;

impl Tensor {
    /// The view of `storage` that begins at element `offset`, provided that it stays inside.
    pub fn view(
        storage: Storage,
        offset: Value,
        shape: &[Value],
        strides: &[Value],
    ) -> Step<Tensor> {
        if shape.len() > MOST_DIMENSIONS || shape.len() != strides.len() {
            return Err(format!(
                "its shape has {} dimensions and its strides {}; at most {MOST_DIMENSIONS} are read",
                shape.len(),
                strides.len()
            ));
        }
        let offset = number(offset, "offset")?;
        let shape = shape.iter().map(|&v| number(v, "shape")).collect::<Step<Vec<_>>>()?;
        let strides = strides.iter().map(|&v| number(v, "strides"));
        // A dimension of one never advances, so its stride may be anything.
        let step = |(&d, stride): (&usize, Step<usize>)| Ok(if d == 1 { 0 } else { stride? });
        let strides = shape.iter().zip(strides).map(step).collect::<Step<Vec<_>>>()?;
        let outside = || {
            format!(
                "shape {shape:?} with strides {strides:?} from element {offset} is more than its \
                 storage of {} elements holds",
                storage.elements
            )
        };
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        // A view that repeats elements could be larger than any file.
        let elements = elements.filter(|&n| n <= storage.elements).ok_or_else(outside)?;
        let span = match elements {
            0 => Some(0),
            _ => shape.iter().zip(&strides).try_fold(1usize, |last, (&d, &stride)| {
                last.checked_add(d.checked_sub(1)?.checked_mul(stride)?)
            }),
        };
        let place = |at: usize| at.checked_mul(storage.size)?.checked_add(storage.start);
        let stop =
            span.and_then(|span| offset.checked_add(span)).filter(|&end| end <= storage.elements);
        let bytes = place(offset).zip(stop.and_then(place)).ok_or_else(outside)?;
        let strides = Some(strides).filter(|s| elements > 0 && !is_row_major(&shape, s));
        Ok(Tensor { dtype: storage.dtype, shape, bytes: bytes.0..bytes.1, strides })
    }
}

/// Whether the elements are contiguous in row-major order; dimensions of one do not matter.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1usize;
    shape.iter().zip(strides).rev().filter(|&(&d, _)| d != 1).all(|(&d, &stride)| {
        let follows = stride == step;
        step = step.saturating_mul(d);
        follows
    })
}

/// Converts a non-negative integer.
pub(super) fn number(value: Value, what: &str) -> Step<usize> {
    match value {
        Value::Int(n) => usize::try_from(n).map_err(|_| format!("{n} in its {what} is no count")),
        other => Err(format!("its {what} has {}, not an int", other.kind())),
    }
}
