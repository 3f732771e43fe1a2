//! The loss of tuning: how far the pruned model's next-token probabilities are from those of the
//! dense one.

use rayon::prelude::*;
use sparsellm_base::{Result, input_error};
use sparsellm_model::Model;
use sparsellm_tensor::profile::Region;
use sparsellm_tensor::{
    Matrix, View, divergence, exp_sum, largest, softcap, tile_matmul, tile_matmul_nt,
};
use std::{ops::Range, sync::Arc};

/// Tokens whose logits exist at once, of both models.
const TOKENS: usize = 256;
/// Rows of the vocabulary that a thread works on at once.
const ROWS: usize = 4096;

/// What turns the head's input into logits.
struct Head {
    /// `[vocabulary, d]`.
    table: Arc<Matrix>,
    softcap: Option<f32>,
}

impl Head {
    /// The logits of some rows of the vocabulary, `[tokens, rows]`.
    fn logits(&self, input: View, rows: Range<usize>) -> Matrix {
        let mut logits = Matrix::zeros(input.rows, rows.len());
        tile_matmul_nt(&mut logits.data, 0, false, 1.0, input, self.table.rows(rows));
        if let Some(cap) = self.softcap {
            softcap(&mut logits.data, cap);
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
        self.tiles(student, teacher, None).0
    }

    /// The same, and its gradient with respect to the student's input, times `scale`.
    pub fn gradient(&self, student: View, teacher: View, scale: f32) -> (f64, Matrix) {
        self.tiles(student, teacher, Some(scale))
    }

    fn tiles(&self, student: View, teacher: View, scale: Option<f32>) -> (f64, Matrix) {
        let mut gradient = Matrix::zeros(student.rows, student.cols);
        let mut sum = 0.0;
        for first in (0..student.rows).step_by(TOKENS) {
            let rows = first..(first + TOKENS).min(student.rows);
            let (loss, part) = self.tile(student.rows(rows.clone()), teacher.rows(rows), scale);
            sum += loss;
            if let Some(part) = part {
                gradient.set_rows(first, &part);
            }
        }
        (sum, gradient)
    }

    /// The loss of a tile of tokens and its gradient, by blocks of the vocabulary.
    fn tile(&self, student: View, teacher: View, scale: Option<f32>) -> (f64, Option<Matrix>) {
        let vocabulary = self.student.table.rows;
        let blocks: Vec<Range<usize>> =
            (0..vocabulary).step_by(ROWS).map(|i| i..(i + ROWS).min(vocabulary)).collect();
        let region = Region::here();
        let logits: Vec<[Matrix; 2]> = blocks
            .par_iter()
            .map(|rows| {
                region.task(|| {
                    [
                        self.student.logits(student, rows.clone()),
                        self.teacher.logits(teacher, rows.clone()),
                    ]
                })
            })
            .collect();
        let tokens: Vec<usize> = (0..student.rows).collect();
        let normalizers: Vec<[f32; 2]> = tokens
            .par_iter()
            .map(|&t| {
                [0, 1].map(|model| log_sum_exp(logits.iter().map(|block| block[model].row(t))))
            })
            .collect();
        let parts: Vec<(f64, Option<Matrix>)> = blocks
            .into_par_iter()
            .zip(logits)
            .map(|(rows, logits)| region.task(|| self.block(rows, logits, &normalizers, scale)))
            .collect();
        let mut gradient: Option<Matrix> = None;
        let mut sum = 0.0;
        for (loss, part) in parts {
            sum += loss;
            match (&mut gradient, part) {
                (Some(sum), Some(part)) => {
                    sum.data.iter_mut().zip(&part.data).for_each(|(a, b)| *a += b);
                }
                (none, part) => *none = part,
            }
        }
        (sum, gradient)
    }

    /// A block of the vocabulary's part in the loss, and in the gradient times `scale`.
    fn block(
        &self,
        rows: Range<usize>,
        [mut student, teacher]: [Matrix; 2],
        normalizers: &[[f32; 2]],
        scale: Option<f32>,
    ) -> (f64, Option<Matrix>) {
        let (mut sum, cols) = (0.0, student.cols);
        let mut capped = Vec::new();
        let pairs = student.data.chunks_exact_mut(cols).zip(teacher.data.chunks_exact(cols));
        for ((student, teacher), normalizers) in pairs.zip(normalizers) {
            capped.clear();
            capped.extend_from_slice(if self.student.softcap.is_some() { student } else { &[] });
            sum += divergence(student, teacher, *normalizers);
            if let Some(cap) = self.student.softcap {
                let slopes = student.iter_mut().zip(&capped);
                slopes.for_each(|(d, s)| *d *= 1.0 - (s / cap) * (s / cap));
            }
        }
        let gradient = scale.map(|scale| {
            let table = self.student.table.rows(rows);
            let mut out = Matrix::zeros(student.rows, table.cols);
            tile_matmul(&mut out.data, scale, student.view(), table);
            out
        });
        (sum, gradient)
    }
}

/// `ln Σ eˣ` over the parts of a row.
fn log_sum_exp<'a>(parts: impl Iterator<Item = &'a [f32]> + Clone) -> f32 {
    let max = parts.clone().map(largest).fold(f32::NEG_INFINITY, f32::max);
    max + parts.map(|part| exp_sum(part, max)).sum::<f32>().ln()
}
