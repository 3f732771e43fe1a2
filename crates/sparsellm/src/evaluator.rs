//! Measures a model's perplexity.

use crate::inputs::{find_text, hub_or_environments, resolve_seq_len};
use sparsellm_base::{Observer, Result};
use sparsellm_data::{Hub, Use};
use sparsellm_eval::{Perplexity, perplexity};
use sparsellm_model::Model;
use sparsellm_ranks::{Communicator, Local};
use sparsellm_text::Segments;
use std::cell::OnceCell;

/// Measures a model's perplexity on texts.
///
/// See the [crate's](crate) front page for an example.
pub struct Evaluator<'a> {
    model: &'a Model,
    seq_len: Option<usize>,
    max_windows: Option<usize>,
    text_field: Option<String>,
    hub: Option<&'a Hub>,
    ranks: &'a dyn Communicator,
    observer: Observer<'a>,
}

impl<'a> Evaluator<'a> {
    /// An evaluator of `model`. Unless asked otherwise, it measures whole texts, in windows of
    /// 2048 tokens or as many as the model has positions, whichever is fewer.
    pub fn new(model: &'a Model) -> Self {
        Evaluator {
            model,
            seq_len: None,
            max_windows: None,
            text_field: None,
            hub: None,
            ranks: &Local,
            observer: Observer::silent(),
        }
    }

    /// Sets the number of tokens per window.
    pub fn seq_len(mut self, seq_len: impl Into<Option<usize>>) -> Self {
        self.seq_len = seq_len.into();
        self
    }

    /// Measures only the first `max_windows` windows of a text.
    pub fn max_windows(mut self, max_windows: impl Into<Option<usize>>) -> Self {
        self.max_windows = max_windows.into();
        self
    }

    /// Sets the field of a file's rows that holds their text, as for [`Source::text_field`].
    ///
    /// [`Source::text_field`]: sparsellm_data::Source::text_field
    pub fn text_field(mut self, name: impl Into<Option<String>>) -> Self {
        self.text_field = name.into();
        self
    }

    /// Sets the hub that data sets come from; by default, the one that the environment describes.
    pub fn hub(mut self, hub: &'a Hub) -> Self {
        self.hub = Some(hub);
        self
    }

    /// Sets the ranks that the windows are spread over; by default, this process alone.
    pub fn ranks(mut self, ranks: &'a dyn Communicator) -> Self {
        self.ranks = ranks;
        self
    }

    /// Sets the observer that receives progress events. Its error ends the measurement.
    pub fn observer(mut self, observer: Observer<'a>) -> Self {
        self.observer = observer;
        self
    }

    /// The windows of the text with this name: `wikitext2`, `ptb` or `c4`, a file on the hub, or
    /// the path of a file.
    ///
    /// # Errors
    /// If the text cannot be read or is too short, or the model cannot take windows of this length.
    pub fn windows(&mut self, text: &str) -> Result<Segments> {
        let seq_len = resolve_seq_len(self.model, self.seq_len)?;
        let environment = OnceCell::new();
        let hub = hub_or_environments(self.hub, &environment);
        let source = find_text(text, Use::Evaluation, hub, self.ranks, &mut self.observer)?;
        let source = source.text_field(self.text_field.clone());
        let files = &self.model.checkpoint;
        source.windows(seq_len, self.max_windows, files, &mut self.observer)
    }

    /// The model's perplexity on the text with this name, which is any that
    /// [`windows`](Self::windows) takes.
    ///
    /// # Errors
    /// If the text cannot be read or is too short, the weights cannot be read, or the model's
    /// output is not finite; and the observer's own error.
    pub fn perplexity(&mut self, text: &str) -> Result<Perplexity> {
        let windows = self.windows(text)?;
        perplexity(self.model, &windows, text, self.ranks, &mut self.observer)
    }
}
