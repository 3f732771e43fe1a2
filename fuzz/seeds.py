"""Write the seed corpus: small good files of every kind, from the tests' fixtures and by hand.

    python3 fuzz/seeds.py          into fuzz/seeds/TARGET/, which are committed

Needs PyTorch, for two small files of its own.
"""

import gzip
import io
import json
import struct
from pathlib import Path

import torch

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "crates/sparsellm-testing/fixtures"
FAMILIES = FIXTURES / "families"
# As in src/lib.rs.
CONFIGS = ["smollm2", "opt-no-bias", "qwen3", "mistral", "opt-gelu", "llama3", "gemma2", "gpt-neox"]


def safetensors(tensors: dict) -> bytes:
    """Tensors by name: (dtype, shape, bytes)."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npy(descr: str, shape: str, values: bytes) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def pickle(tensors: dict) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def seeds():
    """(target, name, bytes) of every seed."""
    yield "safetensors", "two", safetensors({
        "a": ("F32", [2, 3], struct.pack("<6f", *range(6))), "b": ("BF16", [4], b"\x80\x3f" * 4)})
    yield "safetensors", "kinds", safetensors({
        "f16": ("F16", [1], b"\x00\x3c"), "i64": ("I64", [1], bytes(8)), "none": ("F32", [0, 5], b"")})
    index = json.loads((FAMILIES / "llama-bf16-sharded/model.safetensors.index.json").read_bytes())
    index["weight_map"] = dict(list(index["weight_map"].items())[:3])
    yield "index", "short", json.dumps(index).encode()
    tied = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    yield "pickle", "tied", pickle({"a": tied, "b": tied.T, "c": torch.nn.Parameter(torch.ones(2))})
    yield "pickle", "kinds", pickle({"i": torch.ones(3, dtype=torch.int64), "h": torch.ones(1, 2).bfloat16()})
    yield "gguf", "pieces", (FIXTURES / "gguf/pieces.gguf").read_bytes()
    for family in ["gemma2", "gptneox", "qwen3"]:
        yield "gguf", family, (FIXTURES / f"gguf/families/{family}.gguf").read_bytes()
    for number, family in enumerate(CONFIGS):
        yield "config", family, bytes([number]) + (FAMILIES / family / "config.json").read_bytes()
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5, "\u2581": 6, "\u0120": 7}
    bpe = {"version": "1.0", "model": {"type": "BPE", "vocab": words, "merges": [["a", "b"]], "unk_token": "<unk>"},
           "added_tokens": [{"id": 1, "content": "<s>", "special": True, "single_word": False, "lstrip": False,
                             "rstrip": False, "normalized": False}],
           "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
                                                            "prepend_scheme": "first", "split": False},
           "post_processor": None, "decoder": None, "truncation": None, "padding": None}
    settings = json.dumps({"bos_token": "<s>", "add_bos_token": True, "tokenizer_class": "LlamaTokenizer"}).encode()
    yield "tokenizer", "bpe", b"\0" + json.dumps(bpe).encode()
    yield "tokenizer", "configured", b"\1" + json.dumps(bpe).encode() + b"\0" + settings
    yield "tokenizer", "gpt2", b"\2" + json.dumps(words).encode() + b"\0#version: 0.2\na b\n"
    unigram = bpe | {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["ab", -2.0]]}}
    yield "tokenizer", "unigram", b"\0" + json.dumps(unigram).encode()
    for number, name in enumerate(["unigram", "llama", "squeezed", "bare"]):
        yield "sentencepiece", name, bytes([number]) + (FIXTURES / f"tokenizers/{name}.model").read_bytes()
    for name, model in json.loads((FIXTURES / "chat/templates.json").read_bytes()).items():
        yield "chat_template", name, model["template"].encode()
    yield "npy", "int32", npy("<i4", "(32,)", struct.pack("<32i", *range(32)))
    yield "npy", "int64", npy("<i8", "(32,)", struct.pack("<32q", *range(32)))
    yield "npy", "columns", (FIXTURES / "user-files/ids-columns.npy").read_bytes()
    users = [FIXTURES / "user-files" / name for name in ("pandas.jsonl", "chats.jsonl", "chats.parquet", "sharegpt.jsonl")]
    for path in [*sorted((FIXTURES / "texts").iterdir()), *users]:
        target = {".parquet": "parquet", ".gz": "gzip", ".jsonl": "json_rows", ".json": "json_rows"}.get(path.suffix)
        if target:
            yield target, path.name, path.read_bytes()
    yield "gzip", "long", gzip.compress(b'{"text": "' + b"a story " * 500 + b'"}\n' * 3, mtime=0)
    for path in sorted((HERE.parent / "recipes").iterdir()):
        yield "recipe", path.stem, path.read_bytes()


def main() -> None:
    for target, name, content in seeds():
        folder = HERE / "seeds" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
