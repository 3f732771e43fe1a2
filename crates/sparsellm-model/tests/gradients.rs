//! The backward pass gives PyTorch's gradients for every family, and difference quotients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sparsellm_model::{Block, BlockGradients, HalfInput, Model, Part, Positions};
use sparsellm_tensor::{Arithmetic, Matrix, matmul};
use sparsellm_testing::{Case, cases, fixture, random};
use std::path::Path;

/// Asserts that gradients agree to 10⁻⁴ of the largest, or of 0.1: those of biases of keys are
/// nothing but rounding.
fn close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.1f64, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0f64, f64::max);
    assert!(worst <= 1e-4 * scale, "{what}: off by {worst} of {scale}");
}

fn agrees(file: &Path) {
    let name = file.file_stem().unwrap().to_str().unwrap();
    let folder = fixture(&format!("families/{name}"));
    let (model, case) = (Model::open(&folder).unwrap(), Case::load(file));
    let inputs = Case::load(&folder.join("expected.safetensors"));
    let tokens: Vec<u32> = inputs.vector("input_ids").iter().map(|&v| v as u32).collect();
    let at = Positions::segments(inputs.shape("input_ids")[1]);
    let layers = model.shape().layers;
    let mut hidden = vec![model.embed(&tokens, at.seq_len).unwrap()];
    for index in 0..layers {
        let mut next = hidden[index].clone();
        model.block(index).unwrap().forward(&mut next, at, None, |_, _| {});
        hidden.push(next);
    }
    let mut d = case.matrix("direction");
    if let Some(cap) = model.logit_softcap() {
        let slope = |logit: &f64| 1.0 - (*logit as f32 / cap).powi(2);
        d.data.iter_mut().zip(&inputs.vector("logits")).for_each(|(d, l)| *d *= slope(l));
    }
    let head = model.head_rows(0..model.shape().vocabulary).unwrap();
    let last = hidden.pop().unwrap();
    let mut d = model.finish_backward(&last, matmul(d.view(), head.view())).unwrap();
    for index in (0..layers).rev() {
        let block = model.block(index).unwrap();
        let mut gradients = BlockGradients::zeros(&block, Arithmetic::F32);
        d = block.backward(&hidden[index], at, d, &mut gradients);
        parameters_agree(&block, &gradients, &case, index, name);
    }
    close(&doubles(&d.data), &case.vector("hidden"), &format!("{name}: hidden"));
}

fn parameters_agree(
    block: &Block,
    gradients: &BlockGradients,
    case: &Case,
    layer: usize,
    name: &str,
) {
    for (linear, got) in block.linears().into_iter().zip(&gradients.linears) {
        let (_, stored) = linear.slot.tensor.split_once("layers.").unwrap();
        let what = format!("{name}: {stored} {}", linear.name);
        let rows = |tensor: &str, cols: usize| -> Vec<f64> {
            let all = case.vector(tensor);
            let ranges = linear.slot.rows.ranges();
            ranges.flat_map(|r| all[r.start * cols..r.end * cols].to_vec()).collect()
        };
        close(&got.weight, &rows(stored, linear.weight.cols), &what);
        if linear.bias.is_some() {
            close(&got.bias, &rows(&stored.replace("weight", "bias"), 1), &what);
        }
    }
    for (place, got) in gradients.norms.iter().enumerate() {
        for (kind, got) in [("weight", &got.weight), ("bias", &got.bias)] {
            let key = format!("{layer}.norms.{place}.{kind}");
            match case.has(&key) {
                true => close(got, &case.vector(&key), &format!("{name}: {key}")),
                false => assert!(got.is_empty(), "{name}: {key}"),
            }
        }
    }
}

#[test]
fn gradients_are_pytorchs() {
    for file in cases("gradients") {
        agrees(&file);
    }
}

/// For a single token, the gradient of a bias is that of the output; over tokens their squares add
/// up.
#[test]
fn squares_of_outputs_gradients_add_up_over_tokens() {
    let mut compared = 0;
    for file in cases("gradients") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let model = Model::open(&fixture(&format!("families/{name}"))).unwrap();
        let (block, d) = (model.block(0).unwrap(), model.shape().hidden);
        let (hidden, direction) = (random(5, d, 1, 1.0), random(5, d, 2, 1.0));
        let at = Positions::segments(1);
        let mut squares = BlockGradients::of_outputs(&block, Arithmetic::F32);
        block.backward(&hidden, at, direction.clone(), &mut squares);
        let mut want: Vec<Vec<f64>> =
            block.linears().iter().map(|linear| vec![0.0; linear.weight.rows]).collect();
        for token in 0..5 {
            let [hidden, direction] =
                [&hidden, &direction].map(|all| all.rows(token..token + 1).to_matrix());
            let mut single = BlockGradients::zeros(&block, Arithmetic::F32);
            block.backward(&hidden, at, direction, &mut single);
            for (want, linear) in want.iter_mut().zip(&single.linears) {
                want.iter_mut().zip(&linear.bias).for_each(|(sum, g)| *sum += g * g);
            }
        }
        for ((linear, got), want) in block.linears().iter().zip(&squares.linears).zip(&want) {
            assert!(got.weight.is_empty() && got.bias.is_empty(), "{name}: {}", linear.name);
            if linear.bias.is_some() {
                compared += 1;
                let got = got.output_squares.as_ref().unwrap();
                close(got, want, &format!("{name}: {}", linear.name));
            }
        }
    }
    assert!(compared >= 6, "{compared} linears have biases");
}

