"""Checks the walls of the workspace, which ARCHITECTURE.md lists: exits with 1 where one is broken.

    python3 .ci/walls.py          from anywhere in the repository; needs cargo, and nothing but the standard library

1. Which crates must never depend on which, directly or through other crates of the workspace.
2. What only the command may do: read the environment, set a panic hook, name one of its flags.
3. No source files of one crate import each other in a circle.

The third reads `use` declarations and paths that begin with `crate`, `super` or `self`, and follows `pub use` through
facades (files that hold only docs, `mod` and `use`) to the file that defines an item. It is no compiler: names that
only a macro makes are beyond it. Test modules are left out of the second and third.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CRATES = ROOT / "crates"

# A crate, and what must not be among its normal dependencies. Names without the prefix are of this workspace.
NEVER = {
    "tensor": ["ranks", "checkpoint"],
    "checkpoint": ["ranks", "crates.io:tokenizers"],
    "model": ["prune", "eval", "data"],
    "eval": ["prune", "report"],
    "data": ["model", "prune", "report"],
    "prune": ["eval", "report", "data", "crates.io:clap"],
}
# These are no part of the library.
NOT_LIBRARY = {"sparsellm-cli", "sparsellm-testing"}
READS_ENVIRONMENT = "sparsellm-data/src/hub/"

# A comment, a string or a character.
TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<string>(?<!\w)b?r(?P<hashes>\#*)".*?"(?P=hashes) | b?"(?:\\.|[^"\\])*")
      | (?P<char>b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])')""",
    re.S | re.X,
)
USE = re.compile(r"\b(?:pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
MOD = re.compile(r"\bmod\s+(\w+)\s*;")
REGISTERED = re.compile(r"\b(\w+)\s+in\s+\"([\w./]+\.rs)\"")
PATH = re.compile(r"(?<![\w$:])(\w+)((?:\s*::\s*\w+)+)")


def without_comments(text: str, strings: bool = True) -> str:
    """The source with each comment, and each string unless they are kept, replaced by blanks; lines stay lines."""
    def blank(match: re.Match) -> str:
        if strings and match["comment"] is None:
            return match[0]
        return re.sub(r"[^\n]", " ", match[0])
    return TOKEN.sub(blank, text)


def end_of_item(text: str, start: int) -> int:
    """Where the item that begins at `start` ends: after its `;`, or after the brace that closes it."""
    depth = 0
    for match in re.compile(r"[;{}()\[\]]").finditer(text, start):
        depth += {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}.get(match[0], 0)
        if depth == 0 and match[0] in ";}":
            return match.end()
    return len(text)


def without_tests(text: str) -> str:
    """The source without what is only compiled for tests; comments are gone already."""
    bare = without_comments(text, strings=False)
    out, at = [], 0
    for match in re.finditer(r"#\[cfg\(test\)\]", bare):
        if match.start() < at:
            continue
        end = end_of_item(bare, match.end())
        out += [text[at:match.start()], re.sub(r"[^\n]", " ", text[match.start():end])]
        at = end
    return "".join([*out, text[at:]])


def is_test(path: Path) -> bool:
    return path.name == "tests.rs" or "tests" in path.parent.parts


def sources(crate: Path) -> dict[Path, str]:
    """Every source file of a crate, without comments and tests."""
    files = sorted((crate / "src").rglob("*.rs"))
    files = [path for path in files if not is_test(path.relative_to(crate))]
    return {path: without_tests(without_comments(path.read_text(encoding="utf-8"))) for path in files}


def line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


# --- 1. dependencies between crates


def dependency_faults() -> list[str]:
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    direct = {
        package["name"]: [d["name"] for d in package["dependencies"] if d["kind"] is None]
        for package in metadata["packages"]
    }
    faults = []
    for short, forbidden in NEVER.items():
        crate = f"sparsellm-{short}"
        if crate not in direct:
            faults.append(f"{crate} is not in the workspace: .ci/walls.py has rules for it")
            continue
        chains, todo = {}, [[crate]]
        while todo:
            chain = todo.pop()
            for name in direct.get(chain[-1], []):
                if name not in chains:
                    chains[name] = [*chain, name]
                    todo.append(chains[name])
        for name in forbidden:
            outside = name.removeprefix("crates.io:")
            name = outside if outside != name else f"sparsellm-{name}"
            if name in chains:
                faults.append(f"{crate} must not depend on {name}: {' -> '.join(chains[name])}")
    return faults


# --- 2. what only the command may do


def conduct_faults(crate: Path) -> list[str]:
    faults = []
    for path, text in sources(crate).items():
        name = path.relative_to(ROOT).as_posix()
        bare = without_comments(text, strings=False)
        rules = [
            (bare, r"\benv::(?:var|vars|var_os|vars_os)\b", "reads the environment"),
            (bare, r"\bpanic::set_hook\b", "sets the panic hook"),
        ]
        if READS_ENVIRONMENT in name:
            rules = rules[1:]
        for where, pattern, what in rules:
            faults += [f"{name}:{line_of(where, m.start())}: {what}" for m in re.finditer(pattern, where)]
        for match in TOKEN.finditer(text):
            if match["string"] and re.search(r"(?<![\w-])--[a-z]", match["string"]):
                faults.append(f"{name}:{line_of(text, match.start())}: names a flag of the command: {match[0][:70]}")
    return faults


# --- 3. circles


def split_top(text: str) -> list[str]:
    """The parts of a comma-separated list that may hold lists in braces."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def expand(tree: str, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """(path, name it is known by) of every item that a use declaration imports; `*` is the name of a glob."""
    tree = tree.strip()
    if "{" in tree:
        head, _, rest = tree.partition("{")
        steps = tuple(step.strip() for step in head.split("::") if step.strip())
        return [item for part in split_top(rest.rpartition("}")[0]) for item in expand(part, prefix + steps)]
    path, _, alias = (part.strip() for part in re.sub(r"\s+", " ", tree).partition(" as "))
    steps = prefix + tuple(step.strip() for step in path.split("::") if step.strip())
    if steps[-1] == "self":
        steps = steps[:-1]
    return [(steps, alias or steps[-1])]


class Module:
    """One source file, as a module."""

    def __init__(self, path: Path, name: tuple[str, ...], text: str):
        self.path, self.name, self.text = path, name, text
        bare = without_comments(text, strings=False)
        self.uses = [item for match in USE.finditer(bare) for item in expand(match[1])]
        rest = USE.sub(" ", bare)
        # What stays when all that a facade may hold is taken away.
        body = re.sub(r"#!?\[[^\]]*\]", " ", rest)
        body = re.sub(r"\b(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+\s*;", " ", body)
        self.is_facade = path.name in ("lib.rs", "mod.rs") and not body.strip()
        self.macros = set(re.findall(r"\bmacro_rules!\s*(\w+)", bare))
        self.registers = dict(REGISTERED.findall(text)) if "macro_rules!" in bare else {}
        self.paths = {(m[1], *re.findall(r"\w+", m[2])) for m in PATH.finditer(rest)}
        self.children: dict[str, Module] = {}

    def local_uses(self) -> list[tuple[tuple[str, ...], str]]:
        """What it imports from its own crate."""
        return [use for use in self.uses if use[0][0] in ("crate", "super", "self") or use[0][0] in self.children]


class Crate:
    """The modules of one crate."""

    def __init__(self, crate: Path):
        self.files = sources(crate)
        self.modules: list[Module] = []
        root = crate / "src/lib.rs"
        self.root = self.load(root, ()) if root in self.files else None

    def load(self, path: Path, name: tuple[str, ...]) -> Module:
        module = Module(path, name, self.files[path])
        self.modules.append(module)
        folder = path.parent if path.name in ("lib.rs", "main.rs", "mod.rs") else path.with_suffix("")
        found = {child: path.parent / file for child, file in module.registers.items()}
        for child in MOD.findall(without_comments(module.text, strings=False)):
            for file in (folder / f"{child}.rs", folder / child / "mod.rs"):
                if file in self.files:
                    found[child] = file
        module.children = {child: self.load(file, (*name, child)) for child, file in found.items() if file in self.files}
        return module

    def resolve(self, module: Module, steps: tuple[str, ...], seen: frozenset = frozenset()) -> Module | None:
        """The module that defines what `steps` names in `module`; `None` where that is in another crate."""
        if (module.name, steps) in seen:
            return None
        seen |= {(module.name, steps)}
        if not steps:
            return module
        first, rest = steps[0], steps[1:]
        if first == "crate":
            return self.resolve(self.root, rest, seen)
        if first == "self":
            return self.resolve(module, rest, seen)
        if first == "super":
            return self.resolve(self.at(module.name[:-1]), rest, seen)
        if first in module.children:
            return self.resolve(module.children[first], rest, seen)
        for path, name in module.local_uses():
            if name == first:
                return self.resolve(module, path + rest, seen)
        for path, name in module.local_uses():
            if name == "*" and (found := self.resolve(module, path[:-1] + steps, seen)):
                return found
        if module is self.root:  # where exported macros are
            for other in self.modules:
                if first in other.macros:
                    return other
        defined = rf"\b(?:fn|struct|enum|trait|type|const|static|union|mod)\s+(?:mut\s+)?{re.escape(first)}\b"
        return module if re.search(defined, module.text) else None

    def at(self, name: tuple[str, ...]) -> Module:
        module = self.root
        for step in name:
            module = module.children[step]
        return module

    def imports(self, module: Module) -> set[Path]:
        """The files that a file needs."""
        named = {path[:-1] if path[-1] == "*" else path for path, _ in module.local_uses()}
        found = {self.resolve(module, path) for path in named | module.paths}
        found |= {module.children[child] for child in module.registers if child in module.children}
        return {other.path for other in found if other and other is not module and not other.is_facade}

    def circles(self) -> list[list[Path]]:
        """Files that all reach each other, a list for each circle."""
        graph = {m.path: self.imports(m) for m in self.modules if not m.is_facade}
        reach = {}
        for start in graph:
            seen, todo = set(), [start]
            while todo:
                for path in graph.get(todo.pop(), ()):
                    if path not in seen:
                        seen.add(path)
                        todo.append(path)
            reach[start] = seen
        circles = {frozenset([a, *(b for b in reach[a] if a in reach.get(b, ()))]) for a in graph if a in reach[a]}
        return sorted(sorted(circle) for circle in circles if len(circle) > 1)

    def edges(self, circle: list[Path]) -> list[str]:
        return [
            f"    {m.path.relative_to(ROOT).as_posix()} -> {other.relative_to(ROOT).as_posix()}"
            for m in self.modules if m.path in circle
            for other in sorted(self.imports(m)) if other in circle
        ]


def circle_faults(folder: Path) -> list[str]:
    crate = Crate(folder)
    if crate.root is None:
        return []
    return ["\n".join(["files that import each other in a circle:", *crate.edges(c)]) for c in crate.circles()]


def main() -> int:
    faults = dependency_faults()
    for crate in sorted(path.parent for path in CRATES.glob("*/Cargo.toml")):
        if crate.name not in NOT_LIBRARY:
            faults += conduct_faults(crate)
        faults += circle_faults(crate)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
