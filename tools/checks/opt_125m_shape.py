"""Write a checkpoint with OPT-125M's shapes and random weights, to measure time and memory on.

    python tools/checks/opt_125m_shape.py OUT
    sparsellm prune OUT --output PRUNED --sparsity 0.7 --calibration OUT/tokens.npy --samples 8 --seq-len 2048 --json

`pytorch_model.bin` is fp16 with the names of facebook/opt-125m; `tokens.npy` holds 8 * 2048 random ids.
"""

import argparse
import json
from pathlib import Path

import numpy
import torch

CONFIG = dict(
    architectures=["OPTForCausalLM"], model_type="opt", activation_function="relu", attention_dropout=0.0,
    activation_dropout=0.0, dropout=0.1, layerdrop=0.0, do_layer_norm_before=True, _remove_final_layer_norm=False,
    hidden_size=768, word_embed_proj_dim=768, ffn_dim=3072, num_attention_heads=12, num_hidden_layers=12,
    max_position_embeddings=2048, vocab_size=50272, init_std=0.02, bos_token_id=2, eos_token_id=2, pad_token_id=1,
    prefix="</s>", use_cache=True, torch_dtype="float16", transformers_version="4.21.0.dev0")


def state_dict(seed: int) -> dict:
    """Weights N(0, 1/d_in), embeddings N(0, 0.05²), small biases and norms near 1."""
    gen = torch.Generator().manual_seed(seed)
    d, ff = CONFIG["hidden_size"], CONFIG["ffn_dim"]
    state = {}

    def add(name, *shape, std, mean=0.0):
        state[f"decoder.{name}"] = (mean + std * torch.randn(shape, generator=gen)).half()

    def norm(name):
        add(f"{name}.weight", d, std=0.1, mean=1.0)
        add(f"{name}.bias", d, std=0.02)

    def linear(name, rows, cols):
        add(f"{name}.weight", rows, cols, std=cols**-0.5)
        add(f"{name}.bias", rows, std=0.02)

    add("embed_tokens.weight", CONFIG["vocab_size"], d, std=0.05)
    add("embed_positions.weight", CONFIG["max_position_embeddings"] + 2, d, std=0.02)
    norm("final_layer_norm")
    for i in range(CONFIG["num_hidden_layers"]):
        for p in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(f"layers.{i}.self_attn.{p}", d, d)
        norm(f"layers.{i}.self_attn_layer_norm")
        linear(f"layers.{i}.fc1", ff, d)
        linear(f"layers.{i}.fc2", d, ff)
        norm(f"layers.{i}.final_layer_norm")
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(state_dict(args.seed), args.out / "pytorch_model.bin")
    (args.out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    tokens = numpy.random.default_rng(args.seed).integers(0, 50265, 8 * 2048, dtype=numpy.int64)
    numpy.save(args.out / "tokens.npy", tokens)


if __name__ == "__main__":
    main()
