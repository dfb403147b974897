"""The arrows of docs/architecture.rst, checked on the syntax trees: who may import whom."""

from __future__ import annotations

import ast
import collections
import pathlib
from typing import Dict, Iterator, List, Set

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = ("deepetpicker.errors", "deepetpicker.options", "deepetpicker.config", "deepetpicker.geometry",
        "deepetpicker.progress", "deepetpicker.memory", "deepetpicker.perclass", "deepetpicker.calibration",
        "deepetpicker.outliers", "deepetpicker.verdict", "deepetpicker.io")
FIGURES = ("deepetpicker.report", "deepetpicker.report.charts", "deepetpicker.report.slices",
           "deepetpicker.report.rounds")
RANKING = ("deepetpicker.proposing.ranking", "deepetpicker.proposing.candidates")  # what the windows need of proposing
# Each room and the rooms it may import from, the ground floor apart, which all may use.
ROOMS = {
    "preparation": set(),
    "proposing": {"preparation", "network", "picking", "simulation", "training"},
    "checking": {"preparation"},
    "network": {"preparation"},
    "picking": {"preparation", "network"},
    "evaluation": set(),
    "sampling": {"preparation", "checking"},
    "training": {"preparation", "checking", "sampling", "network", "picking", "evaluation"},
    "report": {"evaluation"},
    "annotation": {"proposing"},
    "windows": {"report", "annotation", "proposing"},
    "simulation": set(),
    "studying": {"preparation", "proposing", "network", "picking", "evaluation", "sampling", "training", "report",
                 "simulation"},
    "benchmarking": {"preparation", "network", "picking", "evaluation", "simulation"},
}
TORCH = {"torch", "lightning", "pytorch_lightning", "safetensors.torch", "torchmetrics"}
SCIPION = {"pyworkflow", "pwem", "tomo", "scipion", "deepetpicker_plugin"}


FOLDERS = {"deepetpicker": ROOT / "engine", "deepetpicker_plugin": ROOT}


def module_names(package: str) -> Dict[str, pathlib.Path]:
    """Return the dotted name and the file of every module of a package."""
    names = {}
    for path in sorted((FOLDERS[package] / package).rglob("*.py")):
        parts = path.relative_to(FOLDERS[package]).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


ENGINE = module_names("deepetpicker")
PLUGIN = module_names("deepetpicker_plugin")
TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in {**ENGINE, **PLUGIN}.items()}


def is_base(name: str) -> bool:
    """Return whether a module belongs to the group that runs without torch."""
    return name == "deepetpicker" or name in BASE or name.startswith("deepetpicker.io.")


def plugin_may(name: str) -> bool:
    """Return whether the plugin may import a module: the base, the figures and the windows."""
    return is_base(name) or name in FIGURES or is_windows(name)


def is_windows(name: str) -> bool:
    """Return whether a module belongs to the windows and what they stand on: the plugin opens them in Scipion."""
    return name.startswith(("deepetpicker.windows", "deepetpicker.annotation")) or name in RANKING


def walk(node: ast.AST, inside_functions: bool) -> Iterator[ast.AST]:
    """Yield the nodes that run at import; with inside_functions also those that run later."""
    for child in ast.iter_child_nodes(node):
        deferred = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if typing_only or (deferred and not inside_functions):
            continue
        yield child
        yield from walk(child, inside_functions)


