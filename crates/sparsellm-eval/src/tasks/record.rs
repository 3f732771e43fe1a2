//! The recorded results of a task.

use serde::{Deserialize, Serialize};

/// A model's accuracy on one zero-shot task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task's name.
    pub task: String,
    /// How many questions were asked.
    pub items: usize,
    /// The fraction of questions whose right answer the model found likeliest. In LAMBADA, the
    /// fraction whose last word greedy decoding produces.
    pub acc: f64,
    /// The standard error of `acc`.
    pub acc_stderr: f64,
    /// The fraction of questions whose right answer has the largest log-likelihood per character,
    /// if that is one of the task's metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// The standard error of `acc_norm`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm_stderr: Option<f64>,
    /// In LAMBADA, the perplexity of the last word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
}

/// A model's result on one question.
#[derive(Clone, Debug, Serialize)]
pub struct ItemReport {
    /// The task's name.
    pub task: &'static str,
    /// The index of the question in its file, counted from 0.
    pub index: usize,
    /// The log-likelihood of each choice, in nats.
    pub log_likelihoods: Vec<f64>,
    /// The index of the right choice.
    pub gold: usize,
    /// Whether the model found the right choice likeliest. In LAMBADA, whether greedy decoding
    /// produces the last word.
    pub acc: bool,
    /// Whether the right choice has the largest log-likelihood per character, if that is one of
    /// the task's metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<bool>,
}
