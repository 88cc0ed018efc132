"""Which code and which libraries decide what a piece of work gives: the version of a stage, for its key.

What enters: the functions that the work begins in. What leaves: a hash of all source that they can reach, and the
libraries that this source imports. Imports are read off the source, those inside functions included, and followed
through the project's own modules; nothing is imported or run. Modules are taken whole, but those that hold the entries
of several stages (`_BY_FUNCTION`) are followed function by function: a stage does not depend on its neighbours. What
carries a stage and decides nothing of its output is left out (`_CARRIERS`): the run folder, the ledger, what is shown,
and the settings with what they settle, which stand in keys as values.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = "potstill"
_BY_FUNCTION = {
    f"{_PACKAGE}.{name}" for name in ("stages.job", "stages.optional", "stages.parts", "stages.written", "compression")
}
_CARRIERS = {
    f"{_PACKAGE}.{name}"
    for name in (
        *("asking.asker", "asking.budget", "asking.counts", "asking.ledger", "asking.stream", "code_version", "errors"),
        *("events", "masking", "notebook", "pages.live_view", "progress", "run_dir", "run_state", "settings"),
        *("stages.start", "stages.student_choice"),
    )
}
_CARRYING = {f"{_PACKAGE}.stages.job:Job.make_stage"}
# What a library is called where it is installed, and those through which another works.
_INSTALLED_AS = {"sklearn": "scikit-learn", "faiss": "faiss-cpu", "crowdkit": "crowd-kit", "rouge_score": "rouge-score"}
_THROUGH = {"transformers": ("torch", "tokenizers"), "trl": ("accelerate",), "sentence_transformers": ("transformers",)}
# Libraries that shape rows, targets, weights or scores; others read settings, draw pictures or write pages.
DECIDING = (
    *("torch", "transformers", "tokenizers", "trl", "accelerate", "peft", "optuna", "bitsandbytes", "torchao"),
    *("compressed-tensors", "gguf", "onnx", "onnxscript", "onnxruntime", "datasets", "sentence-transformers"),
    *("faiss-cpu", "bm25s", "rapidfuzz", "crowd-kit", "rouge-score", "sacrebleu", "json-repair"),
    *("scikit-learn", "scipy", "numpy"),
)
_IMPORT = re.compile(r"^[ \t]*(?:from [\w.]+ import (?:\([^)]*\)|[^\n]+)|import [^\n]+)", re.MULTILINE)
_FOR_CHECKERS = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t]+[^\n]*\n|\n)+", re.MULTILINE)


@dataclass(frozen=True)
class CodeVersion:
    """What a piece of work runs.

    Attributes:
        digest: sha256 of the source of all that it can reach, in hex.
        modules: The project's modules that it reaches, by name, in order.
        libraries: Those of `DECIDING` that it imports.
    """

    digest: str
    modules: tuple[str, ...]
    libraries: tuple[str, ...]

    def key_parts(self) -> dict[str, Any]:
        """The parts of a stage's key."""
        return {"code": self.digest, "versions": versions(*self.libraries)}


def versions(*libraries: str) -> dict[str, str]:
    """Installed versions of potstill and of libraries, `absent` where one is not installed."""
    return {library: _installed(library) for library in (_PACKAGE, *libraries)}


