//! Shows progress on stderr: as a bar on a terminal, and as plain lines otherwise.

use crate::context::{Context, note, silent};
use crate::fields::as_flags;
use crate::stop;
use indicatif::{
    HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use sparsellm::{Event, Observer, Result};
use std::{fmt, io::IsTerminal};

const LAYERS: &str = "{bar:24} {pos}/{len} layers  {left}  {wide_msg}";
const BYTES: &str = "{bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {left}  {wide_msg}";

/// Opens the model at a path or, if there is nothing at that path, the model of that id on the
/// hub, and shows the progress.
pub fn open(model: &str, context: &Context) -> Result<sparsellm::Model> {
    let mut progress = Progress::new();
    sparsellm::open_model(model, &context.hub, &*context.ranks, &mut progress.observer())
}

/// Shows the progress of a run.
pub struct Progress {
    /// The progress bar; `None` if stderr is not a terminal, or if this rank prints nothing.
    bar: Option<ProgressBar>,
    layer: usize,
    of: usize,
    /// The name of the file that is being downloaded.
    file: String,
}

impl Progress {
    /// Starts to show progress.
    pub fn new() -> Progress {
        let bar = (std::io::stderr().is_terminal() && !silent()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            set_style(&bar, LAYERS);
            bar
        });
        Progress { bar, layer: 0, of: 0, file: String::new() }
    }

    /// An observer that shows each event, and ends the run if a signal has asked it to end.
    pub fn observer(&mut self) -> Observer<'_> {
        Observer::new(|event| {
            self.event(&event);
            Ok(stop::check()?)
        })
    }

    /// Shows how many of `of` layers are done, for work that has nothing else to report.
    fn layers(&mut self, what: &str, done: usize, of: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            bar.set_message(what.to_string());
        } else if done == of {
            note(&format!("{what}: {of} layers done"));
        }
    }

    /// Shows one event of the library.
    fn event(&mut self, event: &Event) {
        match event {
            Event::Download { file, done, of } => self.download(file, *done, *of),
            Event::Memory { needed, spilled } => {
                let place = if *spilled { ", part of it in temporary files" } else { "" };
                let needed = *needed as f64 / 1e9;
                self.print(&format!("needs up to {needed:.2} GB of memory{place}"));
            }
            Event::Resumed { done, of } => {
                self.print(&format!("{done} of {of} layers were done before"));
            }
            Event::Measured { what, done, of } => self.layers(what, *done, *of),
            Event::LayerStarted { index, done, of } => {
                (self.layer, self.of) = (*index, *of);
                if let Some(bar) = &self.bar {
                    bar.set_length(*of as u64);
                    bar.set_position(*done as u64);
                    bar.set_message(format!("layer {index}"));
                }
            }
            Event::LinearPruned { index, name, sparsity, error, seconds } => {
                let error = error.map_or(String::new(), |e| format!("  error {e:.4}"));
                self.line(format!("layer {index} {name}{error}"), || {
                    format!("  sparsity {sparsity:.4}  {seconds:.2}s")
                });
            }
            Event::EpochDone { index, epoch, error } => {
                let line = format!("layer {index} feed-forward epoch {epoch}  E {error:.6}");
                self.line(line, String::new);
            }
            Event::LayerDone { index, kept_epoch } => {
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                } else if *kept_epoch > 0 {
                    note(&format!("layer {index} kept epoch {kept_epoch}"));
                }
            }
            Event::Tuned { epoch, training, held_out } => {
                let training =
                    training.map_or(String::new(), |loss| format!("training {loss:.4}, "));
                self.print(&format!("tuning, epoch {epoch}: {training}held out {held_out:.4}"));
            }
            Event::FinishedBefore => self.print("this run was finished before"),
            Event::LeftOut { paths } => self.print(&left_out(paths)),
            Event::Warning(text) => self.print(&format!("warning: {}", as_flags(text))),
            _ => {}
        }
    }

    fn download(&mut self, file: &str, done: u64, of: u64) {
        match &self.bar {
            None if done == of => note(&format!("{file}: {} downloaded", HumanBytes(of))),
            None => {}
            Some(bar) if self.file == file => bar.set_position(done),
            Some(bar) => {
                set_style(bar, BYTES);
                bar.set_length(of);
                bar.set_message(file.to_string());
                // The part that was downloaded earlier must not count towards the speed.
                bar.set_position(done);
                bar.reset_eta();
                self.file = file.to_string();
            }
        }
    }

    /// Prints a line that stays on the terminal, above the bar if there is one.
    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }

    /// Shows a short message: beside the bar, where the next one replaces it, or as a line of its
    /// own that ends with `detail`.
    fn line(&self, text: String, detail: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => note(&format!("{text}{}", detail())),
        }
    }
}

/// More names than this for one reason are counted, not told.
const MOST_NAMES: usize = 12;

/// A line that says what is no part of the output: names, then the reason they share.
fn left_out(paths: &[(String, &str)]) -> String {
    let mut reasons: Vec<&str> = paths.iter().map(|(_, reason)| *reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let told = reasons.into_iter().map(|reason| {
        let these = paths.iter().filter(|(_, r)| *r == reason);
        let names: Vec<&str> = these.map(|(path, _)| path.as_str()).collect();
        let more = match names.len().saturating_sub(MOST_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more} ({reason})", names[..names.len().min(MOST_NAMES)].join(", "))
    });
    format!("left out of the output: {}", told.collect::<Vec<_>>().join("; "))
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("left", time_left));
    }
}

/// Writes the estimated time left. Before any work is done there is no estimate, and nothing is
/// written.
fn time_left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let _ = match state.pos() {
        0 => write!(out, ""),
        _ => write!(out, "{:#} left", HumanDuration(state.eta())),
    };
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::left_out;

    #[test]
    fn what_is_left_out_is_told_by_reason() {
        let mut paths = vec![
            ("adapter_config.json".to_string(), "an adapter"),
            (".git".to_string(), "hidden"),
            ("adapter_model.safetensors".to_string(), "an adapter"),
        ];
        assert_eq!(
            left_out(&paths),
            "left out of the output: adapter_config.json, adapter_model.safetensors (an adapter); .git (hidden)"
        );
        paths.extend((0..20).map(|i| (format!("a{i}"), "old")));
        assert!(left_out(&paths).ends_with("a10, a11 and 8 more (old)"));
    }
}
