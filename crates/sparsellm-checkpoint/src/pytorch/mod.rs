//! PyTorch's `pytorch_model.bin` (the zip format of `torch.save`), read without executing
//! anything: the pickle inside is interpreted by a machine that knows only the instructions
//! that a state dict of tensors needs, and rejects any other by name.

mod cursor;
mod header;
mod machine;
mod opcode;
mod stack;
mod strided;
#[cfg(test)]
mod tests;
mod value;
mod zip;

pub(crate) use header::read_header;
pub(crate) use strided::gather;
