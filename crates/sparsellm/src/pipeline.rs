//! The sentence: load one decoder layer, run it on the calibration hidden
//! states, prune its linears, run it again pruned, write it, next layer.

use crate::checkpoint::Writer;
use crate::error::{Error, Result, invalid, usage};
use crate::event::Event;
use crate::linalg::{Gram, InverseFactor, Matrix, View, dot, matmul_nt};
use crate::model::{DecoderLayer, FeedForward, Group, Model};
use crate::prune::pattern::measured_sparsity;
use crate::prune::{Method, magnitude, sparsegpt, sparsellm, wanda};
use crate::report::{LayerReport, LinearReport};
use crate::settings::Settings;
use crate::text::Segments;
use rayon::prelude::*;
use std::{collections::BTreeMap, time::Instant};

/// Tokens that go through a layer together.
const CHUNK: usize = 2048;

/// Prunes `model` on the calibration `segments`, layer by layer, and writes the
/// pruned linears. Magnitude pruning needs no segments.
///
/// # Errors
/// Where weights cannot be read or written, or are not finite.
pub fn prune(
    model: &Model,
    segments: Option<&Segments>,
    settings: &Settings,
    writer: &mut Writer,
    observe: &mut dyn FnMut(Event),
) -> Result<Vec<LayerReport>> {
    settings.check(model)?;
    let range = settings.layers.clone().unwrap_or(0..model.shape().layers);
    let (mut hidden, seq_len) = match segments {
        _ if settings.method == Method::Magnitude => (Matrix::zeros(0, model.shape().hidden), 1),
        Some(s) => (model.embed(&s.tokens, s.seq_len)?, s.seq_len),
        None => return usage!("{} needs calibration text", settings.method.name()),
    };
    let mut reports = Vec::new();
    for index in 0..range.end {
        if !range.contains(&index) {
            if hidden.rows > 0 {
                let layer = model.layer(index)?;
                for_each_chunk(&mut hidden, seq_len, |h| layer.forward(h, seq_len, |_, _| {}));
            }
            continue;
        }
        observe(Event::Layer { index, done: reports.len(), of: range.len() });
        let layer = model.layer(index)?;
        if settings.method == Method::SparseLlm {
            sparsellm::check(&layer.ffn)?;
        }
        let prefix = model.family.layer_prefix(index);
        let mut work = LayerWork { model, settings, index, prefix, layer, seq_len, observe };
        let report = work.prune(&hidden)?;
        for linear in work.layer.all_linears() {
            writer.write(&format!("{}{}.weight", work.prefix, linear.name), &linear.weight.data)?;
        }
        if index + 1 < range.end {
            let layer = &work.layer;
            for_each_chunk(&mut hidden, seq_len, |h| layer.forward(h, seq_len, |_, _| {}));
        }
        observe(Event::LayerDone { report: &report });
        reports.push(report);
    }
    Ok(reports)
}

/// Values of `hidden` in whole segments of about [`CHUNK`] tokens.
fn chunk_values(hidden: &Matrix, seq_len: usize) -> usize {
    ((CHUNK / seq_len.max(1)).max(1) * seq_len * hidden.cols).max(1)
}

/// Copies of whole segments of `hidden`, a few at a time.
fn chunks(hidden: &Matrix, seq_len: usize) -> impl Iterator<Item = Matrix> {
    let cols = hidden.cols;
    let parts = hidden.data.chunks(chunk_values(hidden, seq_len));
    parts.map(move |part| Matrix::new(part.len() / cols, cols, part.to_vec()))
}

/// Runs `f` on whole segments of `hidden`, a few at a time, and keeps what it
/// makes of them.
pub fn for_each_chunk(hidden: &mut Matrix, seq_len: usize, mut f: impl FnMut(&mut Matrix)) {
    let (cols, values) = (hidden.cols, chunk_values(hidden, seq_len));
    for part in hidden.data.chunks_mut(values) {
        let mut chunk = Matrix::new(part.len() / cols, cols, part.to_vec());
        f(&mut chunk);
        part.copy_from_slice(&chunk.data);
    }
}

/// What a method needs to know of a group's inputs.
enum Statistics {
    Nothing,
    /// `‖X_j‖²` per feature.
    SquaredNorms(Vec<f64>),
    /// `XᵀX`.
    Gram(Gram),
}

impl Statistics {
    fn new(method: Method, d_in: usize) -> Self {
        match method {
            Method::Magnitude => Statistics::Nothing,
            Method::Wanda => Statistics::SquaredNorms(vec![0.0; d_in]),
            Method::SparseGpt | Method::SparseLlm => Statistics::Gram(Gram::new(d_in)),
        }
    }

