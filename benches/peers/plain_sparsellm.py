"""Prune a LLaMA checkpoint with SparseLLM, written plainly in PyTorch after the paper and its authors' code.

    python plain_sparsellm.py MODEL OUT --calibration CALIBRATION.npy --sparsity 0.7

This is what the paper's method costs when it is written down as published: the pseudo-inverses of the d x tokens
activations by SVD (of X once a layer, of p once an epoch), all auxiliary variables and temporaries of d_ff x tokens
in memory at once, the gradient steps for s, the damping added to the same Hessian again in every epoch, no guard
against an epoch that makes the layer worse. The names are theirs: p is `a` of this repository's specification.

Changed, because it would not run or would diverge otherwise:
- float32 throughout. The authors keep activations, p, z, s and all inverses in float16, for which most CPUs have no
  arithmetic of their own.
- The gradient step of s is 0.01 / (1 + z^2), not 0.01, which at their alpha = beta = 5 is beyond the stable one where
  |z| is above 4: z has outliers in some layers, and there s grows from step to step.

And what only saves this script time, so that it is not slow by clumsiness: gradients are taken of s alone, W_gate X
is computed once and not once a gradient step, and their logging of losses is left out.

The last line of stdout is {"seconds": S, "layers": [...], "imports_mib": M}: without imports, loading and
saving, each layer's share, and the peak resident set after the imports.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.nn.functional import silu
from transformers import AutoConfig, AutoModelForCausalLM

FFN = ("mlp.up_proj", "mlp.gate_proj", "mlp.down_proj")


def obs_prune(linear: nn.Linear, hessian, sparsity: float, pattern, block: int = 128, damping: float = 0.01) -> None:
    """SparseGPT: prune one linear and let the kept weights make up for it. Damps `hessian` in place."""
    weight = linear.weight.data.clone()
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    weight[:, dead] = 0
    diagonal += damping * diagonal.mean()
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)

    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        w, u = weight[:, start:stop].clone(), factor[start:stop, start:stop]
        errors = torch.empty_like(w)
        if pattern is None:
            scores = (w / u.diagonal()) ** 2
            mask = scores <= scores.flatten().sort()[0][int(sparsity * scores.numel())]
        else:
            mask = torch.zeros_like(w, dtype=torch.bool)
        for j in range(stop - start):
            if pattern is not None and j % pattern[1] == 0:
                n, group = pattern[0], slice(j, j + pattern[1])
                scores = (w[:, group] / u.diagonal()[group]) ** 2
                mask[:, group].scatter_(1, scores.topk(n, dim=1, largest=False)[1], True)
            errors[:, j] = torch.where(mask[:, j], w[:, j], 0) / u[j, j]
            w[:, j:] -= errors[:, j].outer(u[j, j:])
        w[mask] = 0
        weight[:, start:stop] = w
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    linear.weight.data = weight


def hessian_of(inputs, samples: int):
    """(2 / samples) sum of x xᵀ; the inputs are d x tokens."""
    return (2 / samples) * (inputs @ inputs.T)


def run_layer(layer, hidden, rotary):
    return torch.cat([layer(h[None], position_embeddings=rotary) for h in hidden])


def capture(layer, linears: dict, hidden, rotary):
    """One pass of the dense layer: each linear's Hessian, and the inputs and outputs of the feed-forward ones."""
    hessians, inputs, outputs = {}, {name: [] for name in FFN}, {name: [] for name in FFN}

    def hook(name):
        def record(_module, args, output):
            x = args[0][0]
            hessians[name] = hessians.get(name, 0) + hessian_of(x.T, len(hidden))
            if name in FFN:
                inputs[name].append(x)
                outputs[name].append(output[0])
        return record

    handles = [linear.register_forward_hook(hook(name)) for name, linear in linears.items()]
    run_layer(layer, hidden, rotary)
    for handle in handles:
        handle.remove()
    up, gate, down = FFN
    x, y = torch.cat(inputs[up]).T, torch.cat(outputs[down]).T
    z, s, p = torch.cat(outputs[up]).T, torch.cat(outputs[gate]).T, torch.cat(inputs[down]).T
    return hessians, x, y, z, s, p


def step_s(s, gate_x, z, p, alpha: float, beta: float, steps: int = 2, rate: float = 0.01, batch: int = 1000) -> None:
    """Gradient steps, in place, on alpha |s - gate_x|² + beta |p - silu(s) z|²."""
    for k in range(0, s.shape[1], batch):
        chunk = slice(k, k + batch)
        s_k, z_k, p_k = s[:, chunk].clone(), z[:, chunk], p[:, chunk]
        for _ in range(steps):
            s_k.requires_grad_(True)
            with torch.enable_grad():
                loss = alpha * (s_k - gate_x[:, chunk]).square().sum() + beta * (p_k - silu(s_k) * z_k).square().sum()
            gradient, = torch.autograd.grad(loss, s_k)
            s_k = s_k.detach() - rate / (1 + z_k.square()) * gradient
        s[:, chunk] = s_k


def prune_ffn(linears: dict, hessians: dict, x, y, z, s, p, samples: int, args) -> None:
    """SparseLLM's alternation over the three linears of one feed-forward network."""
    up, gate, down = (linears[name] for name in FFN)
    x_inverse = torch.pinverse(x)
    for epoch in range(args.epochs):
        if epoch > 0:
            up.weight.data = z @ x_inverse
            gate.weight.data = s @ x_inverse
            down.weight.data = y @ torch.pinverse(p)
            hessians[FFN[2]] = hessian_of(p, samples)
        for name in FFN:
            obs_prune(linears[name], hessians[name], args.sparsity, args.pattern)

        w = down.weight.data
        inverse = torch.inverse(args.alpha * w.T @ w + args.beta * torch.eye(w.shape[1]))
        p = inverse @ (args.alpha * w.T @ y + args.beta * silu(s) * z)

        swish = silu(s)
        z = (args.alpha * (up.weight.data @ x) + args.beta * swish * p) / (args.alpha + args.beta * swish.square())
        step_s(s, gate.weight.data @ x, z, p, args.alpha, args.beta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--pattern", help="N:M instead of --sparsity")
    parser.add_argument("--layers", type=int, help="prune the first layers only and leave the others dense")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=5.0)
    parser.add_argument("--beta", type=float, default=5.0)
    args = parser.parse_args()
    args.pattern = args.pattern and tuple(map(int, args.pattern.split(":")))
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    ids = torch.from_numpy(numpy.load(args.calibration)[:args.samples * args.seq_len].astype(numpy.int64))
    ids = ids.view(args.samples, args.seq_len)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")

    start, seconds = time.perf_counter(), []
    with torch.no_grad():
        hidden = model.model.embed_tokens(ids)
        rotary = model.model.rotary_emb(hidden[:1], torch.arange(args.seq_len)[None])
        for layer in model.model.layers[:args.layers]:
            begun = time.perf_counter()
            linears = {name: m for name, m in layer.named_modules() if isinstance(m, nn.Linear)}
            hessians, *activations = capture(layer, linears, hidden, rotary)
            for name in linears.keys() - set(FFN):
                obs_prune(linears[name], hessians[name], args.sparsity, args.pattern)
            prune_ffn(linears, hessians, *activations, args.samples, args)
            del activations
            hidden = run_layer(layer, hidden, rotary)
            seconds.append(time.perf_counter() - begun)
    total = time.perf_counter() - start

    model.to(AutoConfig.from_pretrained(args.model).dtype).save_pretrained(args.out)
    print(json.dumps({"seconds": total, "layers": seconds, "imports_mib": imports}))


if __name__ == "__main__":
    main()
