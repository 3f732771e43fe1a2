"""Prune a checkpoint with llm-compressor's SparseGPT or Wanda on given token ids.

    python llm_compressor.py sparsegpt MODEL OUT --calibration CALIBRATION.npy --sparsity 0.7

llm-compressor's `oneshot` with its own defaults (sequential over decoder layers, batches of one segment, block 128,
damping 0.01), every linear but lm_head. The last line of stdout is {"seconds": S, "imports_mib": M}: `oneshot` alone,
without imports, loading and saving, and the peak resident set after the imports.

The weights are computed with in --dtype and saved in the checkpoint's own type. The default is float32, as all the
other contestants compute: on a CPU without half-precision arithmetic it is also the faster one.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy
import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

MODIFIERS = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}


def batch(segments: list) -> dict:
    ids = torch.stack(segments)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=MODIFIERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--pattern", help="N:M instead of --sparsity")
    parser.add_argument("--dtype", default="float32", choices=("auto", "float32", "bfloat16", "float16"))
    args = parser.parse_args()
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    ids = torch.from_numpy(numpy.load(args.calibration)[:args.samples * args.seq_len].astype(numpy.int64))
    segments = DataLoader(ids.view(args.samples, args.seq_len), batch_size=1, collate_fn=batch)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype)
    n, m = map(int, args.pattern.split(":")) if args.pattern else (0, 0)
    recipe = MODIFIERS[args.method](sparsity=n / m if m else args.sparsity, mask_structure=f"{n}:{m}",
                                    targets=["Linear"], ignore=["re:.*lm_head"])

    start = time.perf_counter()
    oneshot(model=model, tokenizer=AutoTokenizer.from_pretrained(args.model), dataset=segments, recipe=recipe,
            num_calibration_samples=args.samples, max_seq_length=args.seq_len)
    seconds = time.perf_counter() - start

    model.to(AutoConfig.from_pretrained(args.model).dtype)
    model.save_pretrained(args.out, save_compressed=False)
    print(json.dumps({"seconds": seconds, "imports_mib": imports}))


if __name__ == "__main__":
    main()