    fn add(&mut self, x: View) {
        match self {
            Statistics::Nothing => {}
            Statistics::SquaredNorms(norms) => {
                for row in x.data.chunks_exact(x.cols) {
                    norms.iter_mut().zip(row).for_each(|(n, &v)| *n += f64::from(v) * f64::from(v));
                }
            }
            Statistics::Gram(gram) => gram.add(x),
        }
    }
}

/// One decoder layer being pruned.
struct LayerWork<'a> {
    model: &'a Model,
    settings: &'a Settings,
    index: usize,
    prefix: String,
    layer: DecoderLayer,
    seq_len: usize,
    observe: &'a mut dyn FnMut(Event),
}

impl LayerWork<'_> {
    fn prune(&mut self, hidden: &Matrix) -> Result<LayerReport> {
        let mut report = LayerReport {
            index: self.index,
            linears: BTreeMap::new(),
            ffn_error: Vec::new(),
            kept_epoch: 0,
        };
        // SparseLLM takes the feed-forward network as a whole.
        let global = self.settings.method == Method::SparseLlm;
        let local = if global { &Group::ALL[..2] } else { &Group::ALL[..] };
        // The global method's X is the dense layer's, unless recaptured.
        let sequential = self.settings.true_sequential;
        let mut x = (global && !sequential).then(|| self.ffn_inputs(hidden));
        for groups in local.chunks(if sequential { 1 } else { local.len() }) {
            let statistics = self.capture(hidden, groups);
            for (&group, statistics) in groups.iter().zip(statistics) {
                self.prune_group(group, statistics, &mut report)?;
            }
        }
        if global {
            let x = x.take().unwrap_or_else(|| self.ffn_inputs(hidden));
            self.prune_ffn(&x, &mut report)?;
        }
        Ok(report)
    }

    /// Runs the layer as it is now and gathers the inputs of `groups`.
    fn capture(&self, hidden: &Matrix, groups: &[Group]) -> Vec<Statistics> {
        let method = self.settings.method;
        let width = |g: &Group| self.layer.linears(*g)[0].weight.cols;
        let mut statistics: Vec<_> =
            groups.iter().map(|g| Statistics::new(method, width(g))).collect();
        if method == Method::Magnitude {
            return statistics;
        }
        let attention_only =
            groups.iter().all(|g| matches!(g, Group::AttentionIn | Group::AttentionOut));
        for mut h in chunks(hidden, self.seq_len) {
            let capture = |group, x: View| {
                if let Some(i) = groups.iter().position(|g| *g == group) {
                    statistics[i].add(x);
                }
            };
            if attention_only {
                self.layer.attend(&mut h, self.seq_len, capture);
            } else {
                self.layer.forward(&mut h, self.seq_len, capture);
            }
        }
        statistics
    }

    /// The feed-forward network's inputs for all tokens, `[tokens, d]`.
    fn ffn_inputs(&self, hidden: &Matrix) -> Matrix {
        let mut x = Matrix { rows: hidden.rows, cols: hidden.cols, data: Vec::new() };
        x.data.reserve_exact(hidden.data.len());
        for mut h in chunks(hidden, self.seq_len) {
            self.layer.attend(&mut h, self.seq_len, |_, _| {});
            x.data.extend_from_slice(&self.layer.ffn_input(&h).data);
        }
        x
    }

    /// Prunes the linears that share an input.
    fn prune_group(
        &mut self,
        group: Group,
        statistics: Statistics,
        report: &mut LayerReport,
    ) -> Result<()> {
        let settings = self.settings;
        let factor = match &statistics {
            Statistics::Gram(gram) => Some(self.factor(gram, group)?),
            _ => None,
        };
        let started = Instant::now();
        let mut done = Vec::new();
        for linear in self.layer.linears_mut(group) {
            let before = factor.as_ref().map(|_| linear.weight.clone());
            let w = &mut linear.weight;
            match (&statistics, &factor) {
                (Statistics::SquaredNorms(norms), _) => {
                    let norms: Vec<f32> = norms.iter().map(|&n| n as f32).collect();
                    wanda::prune(w, &norms, settings.pattern);
                }
                (Statistics::Gram(_), Some(factor)) => {
                    sparsegpt::prune(w, factor, settings.pattern, settings.sweep());
                }
                _ => magnitude::prune(w, settings.pattern),
            }
            let error = match (&statistics, before) {
                (Statistics::Gram(gram), Some(before)) => Some(output_error(gram, &before, w)),
                _ => None,
            };
            done.push((linear.name, error));
        }
        let seconds = started.elapsed().as_secs_f64() / done.len().max(1) as f64;
        let raised_damping = factor.map(|f| f.damping).filter(|&d| d > settings.damping);
        for (name, error) in done {
            self.finish_linear(name, error, seconds, raised_damping, report)?;
        }
        Ok(())
    }

    fn factor(&mut self, gram: &Gram, group: Group) -> Result<InverseFactor> {
        let name = self.layer.linears(group)[0].name;
        let Some(factor) = InverseFactor::new(gram, self.settings.damping) else {
            return Err(Error::Invalid(format!(
                "layer {}: the inputs of {name} are not finite on the calibration text, so there is nothing to prune against; check the checkpoint with `sparsellm eval`",
                self.index
            )));
        };
        if factor.damping > self.settings.damping {
            (self.observe)(Event::Warning(format!(
                "layer {} {name}: the Hessian is singular; damping raised from {} to {}",
                self.index, self.settings.damping, factor.damping
            )));
        }
        Ok(factor)
    }

    /// Prunes the feed-forward network globally.
    fn prune_ffn(&mut self, x: &Matrix, report: &mut LayerReport) -> Result<()> {
        let started = Instant::now();
        let s = self.settings;
        let default = match self.layer.ffn {
            FeedForward::SwiGlu { .. } => 5.0,
            FeedForward::Mlp { .. } => 0.1,
        };
        let settings = sparsellm::Settings {
            pattern: s.pattern,
            sweep: s.sweep(),
            damping: s.damping,
            alpha: s.alpha.unwrap_or(default),
            beta: s.beta.unwrap_or(default),
            epochs: s.epochs,
            chunk: CHUNK,
        };
        let (index, observe) = (self.index, &mut *self.observe);
        let outcome = sparsellm::prune(&mut self.layer.ffn, x, &settings, |epoch, error| {
            observe(Event::Epoch { index, epoch, error });
        });
        let outcome = match outcome {
            Err(Error::Invalid(what)) => return invalid!("layer {index}: {what}"),
            other => other?,
        };
        report.ffn_error = outcome.errors;
        report.kept_epoch = outcome.kept_epoch;
        let names: Vec<_> = [Group::FfnIn, Group::FfnOut]
            .into_iter()
            .flat_map(|g| self.layer.linears(g))
            .map(|l| l.name)
            .collect();
        let seconds = started.elapsed().as_secs_f64() / names.len() as f64;
        for name in names {
            self.finish_linear(name, None, seconds, None, report)?;
        }
        Ok(())
    }

    /// Rounds a pruned linear to the type it is written in, so that what runs
    /// on is what is written, and reports it.
    fn finish_linear(
        &mut self,
        name: &'static str,
        error: Option<f64>,
        seconds: f64,
        raised_damping: Option<f32>,
        report: &mut LayerReport,
    ) -> Result<()> {
        let Some(linear) = self.layer.linear_mut(name) else {
            return invalid!("layer {} has no linear {name}", self.index);
        };
        let stored = format!("{}{name}.weight", self.prefix);
        self.model.checkpoint.round(&stored, &mut linear.weight.data)?;
        if let Some(w) = linear.weight.data.iter().find(|w| !w.is_finite()) {
            return invalid!(
                "{stored}: a pruned weight became {w} in the checkpoint's number type; raise --damping, or convert the checkpoint to bf16 or f32"
            );
        }
        let sparsity = measured_sparsity(&linear.weight.data);
        let done = LinearReport { sparsity, error, seconds, raised_damping };
        (self.observe)(Event::Linear { index: self.index, name, report: &done });
        report.linears.insert(name.to_string(), done);
        Ok(())
    }
}

/// `‖X(W − Ŵ)ᵀ‖²/‖XWᵀ‖² = tr(ΔGΔᵀ)/tr(WGWᵀ)`, from the Gram matrix alone.
fn output_error(gram: &Gram, before: &Matrix, after: &Matrix) -> f64 {
    let g = gram.scaled(1.0);
    let energy = |m: &Matrix| -> f64 {
        let mg = matmul_nt(m.view(), g.view());
        let rows: Vec<f64> =
            (0..m.rows).into_par_iter().map(|i| f64::from(dot(m.row(i), mg.row(i)))).collect();
        rows.iter().sum()
    };
    let mut delta = before.clone();
    delta.data.iter_mut().zip(&after.data).for_each(|(d, a)| *d -= a);
    energy(&delta) / energy(before).max(f64::MIN_POSITIVE)
}
