//! The loss of tuning: how far the pruned model's next-token probabilities are from those of the
//! dense one.

use super::head::{Head, cap_backward, log_sum_exp, tiles};
use rayon::prelude::*;
use sparsellm_base::{Result, input_error};
use sparsellm_model::Model;
use sparsellm_tensor::profile::Region;
use sparsellm_tensor::{Arithmetic, Matrix, View, divergence};
use std::ops::Range;

/// The heads of the two models.
pub struct Distillation {
    student: Head,
    teacher: Head,
}

impl Distillation {
    /// Reads the heads. If they are equal, as they are after pruning, they are held once. The
    /// products are computed in this arithmetic.
    ///
    /// # Errors
    /// If one cannot be read, or their vocabularies differ.
    pub fn new(student: &Model, teacher: &Model, arithmetic: Arithmetic) -> Result<Self> {
        let (ours, theirs) = (student.shape().vocabulary, teacher.shape().vocabulary);
        if ours != theirs {
            return input_error!(
                "{}: the dense model has a vocabulary of {theirs} tokens, and the pruned one {ours}; it must be the model that was pruned",
                teacher.checkpoint.path.display()
            );
        }
        let student = Head::new(student, arithmetic)?;
        let mut teacher = Head::new(teacher, arithmetic)?;
        if teacher.table == student.table {
            teacher.table = student.table.clone();
        }
        Ok(Distillation { student, teacher })
    }

    /// The sum over tokens of the divergence, given both heads' inputs `[tokens, d]`.
    pub fn loss(&self, student: View, teacher: View) -> f64 {
        let tile = |rows: Range<usize>| self.tile(student.rows(rows.clone()), teacher.rows(rows));
        tiles(student.rows).map(|rows| tile(rows).0).sum()
    }

    /// The same, and its gradient with respect to the student's input, times `scale`.
    pub fn gradient(&self, student: View, teacher: View, scale: f32) -> (f64, Matrix) {
        let mut gradient = Matrix::zeros(student.rows, student.cols);
        let mut sum = 0.0;
        for rows in tiles(student.rows) {
            let first = rows.start;
            let (loss, logits) = self.tile(student.rows(rows.clone()), teacher.rows(rows));
            sum += loss;
            let mut part = self.student.input_gradient(logits.view());
            part.data.iter_mut().for_each(|v| *v *= scale);
            gradient.set_rows(first, &part);
        }
        (sum, gradient)
    }

    /// The loss of a tile of tokens, and its gradient with respect to the student's logits.
    fn tile(&self, student: View, teacher: View) -> (f64, Matrix) {
        let (mut student, teacher) = (self.student.logits(student), self.teacher.logits(teacher));
        let rows =
            student.data.par_chunks_mut(student.cols).zip(teacher.data.par_chunks(teacher.cols));
        let region = Region::here();
        let losses: Vec<f64> =
            rows.map(|(student, teacher)| region.task(|| self.token(student, teacher))).collect();
        (losses.into_iter().sum(), student)
    }

    /// The loss of one token, whose logits in the student become the gradient with respect to
    /// them.
    fn token(&self, student: &mut [f32], teacher: &[f32]) -> f64 {
        let logits = self.student.softcap.map(|cap| (cap, student.to_vec()));
        let normalizers = [log_sum_exp(student), log_sum_exp(teacher)];
        let loss = divergence(student, teacher, normalizers);
        if let Some((cap, logits)) = logits {
            cap_backward(student, &logits, cap);
        }
        loss
    }
}
