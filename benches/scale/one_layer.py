"""Write a checkpoint of one decoder layer with a given shape and random weights, and token ids to calibrate on.

    python one_layer.py OUT llama-2-7b --tokens 65536
    python one_layer.py OUT opt-6.7b
    python one_layer.py OUT llama 1024 2752 8

A shape is a name, or a family, d, d_ff and the number of heads. Weights are N(0, 1/d_in) in f16, so that activations
are of order one. The vocabulary is cut to 512: one layer's time and memory do not depend on it. numpy is all it needs.
"""

import argparse
import json
from pathlib import Path

import numpy

SHAPES = {
    "smollm2-135m": ("llama", 576, 1536, 9, 3),
    "llama-2-7b": ("llama", 4096, 11008, 32, 32),
    "opt-125m": ("opt", 768, 3072, 12, 12),
    "opt-1.3b": ("opt", 2048, 8192, 32, 32),
    "opt-6.7b": ("opt", 4096, 16384, 32, 32),
}
VOCABULARY, POSITIONS = 512, 2048


def llama(d: int, d_ff: int, heads: int, kv_heads: int) -> tuple[dict, dict]:
    """The configuration, and each tensor's shape; vectors are norms."""
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=d, intermediate_size=d_ff,
                  num_attention_heads=heads, num_key_value_heads=kv_heads, num_hidden_layers=1,
                  vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, rms_norm_eps=1e-5, hidden_act="silu",
                  rope_theta=10000.0, tie_word_embeddings=True, torch_dtype="float16")
    layer, kv = "model.layers.0.", d // heads * kv_heads
    shapes = {"model.embed_tokens.weight": (VOCABULARY, d), "model.norm.weight": (d,)}
    for name, shape in (("self_attn.q_proj", (d, d)), ("self_attn.k_proj", (kv, d)), ("self_attn.v_proj", (kv, d)),
                        ("self_attn.o_proj", (d, d)), ("mlp.gate_proj", (d_ff, d)), ("mlp.up_proj", (d_ff, d)),
                        ("mlp.down_proj", (d, d_ff)), ("input_layernorm", (d,)), ("post_attention_layernorm", (d,))):
        shapes[f"{layer}{name}.weight"] = shape
    return config, shapes


def opt(d: int, d_ff: int, heads: int, _kv_heads: int) -> tuple[dict, dict]:
    config = dict(architectures=["OPTForCausalLM"], model_type="opt", hidden_size=d, word_embed_proj_dim=d,
                  ffn_dim=d_ff, num_attention_heads=heads, num_hidden_layers=1, vocab_size=VOCABULARY,
                  max_position_embeddings=POSITIONS, activation_function="relu", do_layer_norm_before=True,
                  torch_dtype="float16")
    decoder = "model.decoder."
    shapes = {f"{decoder}embed_tokens.weight": (VOCABULARY, d),
              f"{decoder}embed_positions.weight": (POSITIONS + 2, d)}
    for name, shape in (("layers.0.self_attn.q_proj", (d, d)), ("layers.0.self_attn.k_proj", (d, d)),
                        ("layers.0.self_attn.v_proj", (d, d)), ("layers.0.self_attn.out_proj", (d, d)),
                        ("layers.0.fc1", (d_ff, d)), ("layers.0.fc2", (d, d_ff)),
                        ("layers.0.self_attn_layer_norm", (d,)), ("layers.0.final_layer_norm", (d,)),
                        ("final_layer_norm", (d,))):
        shapes |= {f"{decoder}{name}.weight": shape, f"{decoder}{name}.bias": shape[:1]}
    return config, shapes


def write(out: Path, shape: tuple, tokens: int) -> None:
    family, *sizes = shape
    config, shapes = {"llama": llama, "opt": opt}[family](*sizes)
    rng = numpy.random.default_rng(0)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    header, end = {}, 0
    for name, dims in shapes.items():
        size = 2 * int(numpy.prod(dims))
        header[name] = {"dtype": "F16", "shape": dims, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (out / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, dims in shapes.items():
            if name.endswith("bias"):
                values = numpy.full(dims, 0.01)
            elif len(dims) == 1:
                values = numpy.ones(dims)
            else:
                std = 1.0 if "embed" in name else dims[1] ** -0.5
                values = std * rng.standard_normal(dims, dtype=numpy.float32)
            values.astype("<f2").tofile(file)
    numpy.save(out / "tokens.npy", rng.integers(4, VOCABULARY, tokens, dtype=numpy.int64))


def shape_of(words: list) -> tuple:
    if len(words) == 1:
        return SHAPES[words[0]]
    family, d, d_ff, heads = words[0], *map(int, words[1:4])
    return family, d, d_ff, heads, heads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("shape", nargs="+")
    parser.add_argument("--tokens", type=int, default=32 * 2048)
    args = parser.parse_args()
    write(args.out, shape_of(args.shape), args.tokens)


if __name__ == "__main__":
    main()
