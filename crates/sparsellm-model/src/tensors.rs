//! Access to tensors for families, which build their blocks from names and shapes.

use crate::{Linear, Norm};
use sparsellm_base::Result;
use sparsellm_checkpoint::{Checkpoint, Rows, Slot};
use sparsellm_tensor::Weights;

/// The tensors of a checkpoint under a prefix.
///
/// A family declares each tensor once, by name and shape. Asked for an outline,
/// the same declarations check that every tensor is there and in shape, and give
/// linears and norms without values, to plan with; otherwise they are read.
pub struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    prefix: String,
    outline: bool,
}

impl<'a> Tensors<'a> {
    /// Tensors that are read.
    pub fn read(checkpoint: &'a Checkpoint) -> Self {
        Tensors { checkpoint, prefix: String::new(), outline: false }
    }

    /// Tensors that are checked for presence and shape, but not read.
    pub fn outline(checkpoint: &'a Checkpoint) -> Self {
        Tensors { checkpoint, prefix: String::new(), outline: true }
    }

    /// The tensors under a longer prefix.
    pub fn under(&self, prefix: &str) -> Tensors<'a> {
        let prefix = format!("{}{prefix}", self.prefix);
        Tensors { checkpoint: self.checkpoint, prefix, outline: self.outline }
    }

    /// The full name of a tensor `[rows, cols]` that is read row by row later, such
    /// as an embedding.
    ///
    /// # Errors
    /// Where it is missing or of another shape.
    pub fn table(&self, name: &str, rows: usize, cols: usize) -> Result<String> {
        let name = format!("{}{name}", self.prefix);
        if self.outline {
            self.checkpoint.expect(&name, &[rows, cols])?;
        }
        Ok(name)
    }

    /// The same for a table that a checkpoint need not have.
    ///
    /// # Errors
    /// If it is named, but missing or of another shape.
    pub fn optional_table(
        &self,
        name: Option<&str>,
        rows: usize,
        cols: usize,
    ) -> Result<Option<String>> {
        name.map(|name| self.table(name, rows, cols)).transpose()
    }

    /// A vector of `len` values.
    ///
    /// # Errors
    /// Where it is missing, of another shape, or cannot be read.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let name = format!("{}{name}", self.prefix);
        if self.outline {
            self.checkpoint.expect(&name, &[len])?;
            return Ok(Vec::new());
        }
        self.checkpoint.vector(&name)
    }

    /// The linear `NAME.weight: [d_out, d_in]`, with `NAME.bias` where `bias`.
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn linear(&self, name: &str, [d_out, d_in]: [usize; 2], bias: bool) -> Result<Linear> {
        self.fused(name, name, (Rows::range(0..d_out), d_out), d_in, bias)
    }

    /// The linear `name` whose weights are `rows` of the `all` output features of
    /// the stored linear `stored`.
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn fused(
        &self,
        name: &str,
        stored: &str,
        (rows, all): (Rows, usize),
        d_in: usize,
        bias: bool,
    ) -> Result<Linear> {
        let tensor = format!("{}{stored}.weight", self.prefix);
        let bias_name = format!("{}{stored}.bias", self.prefix);
        let slot = Slot { tensor, rows, cols: d_in, transposed: false };
        if self.outline {
            self.checkpoint.expect(&slot.tensor, &[all, d_in])?;
            if bias {
                self.checkpoint.expect(&bias_name, &[all])?;
            }
            let weight = Weights::outline(slot.rows.count(), d_in);
            return Ok(Linear { name: name.into(), slot, weight, bias: None });
        }
        let weight = Weights::new(self.checkpoint.slot(&slot)?);
        let bias = match bias {
            true => {
                let stored = self.checkpoint.vector(&bias_name)?;
                Some(slot.rows.ranges().flat_map(|rows| stored[rows].to_vec()).collect())
            }
            false => None,
        };
        Ok(Linear { name: name.into(), slot, weight, bias })
    }

    /// An RMS norm over `len` features: its weight is the tensor `name`.
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn rms_norm(&self, name: &str, len: usize, eps: f32) -> Result<Norm> {
        Ok(Norm::Rms { weight: self.vector(name, len)?, eps })
    }

    /// A layer norm over `len` features: `NAME.weight` and `NAME.bias`, unless it is
    /// not `affine`.
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn layer_norm(&self, name: &str, len: usize, eps: f32, affine: bool) -> Result<Norm> {
        let part = |part: &str| match affine {
            true => self.vector(&format!("{name}.{part}"), len).map(Some),
            false => Ok(None),
        };
        Ok(Norm::Layer { weight: part("weight")?, bias: part("bias")?, eps })
    }
}
