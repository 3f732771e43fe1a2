//! The loss of tuning: how far the pruned model's next-token probabilities are from those of the
//! dense one.

use rayon::prelude::*;
use sparsellm_base::{Result, input_error};
use sparsellm_model::Model;
use sparsellm_tensor::profile::Region;
use sparsellm_tensor::{Matrix, View, divergence, softcap, tile_matmul, tile_matmul_nt};
use std::sync::Arc;

/// Tokens whose logits exist at once on a thread, of both models. The vocabulary is never
/// divided, so that each logit is computed once.
const TOKENS: usize = 64;

/// What turns the head's input into logits.
struct Head {
    /// `[vocabulary, d]`.
    table: Arc<Matrix>,
    softcap: Option<f32>,
}

impl Head {
    fn logits(&self, input: View) -> Vec<f32> {
        let mut logits = vec![0.0; input.rows * self.table.rows];
        tile_matmul_nt(&mut logits, 0, false, 1.0, input, self.table.view());
        if let Some(cap) = self.softcap {
            softcap(&mut logits, cap);
        }
        logits
    }
}

/// The heads of the two models.
pub struct Distillation {
    student: Head,
    teacher: Head,
}

impl Distillation {
    /// Reads the heads. If they are equal, as they are after pruning, they are held once.
    ///
    /// # Errors
    /// If one cannot be read, or their vocabularies differ.
    pub fn new(student: &Model, teacher: &Model) -> Result<Self> {
        let (ours, theirs) = (student.shape().vocabulary, teacher.shape().vocabulary);
        if ours != theirs {
            return input_error!(
                "{}: the dense model has a vocabulary of {theirs} tokens, and the pruned one {ours}; it must be the model that was pruned",
                teacher.checkpoint.path.display()
            );
        }
        let of_student = Arc::new(student.head_rows(0..ours)?);
        let of_teacher = Arc::new(teacher.head_rows(0..theirs)?);
        let of_teacher = if of_teacher == of_student { of_student.clone() } else { of_teacher };
        Ok(Distillation {
            student: Head { table: of_student, softcap: student.logit_softcap() },
            teacher: Head { table: of_teacher, softcap: teacher.logit_softcap() },
        })
    }

    /// The sum over tokens of the divergence, given both heads' inputs `[tokens, d]`.
    pub fn loss(&self, student: View, teacher: View) -> f64 {
        self.tiles(student, teacher, |_, _| {}).0
    }

    /// The same, and its gradient with respect to the student's input, times `scale`.
    pub fn gradient(&self, student: View, teacher: View, scale: f32) -> (f64, Matrix) {
        let cap = self.student.softcap;
        self.tiles(student, teacher, |slopes, out| {
            if let Some((cap, logits)) = cap.zip(slopes.capped) {
                let capped = slopes.logits.iter_mut().zip(logits);
                capped.for_each(|(d, s)| *d *= 1.0 - (s / cap) * (s / cap));
            }
            let table = &self.student.table;
            tile_matmul(out, scale, View::new(slopes.logits, table.rows), table.view());
        })
    }

    /// Runs over tiles of tokens: `body` receives the gradient with respect to the student's
    /// logits, and the rows of the result that are the tile's.
    fn tiles(
        &self,
        student: View,
        teacher: View,
        body: impl Fn(Slopes, &mut [f32]) + Sync,
    ) -> (f64, Matrix) {
        let mut out = Matrix::zeros(student.rows, student.cols);
        let vocabulary = self.student.table.rows;
        let region = Region::here();
        let tiles = out.data.par_chunks_mut(TOKENS * student.cols).enumerate();
        let sums: Vec<f64> = tiles
            .map(|(tile, out)| {
                region.task(|| {
                    let rows = tile * TOKENS..(tile * TOKENS + out.len() / student.cols);
                    let mut logits = self.student.logits(student.rows(rows.clone()));
                    let capped = self.student.softcap.map(|_| logits.clone());
                    let of_teacher = self.teacher.logits(teacher.rows(rows));
                    let rows = logits.chunks_exact_mut(vocabulary);
                    let sum = rows
                        .zip(of_teacher.chunks_exact(vocabulary))
                        .map(|(s, t)| divergence(s, t));
                    let sum = sum.sum();
                    body(Slopes { logits: &mut logits, capped: capped.as_deref() }, out);
                    sum
                })
            })
            .collect();
        (sums.iter().sum(), out)
    }
}

/// The gradient with respect to a tile's logits, and the logits themselves if they were capped.
struct Slopes<'a> {
    logits: &'a mut [f32],
    capped: Option<&'a [f32]>,
}