def imports(name: str, inside_functions: bool = True) -> Set[str]:
    """Return the full names a module imports; ``from a import b`` gives a.b where that is a module, else a."""
    found: Set[str] = set()
    path = {**ENGINE, **PLUGIN}[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in walk(TREES[name], inside_functions):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            source = (start + (node.module or "")).rstrip(".")
            for alias in node.names:
                full = f"{source}.{alias.name}"
                found.add(full if full in ENGINE or full in PLUGIN else source)
    return found


def own(names: Set[str], package: str = "deepetpicker") -> Set[str]:
    """Return the names that belong to a package."""
    return {name for name in names if name == package or name.startswith(package + ".")}


def roots(names: Set[str]) -> Set[str]:
    """Return the top-level packages of names."""
    return {name.partition(".")[0] for name in names}


def test_the_reader_of_imports_sees_every_form():
    assert imports("deepetpicker.options") >= {"argparse", "deepetpicker.errors", "typing"}
    assert "tqdm" in imports("deepetpicker.progress")
    assert "tqdm" not in imports("deepetpicker.progress", inside_functions=False)
    assert len(ENGINE) >= 5


@pytest.mark.parametrize("name", [name for name in ENGINE if is_base(name)])
def test_base_imports_only_base_and_no_torch(name: str):
    beyond = [other for other in own(imports(name)) if not is_base(other)]
    assert beyond == [], f"{name} belongs to the base group and must not import {beyond}"
    assert not imports(name) & TORCH
    assert not roots(imports(name)) & roots(TORCH - {"safetensors.torch"})


@pytest.mark.parametrize("name", list(ENGINE))
def test_engine_knows_nothing_of_scipion(name: str):
    assert not roots(imports(name)) & SCIPION


@pytest.mark.parametrize("name", [n for n in ENGINE if not n.startswith(("deepetpicker.cli", "deepetpicker.__main__"))])
def test_nothing_imports_the_command_line(name: str):
    upward = [o for o in own(imports(name)) if o.startswith(("deepetpicker.cli", "deepetpicker.__main__"))]
    assert upward == []


@pytest.mark.parametrize("name", [n for n in ENGINE if n.startswith(("deepetpicker.cli", "deepetpicker.__main__"))])
def test_command_line_imports_no_numpy_and_no_torch_at_start(name: str):
    seen: Set[str] = set()
    todo = [name]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        found = imports(module, inside_functions=False)
        assert not roots(found) & {"numpy", "scipy", "torch", "lightning", "matplotlib", "mrcfile"}, module
        parents = {m.rpartition(".")[0] for m in own(found)}
        todo += [m for m in own(found) | own(parents) if m in ENGINE]
    assert name in seen


OPTIONAL = {"dask", "distributed", "dask_jobqueue", "cryptography", "bokeh"}


@pytest.mark.parametrize("name", list(ENGINE))
def test_what_only_clusters_need_is_imported_by_nothing_at_start(name: str):
    assert not roots(imports(name, inside_functions=False)) & OPTIONAL
    assert name.startswith("deepetpicker.picking.cluster") or not roots(imports(name)) & OPTIONAL


def room(name: str) -> str:
    """Return the room a module stands in, "" for the ground floor."""
    part = name.split(".")[1] if "." in name else ""
    return "" if is_base(name) else part


@pytest.mark.parametrize("name", [n for n in ENGINE if not n.startswith(("deepetpicker.cli", "deepetpicker.__main__"))])
def test_rooms_import_along_the_arrows(name: str):
    allowed = {"", room(name), *ROOMS.get(room(name), set())}
    assert {other for other in own(imports(name)) if room(other) not in allowed} == set()


def test_rooms_are_listed_and_not_crowded():
    modules = [name for name in ENGINE if not is_base(name)]
    assert {room(name) for name in modules} == {*ROOMS, "cli", "__main__"}
    folders = collections.Counter(path.parent for path in ENGINE.values() if path.name != "__init__.py")
    del folders[ROOT / "engine/deepetpicker/cli"]  # a module per verb
    assert {str(folder): n for folder, n in folders.items() if n > 12} == {}
    ground = {name.split(".")[1] for name in ENGINE if is_base(name) and "." in name}
    assert ground == {name.split(".")[1] for name in BASE}


def test_figures_import_only_base_and_numpy_at_start():
    for name in FIGURES:
        found = imports(name, inside_functions=False)
        assert [o for o in own(found) if not plugin_may(o)] == [], name
        assert not roots(found) & (roots(TORCH) | {"scipy", "matplotlib"}), name


@pytest.mark.parametrize("name", [name for name in ENGINE if is_windows(name)])
def test_windows_import_only_base_figures_numpy_and_tkinter_at_start(name: str):
    found = imports(name, inside_functions=False)
    assert [other for other in own(found) if not plugin_may(other)] == []
    assert not roots(found) & {"torch", "lightning", "scipy", "matplotlib", "PIL"}


def test_plugin_imports_only_base_figures_windows_and_no_torch():
    beyond = {name: [other for other in own(imports(name)) if not plugin_may(other)] for name in PLUGIN}
    assert {name: found for name, found in beyond.items() if found} == {}, "the plugin exchanges files with the engine"
    assert [name for name in PLUGIN if roots(imports(name)) & roots(TORCH)] == []


@pytest.mark.parametrize("modules", [ENGINE, PLUGIN], ids=["deepetpicker", "deepetpicker_plugin"])
def test_no_import_cycle(modules: Dict[str, pathlib.Path]):
    edges = {name: imports(name, inside_functions=False) & set(modules) - {name} for name in modules}
    state: Dict[str, int] = {}
    cycles: List[str] = []

    def visit(name: str, trail: List[str]) -> None:
        state[name] = 1
        for other in sorted(edges[name]):
            if state.get(other) == 1:
                cycles.append(" -> ".join([*trail[trail.index(other):], other]))
            elif other not in state:
                visit(other, [*trail, other])
        state[name] = 2

    for name in edges:
        if name not in state:
            visit(name, [name])
    assert cycles == []


SCRIPTS = [path for folder in ("benchmarks", "scripts", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


def bound(tree: ast.Module) -> Set[str]:
    """Return the names a module binds outside its functions and classes."""
    names: Set[str] = set()
    nodes: List[ast.AST] = list(tree.body)
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name):
            names.add(node.id)
        else:
            nodes.extend(ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize("path", SCRIPTS, ids=[str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_what_scripts_and_tests_import_from_us_exists(path: pathlib.Path):
    """What mypy does not see: a function that moves takes its users along."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] not in FOLDERS:
            continue
        assert node.module in TREES, f"line {node.lineno}: there is no {node.module}"
        known = bound(TREES[node.module])
        for alias in node.names:
            there = alias.name in known or "__getattr__" in known or f"{node.module}.{alias.name}" in TREES
            assert there, f"line {node.lineno}: {node.module} has no {alias.name}"


def replaced(tree: ast.Module) -> Iterator[str]:
    """Yield the name of each attribute that a test replaces, "folder.name" for that of a module or an object."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        does = ast.unparse(call.func)
        if does.endswith((".setattr", "patch.object", "mock.patch")) and call.args:
            yield ".".join(ast.unparse(word).strip("'\"") for word in call.args[:2])


def test_tests_replace_nothing_private():
    """What nobody else may use may be moved, renamed or called in another way: a test of it would fail for nothing."""
    theirs = ("os._exit", "._streamingSleepOnWait")  # the first of Python, the other of Scipion, made to be replaced
    paths = [path for folder in ("tests", "deepetpicker_plugin/tests") for path in (ROOT / folder).rglob("test_*.py")]
    found = {path.name: [name for name in replaced(ast.parse(path.read_text("utf-8"))) if "._" in name.replace(
        "__", "") and not name.endswith(theirs)] for path in paths}
    assert len(paths) > 100
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("name", [*ENGINE, *PLUGIN])
def test_no_drawer_for_odds_and_ends(name: str):
    assert name.rpartition(".")[2] not in ("utils", "util", "helpers", "misc", "common")


@pytest.mark.parametrize("name", [n for n in [*ENGINE, *PLUGIN] if ".tests" not in n])
def test_everything_public_is_documented(name: str):
    missing = [] if ast.get_docstring(TREES[name]) else ["the module"]
    todo = [("", TREES[name])]
    while todo:
        prefix, parent = todo.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name[0] != "_":
                if not ast.get_docstring(node):
                    missing.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    todo.append((f"{prefix}{node.name}.", node))
    assert missing == [], f"{name}: no docstring on {', '.join(missing)}"


@pytest.mark.parametrize("name", [n for n in [*ENGINE, *PLUGIN] if is_base(n) or is_windows(n) or n in PLUGIN])
def test_base_windows_and_plugin_are_python_3_8(name: str):
    path = {**ENGINE, **PLUGIN}[name]
    tree = ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 8))
    annotated = any(isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation for node in ast.walk(tree))
    future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    assert future or not annotated, "begin with: from __future__ import annotations"
    newer = [kw.arg for node in ast.walk(tree) if isinstance(node, ast.Call)
             for kw in node.keywords if kw.arg in ("slots", "kw_only", "strict")
             and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("dataclass", "zip", "field")]
    assert newer == []
