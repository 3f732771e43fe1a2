"""Share one cache between sparsellm and Python's huggingface_hub, in both directions.

    python tools/checks/hub_cache.py target/release/sparsellm assets/tiny-llama

Serves the folder on loopback as the model test/model with the hub's paths. What sparsellm downloads,
huggingface_hub must find with no network (hf_hub_download, snapshot_download); what huggingface_hub downloads,
`sparsellm inspect --offline` must read, and online it must not download again. The exit status is 1 if anything is
wrong.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ID, COMMIT = "test/model", "0123456789abcdef0123456789abcdef01234567"
FIND = """
import sys, huggingface_hub as hub
folder = hub.snapshot_download(sys.argv[1], local_files_only=True)
for name in sys.argv[2:]:
    path = hub.hf_hub_download(sys.argv[1], name, local_files_only=True)
    assert path.startswith(folder) and open(path, "rb").read(), path
    assert hub.try_to_load_from_cache(sys.argv[1], name) == path
repo, = hub.scan_cache_dir().repos
assert repo.repo_id == sys.argv[1] and repo.nb_files == len(sys.argv) - 2, repo
"""
FETCH = "import sys, huggingface_hub as hub; hub.snapshot_download(sys.argv[1])"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        if path == f"/api/models/{ID}/revision/main":
            names = [{"rfilename": name} for name in self.server.files]
            return self.answer(json.dumps({"id": ID, "sha": COMMIT, "siblings": names}).encode())
        if path == f"/api/models/{ID}/tree/{COMMIT}":
            tree = [{"type": "file", "path": n, "size": len(b), "oid": self.etag(b)} for n, b in self.server.files.items()]
            return self.answer(json.dumps(tree).encode())
        name = path.removeprefix(f"/{ID}/resolve/").partition("/")[2]
        if name not in self.server.files:
            return self.send_error(404)
        body = self.server.files[name]
        self.answer(body, [("x-repo-commit", COMMIT), ("etag", f'"{self.etag(body)}"')])

    @staticmethod
    def etag(body: bytes) -> str:
        large = len(body) > 1 << 20
        return (hashlib.sha256(body) if large else hashlib.sha1(b"blob %d\0" % len(body) + body)).hexdigest()

    def answer(self, body: bytes, headers=()):
        self.send_response(200)
        for name, value in [("content-length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="the sparsellm command")
    parser.add_argument("model", type=Path, help="a checkpoint folder")
    args = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {p.name: p.read_bytes() for p in sorted(args.model.iterdir())}
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wrong = []

    def run(home: str, what: str, *command, **env):
        env = {"HF_HOME": home, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1",
               "HF_HUB_DISABLE_XET": "1", **env}
        done = subprocess.run(list(map(str, command)), env={**os.environ, **env}, capture_output=True, text=True)
        print(f"{what}: {'right' if done.returncode == 0 else 'WRONG'}")
        if done.returncode:
            wrong.append(what)
            print(done.stderr)

    binary, names = args.binary.resolve(), list(server.files)
    with tempfile.TemporaryDirectory() as home:
        run(home, "sparsellm downloads", binary, "inspect", ID)
        run(home, "huggingface_hub finds it", sys.executable, "-c", FIND, ID, *names, HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as home:
        run(home, "huggingface_hub downloads", sys.executable, "-c", FETCH, ID)
        run(home, "sparsellm finds it", binary, "inspect", ID, "--offline")
        server.asked.clear()
        run(home, "sparsellm finds it online", binary, "inspect", ID)
        if any("resolve" in path for path in server.asked):
            wrong.append(f"downloaded again: {server.asked}")
    print(f"{len(wrong)} things wrong: {wrong}" if wrong else "0 things wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
