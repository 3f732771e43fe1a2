"""Cut a checkpoint to its first decoder layers, for quick tries and for what is too slow to run on all of them.

    python first_layers.py MODEL OUT LAYERS
"""

import argparse
import json
import re
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with one model.safetensors")
    parser.add_argument("out", type=Path)
    parser.add_argument("layers", type=int)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(args.model / name, args.out / name)
    config = json.loads((args.model / "config.json").read_text())
    config["num_hidden_layers"] = args.layers
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    def kept(name: str) -> bool:
        layer = re.search(r"\.layers\.(\d+)\.", name)
        return layer is None or int(layer[1]) < args.layers

    tensors = load_file(args.model / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if kept(n)}, args.out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
