//! What families read their tensors by: each is declared once, by name and shape.

use crate::{Linear, Norm, Stored};
use sparsellm_base::Result;
use sparsellm_checkpoint::{Checkpoint, Rows, Slot};
use sparsellm_tensor::Weights;

/// The tensors of a checkpoint under a prefix.
///
/// A family declares each tensor once, by name and shape, and the declaration is used twice.
/// When a model is opened, its [`outline`](Self::outline) checks that every tensor is present
/// and has that shape, and gives linears and norms without values, to plan with. Later,
/// [`read`](Self::read) gives the values, of the same tensors.
pub struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    prefix: String,
    outline: bool,
}

impl<'a> Tensors<'a> {
    /// Access that reads the tensors' values.
    pub fn read(checkpoint: &'a Checkpoint) -> Self {
        Tensors { checkpoint, prefix: String::new(), outline: false }
    }

    /// Access that checks the tensors' presence and shape, but does not read them.
    pub fn outline(checkpoint: &'a Checkpoint) -> Self {
        Tensors { checkpoint, prefix: String::new(), outline: true }
    }

    /// Access to the tensors under a longer prefix.
    pub fn under(&self, prefix: &str) -> Tensors<'a> {
        let prefix = format!("{}{prefix}", self.prefix);
        Tensors { checkpoint: self.checkpoint, prefix, outline: self.outline }
    }

    /// Declares a table `[rows, cols]` whose rows are read one by one later, such as an
    /// embedding. Returns its full name.
    ///
    /// # Errors
    /// For an outline, if it is missing or has another shape.
    pub fn table(&self, name: &str, rows: usize, cols: usize) -> Result<String> {
        let name = format!("{}{name}", self.prefix);
        if self.outline {
            self.checkpoint.expect(&name, &[rows, cols])?;
        }
        Ok(name)
    }

    /// Declares a [`table`](Self::table) that the model may lack.
    ///
    /// # Errors
    /// As for [`table`](Self::table), if there is a name.
    pub fn optional_table(
        &self,
        name: Option<&str>,
        rows: usize,
        cols: usize,
    ) -> Result<Option<String>> {
        name.map(|name| self.table(name, rows, cols)).transpose()
    }

    /// Declares a vector of `len` values; for an outline, it is empty.
    ///
    /// # Errors
    /// For an outline, if it is missing or has another shape; otherwise, if it cannot be read.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let name = format!("{}{name}", self.prefix);
        if self.outline {
            self.checkpoint.expect(&name, &[len])?;
            return Ok(Vec::new());
        }
        self.checkpoint.vector(&name)
    }

    /// Declares the linear `NAME.weight: [d_out, d_in]`, with `NAME.bias` if it has a bias.
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn linear(&self, name: &str, [d_out, d_in]: [usize; 2], bias: bool) -> Result<Linear> {
        self.fused(name, name, (Rows::range(0..d_out), d_out), d_in, bias)
    }

    /// Declares the linear `name` whose weights are some `rows` of the `all` rows of the stored
    /// linear `stored`.
    ///
    /// GPT-NeoX's keys, for example, are the second of three runs of `head_dim` rows of each
    /// head:
    ///
    /// ```text
    /// let rows = Rows { first: head_dim, length: head_dim, stride: 3 * head_dim, runs: heads };
    /// t.fused("attention.key", "attention.query_key_value", (rows, 3 * d), d, true)
    /// ```
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

    /// Declares an RMS norm over `len` features, whose weight is the tensor `name`.
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn rms_norm(&self, name: &str, len: usize, eps: f32) -> Result<Norm> {
        self.rms_norm_plus(name, len, eps, 0.0)
    }

    /// Declares an RMS norm whose scale is the tensor `name` with `plus` added to it (Gemma).
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn rms_norm_plus(&self, name: &str, len: usize, eps: f32, plus: f32) -> Result<Norm> {
        let weight = self.vector(name, len)?.into_iter().map(|w| w + plus).collect();
        Ok(Norm::Rms { weight, eps, stored: Stored { plus, ..self.stored(name) } })
    }

    fn stored(&self, name: &str) -> Stored {
        Stored { tensor: format!("{}{name}", self.prefix), plus: 0.0 }
    }

    /// Declares a layer norm over `len` features, with `NAME.weight` and `NAME.bias` if it is
    /// `affine`.
    ///
    /// # Errors
    /// As for [`vector`](Self::vector).
    pub fn layer_norm(&self, name: &str, len: usize, eps: f32, affine: bool) -> Result<Norm> {
        let part = |part: &str| match affine {
            true => self.vector(&format!("{name}.{part}"), len).map(Some),
            false => Ok(None),
        };
        let stored = ["weight", "bias"].map(|part| self.stored(&format!("{name}.{part}")));
        Ok(Norm::Layer { weight: part("weight")?, bias: part("bias")?, eps, stored })
    }
}
