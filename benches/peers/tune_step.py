"""Compare one step of tuning with the same step in PyTorch, in turn.

    python tune_step.py SPARSELLM DENSE PRUNED CALIBRATION.npy

DENSE and PRUNED are LLaMA checkpoint folders, CALIBRATION.npy holds token ids. A step is: forward and backward of the
pruned model on `--batch` segments of `--seq-len` tokens, the KL divergence from the dense model's next-token
probabilities, gradients masked to the kept weights, their norm clipped, and Adam. The dense model's last hidden states
are given in both programs: ours computes them once, and here they are computed before the clock starts.

Our step is the difference between runs of two epochs and of one, divided by an epoch's steps; so it also pays for the
epoch's held-out loss and for saving its state, which PyTorch's step here does without. Memory is the process's peak;
PyTorch's is given without its imports as well.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pytorch(arguments, queue) -> None:
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(arguments.threads)
    imports = peak_mib()
    load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    dense, pruned = load(arguments.dense), load(arguments.pruned)
    moving = {n: p for n, p in pruned.named_parameters() if ".layers." in n}
    for name, parameter in pruned.named_parameters():
        parameter.requires_grad_(name in moving)
    masks = {n: p != 0 for n, p in moving.items() if p.dim() == 2}
    adam = torch.optim.Adam(moving.values(), lr=2e-4, betas=(0.9, 0.99))
    tokens = torch.from_numpy(numpy.load(arguments.calibration).astype(numpy.int64))
    batch = arguments.batch * arguments.seq_len
    seconds = []
    for step in range(arguments.steps + 1):
        ids = tokens[step * batch : (step + 1) * batch].view(arguments.batch, arguments.seq_len)
        with torch.no_grad():
            hidden = dense.model(ids).last_hidden_state
        started = time.perf_counter()
        with torch.no_grad():
            teacher = F.log_softmax(dense.lm_head(hidden), -1).flatten(0, 1)
        student = F.log_softmax(pruned(ids).logits, -1).flatten(0, 1)
        F.kl_div(student, teacher, log_target=True, reduction="batchmean").backward()
        for name, mask in masks.items():
            moving[name].grad *= mask
        torch.nn.utils.clip_grad_norm_(moving.values(), 1.0)
        adam.step()
        adam.zero_grad()
        seconds.append(time.perf_counter() - started)
    queue.put({"step": float(numpy.median(seconds[1:])), "mib": peak_mib(), "without_imports": peak_mib() - imports})


def ours(arguments, arithmetic: str) -> dict:
    # One segment of eight is held out.
    segments = arguments.steps * arguments.batch * 8 // 7 + 1
    seconds, mib = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for epochs in (1, 2):
            command = [arguments.sparsellm, "tune", arguments.pruned, "--dense", arguments.dense]
            command += ["--output", f"{folder}/{epochs}", "--calibration", arguments.calibration, "--json"]
            command += ["--samples", segments, "--seq-len", arguments.seq_len, "--tune-epochs", epochs]
            command += ["--batch", arguments.batch, "--threads", arguments.threads, "--arithmetic", arithmetic]
            run = subprocess.run(list(map(str, command)), check=True, capture_output=True)
            report = json.loads(run.stdout)
            seconds.append(report["seconds"])
            mib = max(mib, report["peak_rss_bytes"] / 2**20)
    training = segments - -(-segments // 8)
    return {"step": (seconds[1] - seconds[0]) / -(-training // arguments.batch), "mib": mib}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sparsellm", "dense", "pruned", "calibration"):
        parser.add_argument(name, type=str)
    for name, default in (("seq-len", 512), ("batch", 2), ("steps", 6), ("rounds", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    assert Path(arguments.dense).is_dir() and Path(arguments.pruned).is_dir(), "the models must be folders"
    print("| round | program | s per step | peak MiB | step / PyTorch's | peak / PyTorch's |\n|---|---|---:|---:|---:|---:|")
    context = multiprocessing.get_context("spawn")
    for number in range(1, arguments.rounds + 1):
        queue = context.Queue()
        process = context.Process(target=pytorch, args=(arguments, queue))
        process.start()
        peer = queue.get()
        process.join()
        own = peer["mib"] - peer["without_imports"]
        print(f"| {number} | PyTorch, f32 | {peer['step']:.2f} | {peer['mib']:.0f} ({own:.0f} of it imports) | | |")
        for arithmetic in ("f32", "bf16"):
            mine = ours(arguments, arithmetic)
            ratios = f"{mine['step'] / peer['step']:.2f} | {mine['mib'] / peer['mib']:.2f}"
            print(f"| {number} | sparsellm, {arithmetic} | {mine['step']:.2f} | {mine['mib']:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
