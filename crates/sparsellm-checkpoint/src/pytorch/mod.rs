//! PyTorch's `pytorch_model.bin` (`torch.save`'s zip format), read without
//! executing anything: the pickle inside is interpreted by a machine that knows
//! only what a state dict of tensors is made of, and refuses the rest by name.

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
