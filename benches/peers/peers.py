"""Time llm-compressor and plain-PyTorch SparseLLM against sparsellm, and print the table.

    python peers.py SPARSELLM MODEL TRAIN.txt TEST.txt [--rounds 3]

All contestants prune the same checkpoint on the same token ids with the same number of threads. Each run is a process
of its own; a round runs every contestant once, so that a slow minute of the machine falls on all alike, and the table
gives medians over the rounds. `wall` is the process from start to exit; `pruning` is what the contestant reports of
itself without imports, loading and saving (ours streams the checkpoint, so that its own figure includes both); `peak`
is the largest resident set of the process, by the operating system, and `imports` what of it Python and its libraries
take before anything is loaded. Perplexity is measured by `sparsellm eval` for all.

This script imports nothing but the standard library: Linux counts the parent's memory at the fork into the peak of
the child.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
OURS, PEER, PLAIN = "sparsellm", "llm-compressor", "plain PyTorch"



def run(command: list, threads: int, log: Path) -> dict:
    """Run one process; its wall seconds, its peak memory in MiB, and the JSON document that ends its stdout."""
    env = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    env |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore"}
    out = log.with_suffix(".json")
    start = time.perf_counter()
    with out.open("w") as stdout, log.open("w") as stderr:
        child = subprocess.Popen([str(word) for word in command], stdout=stdout, stderr=stderr, env=env)
        _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{log.read_text()[-2000:]}")
    lines = out.read_text().strip().splitlines()
    said = {}
    if lines:
        said = json.loads(lines[-1] if lines[-1].startswith("{") else "\n".join(lines))
    return {"wall": wall, "peak": usage.ru_maxrss / 1024, "said": said}


def contestants(args) -> list:
    """(program, method, layers) in the order of running; layers is None for all of the model's."""
    every = [(OURS, "wanda", None), (PEER, "wanda", None), (OURS, "sparsegpt", None), (PEER, "sparsegpt", None),
             (OURS, "sparsellm", None), (PLAIN, "sparsellm", args.plain_layers)]
    if args.plain_layers:
        every.insert(-1, (OURS, "sparsellm", args.plain_layers))
    return [contestant for contestant in every if contestant[1] in args.methods]


def command(contestant: tuple, model: Path, out: Path, args) -> list:
    """What to run for one contestant."""
    program, method, layers = contestant
    options = ["--calibration", args.work / "calibration.npy", "--samples", args.samples, "--seq-len", args.seq_len]
    options += ["--pattern", args.pattern] if args.pattern else ["--sparsity", args.sparsity]
    if program == OURS:
        options += ["--layers", f"0..{layers}"] if layers else []
        return [args.sparsellm, "prune", model, "--output", out, "--method", method, "--threads", args.threads,
                "--force", "--json", *options]
    if program == PEER:
        return [sys.executable, HERE / "llm_compressor.py", method, model, out, "--dtype", args.dtype, *options]
    options += ["--layers", layers] if layers else []
    return [sys.executable, HERE / "plain_sparsellm.py", model, out, *options]


def prepare(args) -> Path:
    """Write the token ids; the checkpoint to prune, cut where asked for."""
    args.work.mkdir(parents=True, exist_ok=True)
    for name, text, samples in (("calibration", args.train, args.samples), ("test", args.test, args.windows)):
        run([sys.executable, HERE / "tokens.py", args.model, text, args.work / f"{name}.npy", "--samples", samples,
             "--seq-len", args.seq_len], args.threads, args.work / f"{name}.log")
    if args.layers is None:
        return args.model
    cut = args.work / f"first-{args.layers}"
    run([sys.executable, HERE / "first_layers.py", args.model, cut, args.layers], args.threads, args.work / "cut.log")
    return cut


def measure(model: Path, args) -> dict:
    """All rounds: the median seconds and MiB of every contestant, and the perplexity of what it wrote."""
    runs = {contestant: [] for contestant in contestants(args)}
    rows = {}
    for number in range(args.rounds):
        for contestant, done in runs.items():
            out = output(contestant, args)
            done.append(run(command(contestant, model, out, args), args.threads, out.with_suffix(".log")))
            print(f"round {number + 1}: {output(contestant, args).name}: {done[-1]['wall']:.1f} s, "
                  f"{done[-1]['peak']:.0f} MiB", file=sys.stderr, flush=True)
    for contestant, done in runs.items():
        said = [d["said"] for d in done]
        rows[contestant] = {
            "wall": statistics.median(d["wall"] for d in done),
            "pruning": statistics.median(s["seconds"] for s in said),
            "peak": statistics.median(d["peak"] for d in done),
            "imports": statistics.median(s.get("imports_mib", 0) for s in said),
            "perplexity": perplexity(output(contestant, args), args),
        }
    return rows


def output(contestant: tuple, args) -> Path:
    return args.work / "-".join(str(part).replace(" ", "-") for part in contestant if part)


def perplexity(model: Path, args) -> float:
    done = run([args.sparsellm, "eval", model, "--data", args.work / "test.npy", "--seq-len", args.seq_len,
                "--max-windows", args.windows, "--threads", args.threads, "--json"],
               args.threads, args.work / "eval.log")
    return done["said"]["results"][0]["perplexity"]


def table(rows: dict) -> str:
    """A Markdown table, each peer with its ratios to our run of the same work, and the comparison across methods."""
    lines = ["| method | program | wall s | pruning s | peak MiB | imports MiB | perplexity "
             "| wall / ours | pruning / ours | peak / ours |",
             "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for (program, method, layers), row in rows.items():
        ours = rows[OURS, method, layers]
        ratios = [f"{row[key] / ours[key]:.2f}" if program != OURS else "" for key in ("wall", "pruning", "peak")]
        name = f"{method}, first {layers}" if layers else method
        cells = [name, program, f"{row['wall']:.1f}", f"{row['pruning']:.1f}", f"{row['peak']:.0f}",
                 f"{row['imports']:.0f}" if row["imports"] else "", f"{row['perplexity']:.2f}", *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    ours, peer = rows.get((OURS, "sparsellm", None)), rows.get((PEER, "sparsegpt", None))
    if ours and peer:
        lines += ["", f"Our SparseLLM takes {ours['wall'] / peer['wall']:.2f} of the wall time of llm-compressor's "
                      f"SparseGPT, and {ours['peak'] / peer['peak']:.2f} of its peak memory."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sparsellm", type=Path, help="the sparsellm command")
    parser.add_argument("model", type=Path, help="checkpoint folder of a LLaMA model")
    parser.add_argument("train", type=Path, help="text to calibrate on")
    parser.add_argument("test", type=Path, help="text to measure perplexity on")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder for everything written")
    parser.add_argument("--methods", nargs="+", default=["wanda", "sparsegpt", "sparsellm"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--pattern", help="N:M instead of --sparsity")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=16, help="windows of seq-len tokens for perplexity")
    parser.add_argument("--dtype", default="float32", help="what llm-compressor computes in")
    parser.add_argument("--layers", type=int, help="cut the model to its first layers, for a quick try")
    parser.add_argument("--plain-layers", type=int,
                        help="run plain PyTorch on the first layers only, and ours a second time on the same")
    args = parser.parse_args()
    args.sparsellm = args.sparsellm.resolve()
    print(table(measure(prepare(args), args)))


if __name__ == "__main__":
    main()
