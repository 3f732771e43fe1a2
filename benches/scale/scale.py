"""Time one decoder layer pruned at real widths, fit what its cost grows with, and extrapolate to whole models.

    python scale.py SPARSELLM layer llama-2-7b --layers 32 --memory 20GB
    python scale.py SPARSELLM fit

`layer` prunes one layer of a shape of one_layer.py and prints its ledger as a Markdown table, its seconds and memory
against what the run said it would need, and the seconds of the whole model. `fit` prunes LLaMA layers of four widths
and of four numbers of tokens, and fits seconds = c · x^exponent to each. Everything is random weights and token ids;
seconds are those of pruning, without reading and writing the checkpoint. Leave the machine alone meanwhile.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from one_layer import shape_of, write

TOKENS = 2048  # per segment


def prune(sparsellm: Path, shape: tuple, tokens: int, options: list, work: Path) -> dict:
    """One run's JSON, with `needed`, the bytes it said it would need at most."""
    model = work / "model"
    write(model, shape, tokens)
    command = [sparsellm, "prune", model, "--output", work / "out", "--force", "--calibration", model / "tokens.npy",
               "--samples", tokens // TOKENS, "--seq-len", TOKENS, "--profile", "--json", *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    report = json.loads(done.stdout)
    report["needed"] = float(re.search(r"needs up to ([\d.]+) GB", done.stderr)[1]) * 1e9
    return report


def seconds_of(report: dict) -> float:
    """Of one layer's pruning: without what is done once per run."""
    phases = report["profile"]["phases"]
    return sum(phase["seconds"] for name, phase in phases.items() if name not in ("read", "write"))


def layer(args, work: Path) -> None:
    report = prune(args.sparsellm, shape_of(args.shape), args.tokens, args.options, work)
    profile = report["profile"]
    peak, total = profile["gemm_peak_flops"], profile["seconds"]
    print("| phase | seconds | share | TFLOP | GFLOP/s | of peak |\n|---|---:|---:|---:|---:|---:|")
    rows = profile["phases"] | {"all": {"seconds": total, "flops": sum(p["flops"] for p in profile["phases"].values())}}
    for name, phase in rows.items():
        rate = phase["flops"] / max(phase["seconds"], 1e-9)
        print(f"| {name} | {phase['seconds']:.1f} | {phase['seconds'] / total:.1%} | {phase['flops'] / 1e12:.2f} "
              f"| {rate / 1e9:.0f} | {rate / peak:.0%} |")
    print(f"\nThe machine's matrix product reaches {peak / 1e9:.0f} GFLOP/s. Peak memory {report['peak_rss_bytes'] / 1e9:.2f} GB, "
          f"at most {report['needed'] / 1e9:.2f} GB were expected: {report['peak_rss_bytes'] / report['needed']:.3f} of it. "
          f"E per epoch: {', '.join(f'{e:.4f}' for e in report['layers'][0]['ffn_error'])}.")
    if args.layers:
        print(f"{args.layers} such layers: {args.layers * seconds_of(report) / 3600:.1f} hours.")


def fit(args, work: Path) -> None:
    widths, tokens = [512, 768, 1024, 1536], [4096, 8192, 16384, 32768]
    runs = [(d, 16384) for d in widths] + [(768, n) for n in tokens]
    seconds = {}
    print("| d | d_ff | tokens | seconds | peak GB | expected GB |\n|---:|---:|---:|---:|---:|---:|")
    for d, n in dict.fromkeys(runs):
        d_ff = d * 43 // 16
        report = prune(args.sparsellm, ("llama", d, d_ff, d // 64, d // 64), n, args.options, work)
        seconds[d, n] = seconds_of(report)
        print(f"| {d} | {d_ff} | {n} | {seconds[d, n]:.2f} | {report['peak_rss_bytes'] / 1e9:.3f} "
              f"| {report['needed'] / 1e9:.3f} |", flush=True)
    for what, values, of in (("width", widths, lambda d: (d, 16384)), ("tokens", tokens, lambda n: (768, n))):
        slope, _ = numpy.polyfit(numpy.log(values), numpy.log([seconds[of(v)] for v in values]), 1)
        print(f"seconds ~ {what}^{slope:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sparsellm", type=Path)
    parser.add_argument("what", choices=["layer", "fit"])
    parser.add_argument("shape", nargs="*", help="for layer: see one_layer.py")
    parser.add_argument("--tokens", type=int, default=32 * TOKENS)
    parser.add_argument("--layers", type=int, help="of the whole model")
    parser.add_argument("--method", default="sparsellm")
    parser.add_argument("--memory")
    parser.add_argument("--state", default="f32")
    parser.add_argument("--work", type=Path, help="folder for the checkpoints; a temporary one where absent")
    args = parser.parse_args()
    args.sparsellm = args.sparsellm.resolve()
    args.options = ["--method", args.method, "--sparsity", "0.7", "--state", args.state]
    args.options += ["--memory", args.memory] if args.memory else []
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        (layer if args.what == "layer" else fit)(args, Path(work))


if __name__ == "__main__":
    main()
