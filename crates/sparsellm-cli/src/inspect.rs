//! `sparsellm inspect`.

use crate::context::{Context, print, print_json};
use crate::{args, progress};
use serde_json::json;
use sparsellm::Result;
use sparsellm_prune::holds;
use std::collections::BTreeSet;

/// The N:M patterns that are looked for in every prunable weight.
const PATTERNS: [(usize, usize); 7] = [(1, 2), (2, 4), (3, 4), (4, 8), (5, 8), (6, 8), (7, 8)];

pub fn run(args: &args::Inspect, context: &Context) -> Result<()> {
    let model = progress::open(&args.model, context)?;
    let mut prunable = BTreeSet::new();
    for index in 0..model.shape().layers {
        let block = model.outline(index)?;
        prunable.extend(block.linears().into_iter().map(|linear| linear.slot.tensor.clone()));
    }
    let (mut tensors, mut parameters, mut zeros, mut total) = (Vec::new(), 0, 0.0, 0.0);
    for (name, info) in model.checkpoint.tensors() {
        let n = info.len();
        let zero = model.checkpoint.count_zeros(name)?;
        let mut patterns = Vec::new();
        if prunable.contains(name) {
            let w = model.checkpoint.matrix(name)?;
            let held = PATTERNS.iter().filter(|(z, m)| holds(&w, *z, *m));
            patterns.extend(held.map(|(z, m)| format!("{z}:{m}")));
            zeros += zero as f64;
            total += n as f64;
        }
        parameters += n;
        let sparsity = zero as f64 / n.max(1) as f64;
        if !args.json {
            print(&format!(
                "{name:60} {:6} {:16} {:7.3} % {}\n",
                info.dtype.name(),
                format!("{:?}", info.shape),
                100.0 * sparsity,
                patterns.join(" ")
            ))?;
        }
        tensors.push(json!({
            "name": name,
            "shape": info.shape,
            "dtype": info.dtype.name(),
            "sparsity": sparsity,
            "patterns": patterns,
        }));
    }
    let sparsity = zeros / f64::max(total, 1.0);
    if args.json {
        return print_json(&json!({
            "model": args.model,
            "architecture": model.architecture,
            "parameters": parameters,
            "sparsity": sparsity,
            "tensors": tensors,
        }));
    }
    print(&format!(
        "{}: {} tensors, {parameters} parameters; the decoder layers' linears are {:.3} % zero\n",
        model.architecture,
        tensors.len(),
        100.0 * sparsity
    ))
}
