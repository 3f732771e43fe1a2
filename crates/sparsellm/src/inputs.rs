//! Finds a run's inputs, models and texts, by the names that a user gives them.

use serde_json::Value;
use sparsellm_base::{Observer, Result, input_error};
use sparsellm_data::{Hub, Source, Use, hub};
use sparsellm_model::{Model, supported_architecture};
use sparsellm_ranks::Communicator;
use std::{cell::OnceCell, path::Path};

/// The hub that was given, or else the one that the environment describes, which is
/// looked at only then.
pub(crate) fn hub_or_environments<'h>(
    given: Option<&'h Hub>,
    environment: &'h OnceCell<Hub>,
) -> &'h Hub {
    given.unwrap_or_else(|| environment.get_or_init(|| Hub::from_env(false)))
}

/// Opens the model at a path, or by its id on the hub where there is nothing at that
/// path; the first of the `ranks` downloads it.
///
/// # Errors
/// Where there is no such model, or it cannot be read.
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
    let accept = |config: &Value, path: &Path| supported_architecture(config, path).map(drop);
    let folder = ranks.rank_zero_first(|| hub.model(name, &accept, observe))?;
    Model::open(&folder)
}

/// The text of that name: a data set, a file on the hub, or a file.
///
/// # Errors
/// Where there is none, or it is of no known kind.
pub fn find_text(
    name: &str,
    purpose: Use,
    hub: &Hub,
    ranks: &dyn Communicator,
    observe: &mut Observer,
) -> Result<Source> {
    ranks.rank_zero_first(|| Source::find(name, purpose, hub, observe))
}

/// The segment length to use: what was asked for, or 2048 within the model's
/// positions.
///
/// # Errors
/// Where the model cannot take segments of that length.
pub fn resolve_seq_len(model: &Model, asked: Option<usize>) -> Result<usize> {
    let seq_len = asked.unwrap_or(2048.min(model.shape().positions.unwrap_or(2048)));
    model.check_seq_len(seq_len)?;
    Ok(seq_len)
}
