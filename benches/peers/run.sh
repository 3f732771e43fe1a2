#!/usr/bin/env bash
# Compare sparsellm with llm-compressor and plain PyTorch on this machine's CPU:
#   benches/peers/run.sh target/release/sparsellm MODEL TRAIN.txt TEST.txt [options of peers.py]
# Makes a venv beside this script where there is none; the packages come from PyPI and take about 6 GB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "$here/venv/ready" ]; then
    python3 -m venv "$here/venv"
    "$here/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    touch "$here/venv/ready"
fi
exec "$here/venv/bin/python" "$here/peers.py" "$@"
