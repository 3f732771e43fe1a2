"""Prune every tiny fixture, load the result with transformers, and compare what both programs say of it.

    python tools/checks/roundtrip.py target/release/sparsellm crates/sparsellm-testing/fixtures/families

For every method at 50 % on random token ids: transformers finds no missing, unexpected or mismatched tensor;
config.json and every other file are the input's, byte for byte, and so is every tensor that is not a decoder's linear
(of safetensors inputs); the sparsity of the decoder's linears (a fused one, as query_key_value, is one linear) agrees
with `--json`, and so does the perplexity (windows of 16 to 24 tokens, f32) to a relative 1e-6. The exit status is 1 if
anything is wrong.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

METHODS = ("magnitude", "wanda", "sparsegpt", "sparsellm", "sparsellm-plus")
SUFFIXES = (".safetensors", ".bin", ".index.json")
OURS = ("sparsellm.json", "report.html")


def run(binary: Path, *args):
    return subprocess.run([binary, *map(str, args)], capture_output=True, text=True)


@torch.no_grad()
def perplexity(model, ids, seq_len: int) -> float:
    """exp of the mean over whole windows of the window's mean next-token loss."""
    rows = torch.tensor(ids[:len(ids) // seq_len * seq_len]).view(-1, seq_len)
    losses = []
    for row in rows:
        logits = model(input_ids=row[None]).logits[0, :-1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, row[1:]).item())
    return math.exp(sum(losses) / len(losses))


def sparsity(model) -> float:
    """Zeros in the weights of the linears inside the decoder layers."""
    weights = [m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in n]
    return sum((w == 0).sum().item() for w in weights) / sum(w.numel() for w in weights)


def others(folder: Path) -> dict:
    """The files that hold no weights, and their bytes."""
    return {p.name: p.read_bytes() for p in folder.iterdir()
            if not p.name.endswith(SUFFIXES) and p.name not in OURS}


def changed(before: Path, after: Path) -> list:
    """Names of the tensors that only one folder has, or that are no linear of a decoder layer and yet differ."""
    old, new = ({key: tensor for file in folder.glob("model*.safetensors") for key, tensor in load_file(file).items()}
                for folder in (before, after))
    kept = [key for key in old.keys() & new.keys() if old[key].ndim != 2 or ".layers." not in key]
    return sorted(old.keys() ^ new.keys()) + sorted(
        key for key in kept if old[key].dtype != new[key].dtype or not torch.equal(old[key], new[key]))


def check(binary: Path, folder: Path, method: str, work: Path, seq_len: int) -> list:
    """What is wrong with pruning one folder by one method."""
    config = json.loads((folder / "config.json").read_text())
    rng = numpy.random.default_rng(seq_len)
    for name in ("calibration", "test"):
        numpy.save(work / f"{name}.npy", rng.integers(0, config["vocab_size"], 16 * 24))
    out = work / f"{folder.name}-{method}"
    done = run(binary, "prune", folder, "--output", out, "--method", method, "--sparsity", 0.5, "--calibration",
               work / "calibration.npy", "--samples", 16, "--seq-len", 24, "--json")
    if done.returncode:
        return [f"status {done.returncode}: {done.stderr}"]
    report = json.loads(done.stdout)
    model, info = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True)
    model.eval()
    wrong = [f"{key}: {value}" for key, value in info.items() if value]
    if others(out) != others(folder):
        wrong.append(f"other files differ: {sorted(others(out))} from {sorted(others(folder))}")
    if list(folder.glob("model*.safetensors")) and (names := changed(folder, out)):
        wrong.append(f"tensors lost, added or changed: {names}")
    if "sparsity_config" in json.loads((out / "config.json").read_text()):
        wrong.append("config.json has a sparsity_config")
    measured = sparsity(model)
    if abs(measured - report["sparsity"]) > 1e-12:
        wrong.append(f"sparsity {report['sparsity']} reported, {measured} measured")
    done = run(binary, "eval", out, "--data", work / "test.npy", "--seq-len", seq_len, "--json")
    if done.returncode:
        return wrong + [f"eval: status {done.returncode}: {done.stderr}"]
    ours = json.loads(done.stdout)["results"][0]["perplexity"]
    theirs = perplexity(model, numpy.load(work / "test.npy"), seq_len)
    if not abs(ours / theirs - 1) <= 1e-6:
        wrong.append(f"perplexity {ours}, by transformers {theirs}")
    print(f"{folder.name:30} {method:14} sparsity {measured:.6f}, perplexity {ours:12.4f}, "
          f"relative difference {ours / theirs - 1:+.1e}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="the sparsellm command")
    parser.add_argument("fixtures", type=Path, help="folder of checkpoint folders")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    folders, bad = sorted(p.parent for p in args.fixtures.glob("*/config.json")), 0
    for i, folder in enumerate(folders):
        for method in METHODS:
            with tempfile.TemporaryDirectory() as work:
                for what in check(args.binary.resolve(), folder, method, Path(work), 16 + i % 9):
                    bad += 1
                    print(f"{folder.name} {method}: {what}")
    print(f"{len(folders)} folders, {bad} things wrong")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
