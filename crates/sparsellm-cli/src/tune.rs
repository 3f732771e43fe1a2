//! `sparsellm tune`.

use crate::context::{Context, print, print_json};
use crate::{args, progress::Progress, prune::with_what_is_left, stop};
use sparsellm::{Result, Tuner};
use sparsellm_checkpoint::{Existing, unfinished};

pub fn run(args: &args::Tune, context: &Context) -> Result<()> {
    stop::watch(&*context.ranks)?;
    let mut progress = Progress::new();
    let report = Tuner::new(&args.model, &args.dense)
        .calibration(&args.calibration)
        .text_field(args.text_field.clone())
        .samples(args.samples)
        .seq_len(args.seq_len)
        .seed(args.seed)
        .settings(args.settings.asked())
        .state(args.state)
        .memory(args.memory)
        .existing(Existing { replace: args.force, resume: args.resume })
        .hub(&context.hub)
        .ranks(&*context.ranks)
        .observer(progress.observer())
        .write(&args.output);
    drop(progress);
    let report = report.map_err(|e| with_what_is_left(e, unfinished(&args.output), "epochs"))?;
    if args.json {
        return print_json(&report);
    }
    let held_out = &report.tune.held_out;
    let kept = report.tune.kept_epoch;
    print(&format!(
        "{}: epoch {kept} of {} kept; divergence on held-out text {:.4} before, {:.4} after; {:.1} s with {:.2} GB of memory\n",
        report.output,
        report.tune.epochs,
        held_out.first().copied().unwrap_or_default(),
        held_out.get(kept).copied().unwrap_or_default(),
        report.seconds,
        report.peak_rss_bytes as f64 / 1e9,
    ))
}