@cache
def _installed(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


@cache
def code_version(*entries: Callable[..., Any], without: tuple[Callable[..., Any], ...] = ()) -> CodeVersion:
    """The version of what begins in `entries`.

    Args:
        entries: Functions or methods.
        without: Functions that this piece of work does not call, though its source names them.
    """
    stopped = {_place(function) for function in without} | _CARRYING
    seen: dict[str, bytes] = {}
    outside: set[str] = set()
    ahead = [_place(function) for function in entries]
    while ahead:
        place = ahead.pop()
        if place in seen or place in stopped:
            continue
        piece = _piece(place)
        seen[place] = piece.digest
        outside |= piece.outside
        ahead += piece.inside
    sums = hashlib.sha256()
    for place in sorted(seen):
        sums.update(place.encode() + b"\0" + seen[place])
    used = {_INSTALLED_AS.get(name, name.replace("_", "-")) for name in _with_lower(outside)}
    modules = sorted({place.partition(":")[0] for place in seen})
    return CodeVersion(sums.hexdigest(), tuple(modules), tuple(name for name in DECIDING if name in used))


def _with_lower(libraries: set[str]) -> set[str]:
    found, ahead = set[str](), list(libraries)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += _THROUGH.get(name, ())
    return found


def _place(function: Callable[..., Any]) -> str:
    """`module:qualified.name` of a function in a module that is followed by functions, the module's name elsewhere."""
    module = function.__module__
    return f"{module}:{function.__qualname__}" if module in _BY_FUNCTION else module


@dataclass(frozen=True)
class _Piece:
    """A module, or a function of one: the hash of its source, and what it imports from the project and from outside."""

    digest: bytes
    inside: tuple[str, ...]
    outside: frozenset[str]


@cache
def _piece(place: str) -> _Piece:
    module, _, name = place.partition(":")
    source = _source(module)
    if not name:
        return _Piece(hashlib.sha256(source.encode()).digest(), *_followed(module, list(imports_of(source))))
    node = _named(module)[name]
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    imported, own = _used(module, name, node)
    inside, outside = _followed(module, imported)
    return _Piece(hashlib.sha256("\n".join(lines).encode()).digest(), (*inside, *own), outside)


def _used(module: str, name: str, node: ast.stmt) -> tuple[list[str], list[str]]:
    """What a function imports or uses of the imports at the top, and the other functions of its module that it uses."""
    owner, used = name.rpartition(".")[0], set()
    for item in ast.walk(node):
        if isinstance(item, ast.Name):
            used.add(item.id)
        elif owner and isinstance(item, ast.Attribute) and isinstance(item.value, ast.Name) and item.value.id == "self":
            used.add(f"{owner}.{item.attr}")
    top = {
        alias.asname or alias.name: f"{statement.module}.{alias.name}"
        for statement in _tree(module).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    imported = [*_imports(node), *(top[word] for word in sorted(used & set(top)))]
    return imported, [f"{module}:{word}" for word in sorted(used & set(_named(module))) if word != name]


@cache
def _named(module: str) -> dict[str, ast.stmt]:
    """Functions, methods and constants at the top of a module, by their names."""
    found: dict[str, ast.stmt] = {}
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}": item for item in node.body if isinstance(item, ast.FunctionDef)}
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


def _followed(module: str, imported: list[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Imported dotted names as places of the project, and as libraries from outside."""
    inside, outside = [], set()
    for name in imported:
        first = name.partition(".")[0]
        if first != _PACKAGE:
            if first not in sys.stdlib_module_names:
                outside.add(first)
            continue
        found = name if _file(name) is not None else name.rpartition(".")[0]
        if found in (module, _PACKAGE) or found in _CARRIERS:
            continue
        inside.append(f"{found}:{name.rpartition('.')[2]}" if found in _BY_FUNCTION else found)
    return tuple(inside), frozenset(outside)


def imports_of(source: str) -> Iterator[str]:
    """Dotted names that a module imports, inside its functions too, but those for type checkers alone.

    Only its import statements are parsed: the trees of whole modules take a second for all that a run reaches.
    """
    found = _IMPORT.findall(_FOR_CHECKERS.sub("", source))
    try:
        tree = ast.parse("\n".join(statement.lstrip() for statement in found))
    except SyntaxError:  # a line of prose that begins as an import does
        tree = ast.parse(source)
    return _imports(tree)


def _imports(node: ast.AST) -> Iterator[str]:
    ahead = [node]
    while ahead:
        item = ahead.pop()
        if isinstance(item, ast.ImportFrom):
            yield from (f"{item.module}.{alias.name}" for alias in item.names)
        elif isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.If) and isinstance(item.test, ast.Name) and item.test.id == "TYPE_CHECKING":
            ahead += item.orelse
        else:  # imports are statements, and expressions hold none
            for part in ("body", "orelse", "finalbody", "handlers", "cases"):
                inner = getattr(item, part, ())
                ahead += inner if isinstance(inner, list) else ()


@cache
def _file(module: str) -> Path | None:
    """The file of one of the project's modules; None for what is no module but a name in one."""
    parent, _, last = module.rpartition(".")
    if parent in ("", _PACKAGE):
        found = importlib.util.find_spec(module)
        return Path(found.origin) if found is not None and found.origin else None
    # Python's own finder would import the parent to look into it, and with it the libraries that the parent needs.
    above = _file(parent)
    if above is None or above.name != "__init__.py":
        return None
    places = (above.parent / f"{last}.py", above.parent / last / "__init__.py")
    return next((place for place in places if place.exists()), None)


@cache
def _source(module: str) -> str:
    file = _file(module)
    assert file is not None, f"{module} is no module"
    return file.read_text(encoding="utf-8")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_source(module))
