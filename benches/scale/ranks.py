#!/usr/bin/env python3
"""The time model of docs/scaling.md: SparseLLM over ranks, from rates measured on one core.

    python ranks.py                                  the document's tables
    python ranks.py --cores 32 --gigabytes 25 --tokens 65536

Rates are GFLOP/s of one core, by phase, as `prune --profile` tells them (docs/performance.md).
"""
import argparse
from dataclasses import dataclass

# Zen 5, LLaMA-2-7B's shapes, half of what two cores do.
RATES = {"forward": 135, "gram": 175, "factor": 123, "solve": 102, "weights": 177, "a": 156}
KEPT = 0.3  # at 70 %


@dataclass
class Shape:
    name: str
    layers: int
    d: int
    f: int  # d_ff
    g: int  # width of keys and values
    k: int = 2  # first linears


SHAPES = [
    Shape("LLaMA-2-7B", 32, 4096, 11008, 4096),
    Shape("LLaMA-2-70B", 80, 8192, 28672, 1024),
    Shape("LLaMA-3.1-405B", 126, 16384, 53248, 1024),
]


def token_flops(s: Shape, n: int, length: int, epochs: int) -> dict:
    """Flops of a layer that are divided by tokens."""
    d, f, g, k = s.d, s.f, s.g, s.k
    attend = n * (2 * d * (2 * d + 2 * g) + 2 * length * d)
    ffn = 2 * n * (k + 1) * d * f
    return {
        # dense attention, dense network, pruned layer; each epoch's pruned network
        "forward": attend + ffn + (attend + KEPT * ffn) + epochs * KEPT * ffn,
        # attention's two Hessians; XᵀX; aᵀa at the start and after all epochs but the last, with Yᵀa and zᵀX
        "gram": n * (2 * d * d + d * d + epochs * f * f + (epochs - 1) * 2 * (k + 1) * d * f),
        "a": (epochs - 1) * n * 2 * (KEPT + 1) * d * f,
    }


def weight_flops(s: Shape, epochs: int) -> dict:
    """Flops of a layer that are divided by rows of weights, or by blocks of factors."""
    d, f, g, k = s.d, s.f, s.g, s.k
    return {
        "factor": 2 * d**3 * 2 / 3 + d**3 * (2 / 3 + 1 / 3) + epochs * f**3 * 2 / 3 + (epochs - 1) * f**3 / 3,
        "solve": (2 * d + 2 * g) * d * d + epochs * (k * f * d * d + d * f * f),
        "weights": (epochs - 1) * (2 * k * f * d * d + 2 * d * f * f),
        "a": (epochs - 1) * (d * d * f + d**3 / 3 + 2 * f * d * d),
    }


def values_exchanged(s: Shape, epochs: int) -> tuple:
    """Values that a layer's ranks sum, in f64, and that they gather or broadcast, in f32."""
    d, f, g, k = s.d, s.f, s.g, s.k
    summed = 3 * d * d / 2 + f * f / 2 + (epochs - 1) * (f * f / 2 + d * d / 2 + (k + 1) * d * f)
    gathered = (
        2 * d * d + (2 * d + 2 * g) * d  # attention: L and U twice, the weights
        + 1.5 * d * d  # X: L and U, and L of its least squares
        + epochs * (f * f + (k + 1) * d * f)  # a: L and U; the weights
        + (epochs - 1) * (f * f / 2 + d * d / 2 + d * f)  # least squares of a; the a-update
    )
    return summed, gathered


def seconds(s: Shape, ranks: int, args) -> tuple:
    """A layer's seconds of work and of exchange."""
    segments = -(-args.tokens // args.length)
    part = -(-segments // ranks) * args.length  # the rank with the most
    rate = {phase: r * 1e9 * args.cores * args.efficiency for phase, r in RATES.items()}
    tokens = token_flops(s, part, args.length, args.epochs)
    work = sum(flops / rate[phase] for phase, flops in tokens.items())
    weights = weight_flops(s, args.epochs)
    work += sum(flops / rate[phase] / ranks for phase, flops in weights.items())
    summed, gathered = values_exchanged(s, args.epochs)
    share = (ranks - 1) / ranks
    exchange = share * (8 * 2 * summed + 4 * gathered) / (args.gigabytes * 1e9)
    # Small messages: per block of a factor's columns, and per block of the sweep.
    depth = max(1, (ranks - 1).bit_length())
    widths = [s.d] * 3 + [s.d] * (2 * args.epochs) + [s.f] * (2 * args.epochs)
    sweeps = 4 * s.d + args.epochs * (s.k * s.d + s.f)
    exchange += share * depth * args.microseconds * 1e-6 * (2 * sum(w / 256 for w in widths) + 4 * sweeps / 128)
    return work, exchange


def gigabytes(s: Shape, ranks: int, args) -> tuple:
    """What a rank holds of tokens, and of weights and sums (ARCHITECTURE.md's law)."""
    d, f, g, k, n = s.d, s.f, s.g, s.k, args.tokens
    part = -(-(-(-n // args.length)) // ranks) * args.length
    tokens = part * (d + d + d + k * f)  # hidden states, X, target, z and s
    layer = (2 * d + 2 * g) * d + (k + 1) * d * f
    weights = layer * (1 + 1.25 * KEPT) + f * f + 2 * d * d + (3 * k + 4) * d * f \
        + 1.25 * KEPT * (k + 1) * d * f + 2 * f * f
    return 4e-9 * tokens, 4e-9 * weights


def tables(args) -> None:
    counts = [1, 8, 16, 32, 64, 128, 256, 512]
    for s in SHAPES:
        summed, gathered = values_exchanged(s, args.epochs)
        print(f"\n**{s.name}**, {s.layers} layers: {summed * 8e-9:.1f} GB summed and {gathered * 4e-9:.1f} GB gathered a layer\n")
        print("| ranks | work, s a layer | exchange, s a layer | hours in all | speed-up | efficiency | GB a rank: tokens | weights |")
        print("|---:|---:|---:|---:|---:|---:|---:|---:|")
        alone = seconds(s, 1, args)[0]
        for ranks in counts:
            work, exchange = seconds(s, ranks, args)
            speed = alone / (work + exchange)
            tokens, weights = gigabytes(s, ranks, args)
            print(f"| {ranks} | {work:.2f} | {exchange:.2f} | {(work + exchange) * s.layers / 3600:.2f} | {speed:.1f} "
                  f"| {100 * speed / ranks:.0f} % | {tokens:.1f} | {weights:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128 * 2048)
    parser.add_argument("--length", type=int, default=2048, help="tokens of a segment")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--cores", type=int, default=64, help="of a rank")
    parser.add_argument("--efficiency", type=float, default=0.7, help="of a core among many")
    parser.add_argument("--gigabytes", type=float, default=12.5, help="a second, each way, of a rank's network")
    parser.add_argument("--microseconds", type=float, default=3.0, help="of a message")
    tables(parser.parse_args())


if __name__ == "__main__":
    main()
