//! How a family is registered.

use crate::{Config, Family};
use sparsellm_base::Result;

/// What a family's file registers: the constant `FAMILY` in it.
pub struct Registration {
    /// Each member of the family: the architecture and the `model_type` in its
    /// `config.json`.
    pub members: &'static [(&'static str, &'static str)],
    /// Fields of the members' configuration classes in transformers that change nothing
    /// that is computed here, beside those of [`WITHOUT_EFFECT`](crate::WITHOUT_EFFECT).
    pub without_effect: &'static [&'static str],
    pub(crate) open: fn(&Opening) -> Result<Box<dyn Family>>,
}

/// The checkpoint that a family is opened with.
///
/// A family asks for every field of the configuration that matters to it, whatever the
/// others say; what it does not support, it refuses by `Config::only`.
pub struct Opening<'a> {
    /// The member of the family.
    pub model_type: &'a str,
    /// The checkpoint's configuration.
    pub config: &'a Config<'a>,
    /// Whether there is a tensor of that name.
    pub has_tensor: &'a dyn Fn(&str) -> bool,
}

impl Opening<'_> {
    /// What the names of the decoder's tensors begin with: the first of these prefixes under
    /// which there is the tensor `name`. Checkpoints of a whole model have the last one, and
    /// those of a bare decoder a shorter one.
    pub(crate) fn prefix(&self, prefixes: &[&'static str], name: &str) -> &'static str {
        let stored = |prefix: &&&str| (self.has_tensor)(&format!("{prefix}{name}"));
        prefixes.iter().find(stored).or(prefixes.last()).copied().unwrap_or_default()
    }

    /// The tables of the embedding and the head, which are called so where each is stored.
    ///
    /// As in transformers, a table that is stored is used, whatever the configuration says
    /// about a tie; if they are `tied`, one that is not stored is the other.
    pub(crate) fn tables(&self, embedding: String, head: &str, tied: bool) -> Tables {
        let stored = |name: &str| (self.has_tensor)(name);
        if stored(head) {
            let embedding = if tied && !stored(&embedding) { head.into() } else { embedding };
            return Tables { embedding, head: Some(head.into()) };
        }
        Tables { head: tied.then(|| embedding.clone()), embedding }
    }
}

/// The names of the tensors `[vocabulary, width]` at the two ends of a model.
pub(crate) struct Tables {
    /// What tokens become hidden states by.
    pub embedding: String,
    /// What hidden states become logits by: checkpoints of a bare decoder or of a classifier
    /// have none.
    pub head: Option<String>,
}