/// The loss `Σ output ⊙ direction` of a block.
fn loss(block: &Block, hidden: &Matrix, at: Positions, direction: &Matrix) -> f64 {
    let mut out = hidden.clone();
    block.forward(&mut out, at, None, |_, _| {});
    out.data.iter().zip(&direction.data).map(|(o, d)| f64::from(*o) * f64::from(*d)).sum()
}

/// Of a pruned block, too, the gradients are the quotients of small differences, along a random
/// direction in all of its parameters and its input.
#[test]
fn gradients_are_difference_quotients() {
    for file in cases("gradients") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let model = Model::open(&fixture(&format!("families/{name}"))).unwrap();
        let mut block = model.block(0).unwrap();
        for linear in block.linears_mut() {
            linear.weight.edit().data.iter_mut().step_by(3).for_each(|w| *w = 0.0);
            linear.weight.edit().data.iter_mut().skip(1).step_by(3).for_each(|w| *w = 0.0);
            assert!(linear.weight.is_packed());
        }
        let (at, d) = (Positions::segments(20), model.shape().hidden);
        let (hidden, direction) = (random(40, d, 1, 1.0), random(40, d, 2, 1.0));
        let mut gradients = BlockGradients::zeros(&block, Arithmetic::F32);
        let d_hidden = block.backward(&hidden, at, direction.clone(), &mut gradients);

        let step = 1e-3;
        let change = random(40, d, 3, step);
        let mut slope = inner(&d_hidden.data, &change.data);
        let moves: Vec<Vec<f32>> =
            (4..).zip(gradients.values()).map(|(i, g)| random(1, g.len(), i, step).data).collect();
        slope += gradients.values().zip(&moves).map(|(g, m)| inner(g, m)).sum::<f64>();
        let at_side = |sign: f32| {
            let mut block = block.clone();
            shift(&mut block, &gradients, &moves, sign);
            let mut hidden = hidden.clone();
            hidden.data.iter_mut().zip(&change.data).for_each(|(h, c)| *h += sign * c);
            loss(&block, &hidden, at, &direction)
        };
        let quotient = (at_side(1.0) - at_side(-1.0)) / 2.0;
        assert!(
            (quotient - slope).abs() < 0.01 * slope.abs().max(0.02),
            "{name}: {quotient} {slope}"
        );
    }
}

/// A half on its own has the gradients that it has in the whole block, if the other half adds
/// nothing.
#[test]
fn the_gradients_of_halves_are_those_of_the_block() {
    for file in cases("gradients") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let model = Model::open(&fixture(&format!("families/{name}"))).unwrap();
        let (at, d) = (Positions::segments(20), model.shape().hidden);
        let (hidden, direction) = (random(40, d, 1, 1.0), random(40, d, 2, 1.0));
        for (part, other) in [(Part::Attention, Part::Ffn), (Part::Ffn, Part::Attention)] {
            let mut block = model.block(0).unwrap();
            let (ours, theirs) = match part {
                Part::Attention => (0..4, block.linears().len() - 1),
                Part::Ffn => (4..block.linears().len(), 3),
            };
            let last = &mut block.linears_mut()[theirs];
            last.weight.edit().data.fill(0.0);
            if let Some(bias) = &mut last.bias {
                bias.fill(0.0);
            }
            let (mut whole, mut half) = (
                BlockGradients::zeros(&block, Arithmetic::F32),
                BlockGradients::zeros(&block, Arithmetic::F32),
            );
            let norms = [&block.attention_norms, &block.ffn_norms][(other == Part::Ffn) as usize];
            if norms.sum.is_some() || norms.output.is_some() {
                continue; // the other half changes what it adds nothing to
            }
            block.backward(&hidden, at, direction.clone(), &mut whole);
            let input = HalfInput { stream: &hidden, read: &hidden };
            let mut out = hidden.clone();
            block.forward(&mut out, at, None, |_, _| {});
            let loss = |after: Matrix| {
                close(&doubles(&after.data), &doubles(&out.data), &format!("{name}: output"));
                direction.clone()
            };
            block.half_backward(part, input, at, loss, &mut half);
            for i in ours {
                let (whole, half) = (&whole.linears[i], &half.linears[i]);
                close(&half.weight, &whole.weight, &format!("{name}: linear {i}"));
                close(&half.bias, &whole.bias, &format!("{name}: linear {i}"));
            }
        }
    }
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// In bf16, gradients differ by the rounding of the factors.
#[test]
fn gradients_in_bf16_are_those_in_f32_rounded() {
    let model = Model::open(&fixture("families/llama3")).unwrap();
    let (block, d) = (model.block(0).unwrap(), model.shape().hidden);
    let (at, hidden, direction) =
        (Positions::segments(20), random(40, d, 1, 1.0), random(40, d, 2, 1.0));
    let [exact, rounded] = [Arithmetic::F32, Arithmetic::Bf16].map(|arithmetic| {
        let mut gradients = BlockGradients::zeros(&block, arithmetic);
        block.backward(&hidden, at, direction.clone(), &mut gradients);
        gradients
    });
    for (exact, rounded) in exact.values().zip(rounded.values()) {
        let difference: Vec<f64> = exact.iter().zip(rounded).map(|(a, b)| a - b).collect();
        let (error, norm) = (inner(&difference, &difference), inner(exact, exact));
        assert!(error <= 1e-4 * norm, "{error} {norm}");
    }
}

fn inner<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (*a).into() * (*b).into()).sum()
}

/// Moves every parameter of a block.
fn shift(block: &mut Block, gradients: &BlockGradients, moves: &[Vec<f32>], sign: f32) {
    block.update(gradients, |number, values, _| {
        values.iter_mut().zip(&moves[number]).for_each(|(v, m)| *v += sign * m);
    });
}
