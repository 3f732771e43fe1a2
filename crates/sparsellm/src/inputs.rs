//! Finds the inputs of a run, models and texts, by the names that a user gives them.

use serde_json::Value;
use sparsellm_base::{Observer, Result, input_error, usage_error};
use sparsellm_checkpoint::refuse_quantized;
use sparsellm_data::{Hub, Source, Use, hub};
use sparsellm_model::{Model, supported_model_type};
use sparsellm_ranks::Communicator;
use sparsellm_text::Segments;
use std::{cell::OnceCell, path::Path};

/// The hub that was given, or else the one that the environment describes. The environment is
/// read only in the second case.
pub(crate) fn hub_or_environments<'h>(
    given: Option<&'h Hub>,
    environment: &'h OnceCell<Hub>,
) -> &'h Hub {
    given.unwrap_or_else(|| environment.get_or_init(|| Hub::from_env(false)))
}

/// Opens the model at a path or, if there is nothing at that path, the model with that id on the
/// hub. The first of the `ranks` downloads it.
///
/// # Errors
/// If there is no such model, it is not supported, or it cannot be downloaded or read.
pub fn open_model(
    name: &str,
    hub: &Hub,
    ranks: &dyn Communicator,
    observe: &mut Observer,
) -> Result<Model> {
    let path = Path::new(name);
    if path.exists() {
        return Model::open(path);
    }
    if !hub::is_id(name) {
        return input_error!(
            "{name}: no such file or folder; give a Hugging Face checkpoint folder, a .gguf file, or a model's id on the hub (org/name)"
        );
    }
    // Checked before the weights are downloaded: an unsupported model can take gigabytes.
    let accept = |config: &Value, path: &Path| {
        refuse_quantized(config, path)?;
        supported_model_type(config, path).map(drop)
    };
    let folder = ranks.rank_zero_first(|| hub.model(name, &accept, observe))?;
    Model::open(&folder)
}

/// Finds the text with this name: a data set, a file on the hub, or the path of a file. The first
/// of the `ranks` downloads it.
///
/// # Errors
/// If there is no such text, it cannot be downloaded, or its file is of no known kind.
pub fn find_text(
    name: &str,
    purpose: Use,
    hub: &Hub,
    ranks: &dyn Communicator,
    observe: &mut Observer,
) -> Result<Source> {
    ranks.rank_zero_first(|| Source::find(name, purpose, hub, observe))
}

/// How a run's segments are drawn from a text.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    /// The name of the text.
    pub text: Option<String>,
    /// The field of its rows that was asked for.
    pub text_field: Option<String>,
    /// How many segments are drawn.
    pub samples: usize,
    /// How many are drawn after them for tuning.
    pub more: usize,
    /// Tokens per segment, as asked for.
    pub seq_len: Option<usize>,
    /// The seed that the segments are drawn with.
    pub seed: u64,
}

impl Default for Draw {
    fn default() -> Self {
        Draw { text: None, text_field: None, samples: 128, more: 0, seq_len: None, seed: 0 }
    }
}

impl Draw {
    /// Draws the segments for `model`, on behalf of `purpose`, which an error names. The second
    /// ones are those that are drawn for tuning, as far as the text has them.
    ///
    /// # Errors
    /// If there is no text, or it cannot be read or is too short.
    pub fn segments(
        &self,
        purpose: &str,
        model: &Model,
        hub: &Hub,
        ranks: &dyn Communicator,
        observe: &mut Observer,
    ) -> Result<(Segments, Segments)> {
        let Some(text) = &self.text else {
            return usage_error!(
                "{purpose} needs calibration text: `calibration` wikitext2, ptb, c4 or a file"
            );
        };
        let seq_len = resolve_seq_len(model, self.seq_len)?;
        let source = find_text(text, Use::Calibration, hub, ranks, observe)?;
        let source = source.text_field(self.text_field.clone());
        let mut count = self.samples.saturating_add(self.more);
        if self.more > 0
            && let Some(most) = source.most_segments(seq_len)?
        {
            count = count.min(most.max(self.samples));
        }
        let all = source.segments(count, seq_len, self.seed, &model.checkpoint, observe)?;
        Ok((all.part(0..self.samples), all.part(self.samples..count)))
    }
}

/// The number of tokens per segment: what was asked for, or else 2048 or as many as the model has
/// positions, whichever is fewer.
///
/// # Errors
/// If the model cannot take segments of this length.
pub fn resolve_seq_len(model: &Model, asked: Option<usize>) -> Result<usize> {
    let seq_len = asked.unwrap_or(2048.min(model.shape().positions.unwrap_or(2048)));
    model.check_seq_len(seq_len)?;
    Ok(seq_len)
}
