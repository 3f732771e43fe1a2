"""Train the tokenizer and one of the two demo models (LLaMA or OPT shape).

    python train.py --model llama --text TRAIN.txt --test test.txt --out tiny-llama
    python train.py --model opt   --text TRAIN.txt --test test.txt --out tiny-opt

Both runs train the same tokenizer on the same text, so the ids agree. Training
computes in bf16 autocast with f32 weights; the weights are saved as f16, and
the perplexities printed at the end are of the saved f16 weights in f32.
"""
import argparse
import hashlib
import itertools
import json
import math
import time
from pathlib import Path

import numpy
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
VOCAB, WINDOW = 1024, 256


def train_tokenizer(text):
    """Byte-level BPE in GPT-2's manner; ids 0 to 3 are the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIALS, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return tokenizer


def save_tokenizer(tokenizer, name, out):
    """LLaMA gets a `tokenizer.json` like LLaMA-3's, OPT the GPT-2 files of the official OPT repositories."""
    if name == "llama":
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)])])
        tokenizer.save(str(out / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                  "pad_token": "<pad>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False,
                  "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 512}
    else:
        bpe = json.loads(tokenizer.to_str())["model"]
        merges = [" ".join(m) if isinstance(m, list) else m for m in bpe["merges"]]
        (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        (out / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False) + "\n", encoding="utf-8")

        def special(content):
            return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True,
                    "rstrip": False, "single_word": False}
        config = {"tokenizer_class": "GPT2Tokenizer", "errors": "replace", "add_prefix_space": False,
                  "add_bos_token": True, "bos_token": special("</s>"), "eos_token": special("</s>"),
                  "unk_token": special("<unk>"), "pad_token": special("<pad>"), "model_max_length": 512}
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def build(name, dropout):
    """The model, with f32 weights. Dropout is OPT's; LLaMA has none."""
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=VOCAB, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=384, max_position_embeddings=512, tie_word_embeddings=True, rope_theta=10000.0,
            rms_norm_eps=1e-5, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD))
    return OPTForCausalLM(OPTConfig(
        vocab_size=VOCAB, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, ffn_dim=512,
        max_position_embeddings=512, word_embed_proj_dim=128, do_layer_norm_before=True, enable_bias=True,
        activation_function="relu", dropout=dropout, attention_dropout=0.0, layerdrop=0.0, tie_word_embeddings=True,
        bos_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD))


def tidy_config(name, out):
    """Write config.json with the keys that the official repositories use, not those of transformers 5."""
    (out / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((out / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    if name == "llama":
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def encode(tokenizer, text, bos):
    """One BOS and then the whole text, as the pruning program reads a text file."""
    return [bos] + tokenizer.encode(text, add_special_tokens=False).ids


def training_rows(tokenizer, text, bos, generator):
    """Rows of 2 * WINDOW tokens, shuffled: a BOS, then text from a story's start.

    Most steps cut each row into two windows, so that the model sees windows that
    start with BOS, as a prompt does, and windows that start in mid-story, as those
    of the evaluation do. Every fourth step keeps rows whole: it trains OPT's later
    positions, which would stay random otherwise.
    """
    # A story is encoded with the blank line before it: GPT-2's pre-tokenizer splits
    # the newlines differently at the end of a text than before a word.
    stories = tokenizer.encode_batch(["\n\n" + s for s in text.split("\n\n")], add_special_tokens=False)
    ids = torch.tensor(list(itertools.chain.from_iterable(e.ids for e in stories)))
    starts = numpy.cumsum([0] + [len(e.ids) for e in stories]) + 2
    rows, at = [], 0
    while (begin := starts[numpy.searchsorted(starts, at)]) + 2 * WINDOW <= len(ids):
        at = begin + 2 * WINDOW - 1
        rows.append(torch.cat([torch.tensor([bos]), ids[begin:at]]))
    rows = torch.stack(rows)
    return rows[torch.randperm(len(rows), generator=generator)]


def loss_of(model, rows):
    """Mean next-token loss of a batch; logits in f32."""
    logits = model(input_ids=rows).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), rows[:, 1:].reshape(-1))


@torch.no_grad()
def perplexity(model, ids):
    """exp of the mean over whole windows of each window's mean next-token loss, in f32."""
    model.eval()
    n = len(ids) // WINDOW
    rows = torch.tensor(ids[:n * WINDOW]).view(n, WINDOW)
    losses = [loss_of(model, row[None]).item() for row in rows]
    return math.exp(sum(losses) / n)


@torch.no_grad()
def magnitude_prune(model, ratio):
    """Zero the smallest `ratio` of each decoder linear's weights: the baseline that should hurt."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            w = module.weight
            k = int(w.numel() * ratio)
            smallest = w.abs().flatten().argsort()[:k]
            w.view(-1)[smallest] = 0.0


def fit(model, rows, args):
    """AdamW: warm-up, a constant rate, then a cosine decay over the last third of the steps.

    With `--minutes` the constant phase ends by the clock, and the report gives the
    number of steps: `--steps` with that number runs the same schedule on any machine.
    """
    decay = [p for p in model.parameters() if p.dim() > 1]
    other = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98))
    per_step = args.batch // 2  # rows of two windows each
    start, recent, step, steps = time.time(), [], 0, args.steps
    model.train()
    while steps is None or step < steps:
        if steps is None and time.time() - start > args.minutes * 60 * 2 / 3:
            steps = 3 * (step + 1) // 2
        scale = min(1.0, (step + 1) / 60)
        if steps and step > steps * 2 // 3:
            scale = 0.5 + 0.5 * math.cos(math.pi * (step - steps * 2 // 3) / (steps - steps * 2 // 3))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * scale
        batch = rows[torch.arange(step * per_step, (step + 1) * per_step) % len(rows)]
        if step % 4 != 3:
            batch = batch.view(-1, WINDOW)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = recent[-99:] + [loss.item()]
        step += 1
        if step % 50 == 0:
            print(f"step {step}/{steps or '?'} loss {sum(recent) / len(recent):.4f} {time.time() - start:.0f} s", flush=True)
    return {"steps": steps, "tokens": steps * args.batch * WINDOW, "epochs": round(steps * per_step / len(rows), 2),
            "final_loss": round(sum(recent) / len(recent), 4), "seconds": round(time.time() - start)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["llama", "opt"], required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="training steps")
    length.add_argument("--minutes", type=float, help="choose the number of steps by the clock")
    parser.add_argument("--batch", type=int, default=8, help="windows in a batch, even")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.0, help="OPT only")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    text = args.text.read_text(encoding="utf-8")
    tokenizer = train_tokenizer(text[:5_000_000])
    bos = BOS if args.model == "llama" else EOS
    rows = training_rows(tokenizer, text, bos, torch.Generator().manual_seed(args.seed))
    test = encode(tokenizer, args.test.read_text(encoding="utf-8"), bos)
    save_tokenizer(tokenizer, args.model, args.out)

    model = build(args.model, args.dropout)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(rows)} rows, {len(test)} test tokens", flush=True)
    report = {"model": args.model} | fit(model, rows, args)
    model = model.to(torch.float16)
    model.save_pretrained(args.out)
    tidy_config(args.model, args.out)
    model = model.float()
    report["perplexity_dense"] = round(perplexity(model, test), 4)
    magnitude_prune(model, 0.7)
    report["perplexity_magnitude_70"] = round(perplexity(model, test), 4)
    report["sha256"] = hashlib.sha256((args.out / "model.safetensors").read_bytes()).hexdigest()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
