//! Shares a sparsity among linears so that what they cost together is least.

/// The sparsities between which each linear chooses.
const CHOICES: usize = 201;
/// Bisections of the price of a weight.
const BISECTIONS: usize = 100;

/// What a linear costs at some sparsities.
#[derive(Clone, Debug)]
pub struct Item {
    /// The number of its weights.
    pub weights: f64,
    /// The logarithm of its cost at each of the measured sparsities.
    pub log_costs: Vec<f64>,
}

/// The sparsities s that solve
///
/// ```text
/// min  Σ_i c_i(s_i)    with   Σ_i n_i s_i = ρ Σ_i n_i
/// ```
///
/// where log c_i is linear between the sparsities at which it was `measured`, the first and the last
/// of which are the bounds of s and have ρ between them. At a price λ of a weight, each linear
/// takes the sparsity with the least `c_i(s) − λ n_i s`; the price is bisected until the total is right.
pub fn solve(items: &[Item], measured: &[f64], rho: f64) -> Vec<f64> {
    let total: f64 = items.iter().map(|item| item.weights).sum();
    let (Some(&first), Some(&last)) = (measured.first(), measured.last()) else {
        return vec![rho; items.len()];
    };
    let choices: Vec<f64> =
        (0..CHOICES).map(|i| first + (last - first) * i as f64 / (CHOICES - 1) as f64).collect();
    let costs: Vec<Vec<f64>> = items
        .iter()
        .map(|item| choices.iter().map(|s| cost(&item.log_costs, measured, *s)).collect())
        .collect();
    let at = |log_price: f64| -> Vec<f64> {
        let chosen = items.iter().zip(&costs).map(|(item, costs)| {
            let price = log_price.exp() * item.weights;
            let net = costs.iter().zip(&choices).map(|(cost, s)| (cost - price * s, s));
            net.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(rho, |(_, s)| *s)
        });
        chosen.collect()
    };
    let mean = |chosen: &[f64]| {
        items.iter().zip(chosen).map(|(item, s)| item.weights * s).sum::<f64>() / total
    };
    let (mut low, mut high) = (-200.0, 200.0);
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if mean(&at(middle)) < rho { low = middle } else { high = middle }
    }
    // The total jumps where a linear's choice does: what is missing is shared between the two sides.
    let (below, above) = (at(low), at(high));
    let (least, most) = (mean(&below), mean(&above));
    let part = if most > least { ((rho - least) / (most - least)).clamp(0.0, 1.0) } else { 0.0 };
    below.iter().zip(&above).map(|(b, a)| b + part * (a - b)).collect()
}

/// The cost at sparsity `s`.
fn cost(log_costs: &[f64], measured: &[f64], s: f64) -> f64 {
    let place = measured.iter().rposition(|m| *m <= s).unwrap_or(0);
    let place = place.min(measured.len().saturating_sub(2));
    let (Some(m), Some(c)) = (measured.get(place..place + 2), log_costs.get(place..place + 2))
    else {
        return log_costs.first().map_or(0.0, |c| c.exp());
    };
    (c[0] + (c[1] - c[0]) * (s - m[0]) / (m[1] - m[0])).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marginal_costs_are_equal() {
        // c_i = w_i e^{ks}, n_i = 1: the best s_i = ρ − (ln w_i − mean ln w)/k.
        let measured = [0.3, 0.7, 0.9];
        let items: Vec<Item> = [1.0f64, 2.0, 3.0]
            .iter()
            .map(|w| Item {
                weights: 1.0,
                log_costs: measured.iter().map(|s| w.ln() + 6.0 * s).collect(),
            })
            .collect();
        let mean = (1f64.ln() + 2f64.ln() + 3f64.ln()) / 3.0;
        for (s, w) in solve(&items, &measured, 0.7).iter().zip([1.0f64, 2.0, 3.0]) {
            let want = 0.7 - (w.ln() - mean) / 6.0;
            assert!((s - want).abs() < 0.004, "{w}: {s} {want}");
        }
    }

    proptest! {
        #[test]
        fn the_total_is_exact_and_no_choice_is_better(
            weights in prop::collection::vec(1.0f64..1000.0, 2..8),
            logs in prop::collection::vec(-20.0f64..5.0, 24),
            rho in 0.05f64..0.95,
        ) {
            let measured = [0.5 * rho, rho, 0.5 + 0.5 * rho];
            let items: Vec<Item> = weights.iter().zip(logs.chunks(3)).map(|(n, c)| {
                let mut log_costs = c.to_vec();
                log_costs.sort_by(f64::total_cmp);
                Item { weights: *n, log_costs }
            }).collect();
            let found = solve(&items, &measured, rho);
            let total: f64 = weights.iter().sum();
            let mean = found.iter().zip(&weights).map(|(s, n)| s * n).sum::<f64>() / total;
            prop_assert!((mean - rho).abs() < 1e-9, "{mean} {rho}");
            let bounds = measured[0] - 1e-12..=measured[2] + 1e-12;
            prop_assert!(found.iter().all(|s| bounds.contains(s)), "{found:?}");
        }
    }
}
