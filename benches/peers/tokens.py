"""Write the first tokens of a text, by a checkpoint's tokenizer, as a 1-D int32 .npy.

    python tokens.py MODEL TEXT OUT.npy --samples 16 --seq-len 2048

Every contestant takes the segments from such a file in order, with no draw, so that all see the same token ids.
"""

import argparse
from pathlib import Path

import numpy
from transformers import AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=2048)
    args = parser.parse_args()
    text = args.text.read_bytes().decode("utf-8")
    ids = AutoTokenizer.from_pretrained(args.model)(text, verbose=False)["input_ids"]
    need = args.samples * args.seq_len
    if len(ids) < need:
        parser.error(f"{args.text} has {len(ids)} tokens, {args.samples} x {args.seq_len} = {need} are needed")
    numpy.save(args.out, numpy.asarray(ids[:need], dtype=numpy.int32))


if __name__ == "__main__":
    main()
