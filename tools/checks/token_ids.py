"""Compare our token ids with transformers' on awkward strings, for OPT's, LLaMA-2's and LLaMA-3's tokenizers.

    cargo build --release -p sparsellm-text --example tokenize
    python tools/checks/token_ids.py target/release/examples/tokenize TOKENIZERS_DIR

TOKENIZERS_DIR holds `opt/gpt2-vocab.json` and `opt/gpt2-merges.txt`, `llama2/` (with tokenizer.model) and `llama3/`.
OPT's folder is rebuilt as the hub has it: vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, no
tokenizer.json. The same two files are read under other classes, and LLaMA-2's tokenizer.model alone under every class
that reads one. Every difference is printed; the exit status is 1 if there is any.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

STRINGS = Path(__file__).with_name("strings.json")
SPECIALS = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}


def opt_folder(source: Path, folder: Path) -> None:
    """An OPT repository's tokenizer files."""
    shutil.copy(source / "gpt2-vocab.json", folder / "vocab.json")
    shutil.copy(source / "gpt2-merges.txt", folder / "merges.txt")
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=True)
    tokens = {key: dict(content=token, **plain) for key, token in SPECIALS.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    config = {key: {**token, "__type": "AddedToken"} for key, token in tokens.items()}
    config.update(errors="replace", add_prefix_space=False, add_bos_token=True, special_tokens_map_file=None,
                  tokenizer_class="GPT2Tokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps(dict(model_type="opt")))


def byte_level_folder(source: Path, folder: Path, name: str) -> None:
    """OPT's vocabulary under a class that splits text in another way."""
    shutil.copy(source / "gpt2-vocab.json", folder / "vocab.json")
    shutil.copy(source / "gpt2-merges.txt", folder / "merges.txt")
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class=name)))


def llama_folder(source: Path, folder: Path) -> None:
    """A LLaMA repository's tokenizer files, with the model type beside them."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    (folder / "config.json").write_text(json.dumps(dict(model_type="llama")))


def model_folder(source: Path, folder: Path, name: str) -> None:
    """LLaMA-2's tokenizer.model alone, under a class."""
    shutil.copy(source / "tokenizer.model", folder)
    config = json.loads((source / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | dict(tokenizer_class=name)))


def compare(binary: Path, name: str, folder: Path, strings: list) -> int:
    """Print the strings whose ids differ; returns how many do."""
    done = subprocess.run([binary, folder], input=json.dumps(strings), capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: {done.stderr.strip()}")
        return len(strings)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    differences = 0
    for text, ours in zip(strings, json.loads(done.stdout), strict=True):
        theirs = tokenizer(text)["input_ids"]
        if ours != theirs:
            differences += 1
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
            near = [tokenizer.convert_ids_to_tokens(ids[max(0, at - 1):at + 4]) for ids in (ours, theirs)]
            print(f"{name}: {text[:60]!r}: from token {at} on ours {near[0]}, theirs {near[1]}")
    print(f"{name}: {len(strings)} strings, {differences} differ ({type(tokenizer).__name__})")
    return differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="the tokenize example")
    parser.add_argument("tokenizers", type=Path, help="folder of tokenizer files")
    args = parser.parse_args()
    strings = json.loads(STRINGS.read_text())
    differences = 0
    source = args.tokenizers
    makers = {"opt": lambda folder: opt_folder(source / "opt", folder)}
    for name in ("Qwen2Tokenizer", "GPTNeoXTokenizer"):
        makers[f"opt as {name}"] = lambda folder, name=name: byte_level_folder(source / "opt", folder, name)
    for name in ("llama2", "llama3"):
        makers[name] = lambda folder, name=name: llama_folder(source / name, folder)
    for name in ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "PreTrainedTokenizerFast"):
        makers[f"llama2's model as {name}"] = lambda folder, name=name: model_folder(source / "llama2", folder, name)
    for name, make in makers.items():
        with tempfile.TemporaryDirectory() as temp:
            make(Path(temp))
            differences += compare(args.binary.resolve(), name, Path(temp), strings)
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
