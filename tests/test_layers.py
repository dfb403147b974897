"""The arrows of docs/architecture.rst, checked on the syntax trees: who may import whom."""

from __future__ import annotations

import ast
import collections
import functools
import pathlib
from typing import Dict, FrozenSet, Iterable, Iterator, List, Set

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = ("deepetpicker.errors", "deepetpicker.options", "deepetpicker.config", "deepetpicker.geometry",
        "deepetpicker.terminal", "deepetpicker.memory", "deepetpicker.perclass", "deepetpicker.calibration",
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
FILES = {**ENGINE, **PLUGIN}


@functools.lru_cache(maxsize=None)
def tree_of(path: pathlib.Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


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


@functools.lru_cache(maxsize=None)
def imports(name: str, inside_functions: bool = True) -> FrozenSet[str]:
    """Return the full names a module imports; ``from a import b`` gives a.b where that is a module, else a."""
    found: Set[str] = set()
    path = FILES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in walk(tree_of(FILES[name]), inside_functions):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            source = (start + (node.module or "")).rstrip(".")
            for alias in node.names:
                full = f"{source}.{alias.name}"
                found.add(full if full in ENGINE or full in PLUGIN else source)
    return frozenset(found)


def own(names: Iterable[str], package: str = "deepetpicker") -> Set[str]:
    """Return the names that belong to a package."""
    return {name for name in names if name == package or name.startswith(package + ".")}


def roots(names: Iterable[str]) -> Set[str]:
    """Return the top-level packages of names."""
    return {name.partition(".")[0] for name in names}


def offenders(found: Dict[str, Iterable[str]]) -> Dict[str, List[str]]:
    """Return the modules of which something was found, each with what it is."""
    return {name: sorted(what) for name, what in found.items() if what}


COMMANDS = [name for name in ENGINE if name.startswith(("deepetpicker.cli", "deepetpicker.__main__"))]
REST = [name for name in ENGINE if name not in COMMANDS]


def test_the_reader_of_imports_sees_every_form():
    assert imports("deepetpicker.options") >= {"argparse", "deepetpicker.errors", "typing"}
    assert "tqdm" in imports("deepetpicker.terminal")
    assert "tqdm" not in imports("deepetpicker.terminal", inside_functions=False)
    assert len(ENGINE) >= 5


def test_what_is_imported_of_ours_is_there():
    missing = {name: {one for package in FOLDERS for one in own(imports(name), package)} - set(FILES) for name in FILES}
    assert offenders(missing) == {}


def test_base_imports_only_base_and_no_torch():
    base = [name for name in ENGINE if is_base(name)]
    beyond = {name: [other for other in own(imports(name)) if not is_base(other)] for name in base}
    assert offenders(beyond) == {}, "the base group imports nothing else of ours"
    assert offenders({name: imports(name) & TORCH for name in base}) == {}
    assert offenders({name: roots(imports(name)) & roots(TORCH - {"safetensors.torch"}) for name in base}) == {}
    assert len(base) > 30


def test_engine_knows_nothing_of_scipion():
    assert offenders({name: roots(imports(name)) & SCIPION for name in ENGINE}) == {}


def test_nothing_imports_the_command_line():
    assert offenders({name: own(imports(name)) & set(COMMANDS) for name in REST}) == {}


def loaded_with(name: str) -> Set[str]:
    """Return the modules of ours that are imported with one at start, itself and their packages included."""
    seen: Set[str] = set()
    todo = [name]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            found = own(imports(module, inside_functions=False))
            todo += [m for m in found | own(m.rpartition(".")[0] for m in found) if m in ENGINE]
    return seen


def test_command_line_imports_no_numpy_and_no_torch_at_start():
    heavy = {"numpy", "scipy", "torch", "lightning", "matplotlib", "mrcfile"}
    loaded = set().union(*map(loaded_with, COMMANDS))
    assert offenders({name: roots(imports(name, inside_functions=False)) & heavy for name in loaded}) == {}
    assert loaded > {*COMMANDS, "deepetpicker.config", "deepetpicker.errors"}


def test_only_what_trains_waits_for_lightning():
    """It takes seconds to import; ``propose`` trains with a density map alone."""
    others = ["picking", "proposing", "checking", "report", "simulation", "benchmarking"]
    found = {name: loaded_with(f"deepetpicker.{name}.run") for name in [*others, "training"]}
    heavy = {name: [one for one in loaded if "lightning" in roots(imports(one, inside_functions=False))]
             for name, loaded in found.items()}
    assert list(offenders(heavy)) == ["training"]


OPTIONAL = {"dask", "distributed", "dask_jobqueue", "cryptography", "bokeh"}


def test_what_only_clusters_need_is_imported_by_nothing_at_start():
    assert offenders({name: roots(imports(name, inside_functions=False)) & OPTIONAL for name in ENGINE}) == {}
    later = offenders({name: roots(imports(name)) & OPTIONAL for name in ENGINE})
    assert later
    assert [name for name in later if not name.startswith("deepetpicker.picking.cluster")] == []


def room(name: str) -> str:
    """Return the room a module stands in, "" for the ground floor."""
    part = name.split(".")[1] if "." in name else ""
    return "" if is_base(name) else part


def test_rooms_import_along_the_arrows():
    allowed = {name: {"", room(name), *ROOMS.get(room(name), set())} for name in REST}
    assert offenders({name: [other for other in own(imports(name)) if room(other) not in allowed[name]]
                      for name in REST}) == {}


def test_rooms_are_listed_and_not_crowded():
    modules = [name for name in ENGINE if not is_base(name)]
    assert {room(name) for name in modules} == {*ROOMS, "cli", "__main__"}
    folders = collections.Counter(path.parent for path in FILES.values() if path.name != "__init__.py")
    for folder in ("engine/deepetpicker/cli", "deepetpicker_plugin/protocols", "deepetpicker_plugin/tests"):
        del folders[ROOT / folder]  # a module per verb, per protocol, per promise
    assert {str(folder): n for folder, n in folders.items() if n > 12} == {}
    ground = {name.split(".")[1] for name in ENGINE if is_base(name) and "." in name}
    assert ground == {name.split(".")[1] for name in BASE}


def test_figures_import_only_base_and_numpy_at_start():
    for name in FIGURES:
        found = imports(name, inside_functions=False)
        assert [o for o in own(found) if not plugin_may(o)] == [], name
        assert not roots(found) & (roots(TORCH) | {"scipy", "matplotlib"}), name


def test_windows_import_only_base_figures_numpy_and_tkinter_at_start():
    found = {name: imports(name, inside_functions=False) for name in ENGINE if is_windows(name)}
    assert len(found) > 15
    assert offenders({name: [o for o in own(names) if not plugin_may(o)] for name, names in found.items()}) == {}
    heavy = {"torch", "lightning", "scipy", "matplotlib", "PIL"}
    assert offenders({name: roots(names) & heavy for name, names in found.items()}) == {}


def test_plugin_imports_only_base_figures_windows_and_no_torch():
    beyond = {name: [other for other in own(imports(name)) if not plugin_may(other)] for name in PLUGIN}
    assert {name: found for name, found in beyond.items() if found} == {}, "the plugin exchanges files with the engine"
    assert [name for name in PLUGIN if roots(imports(name)) & roots(TORCH)] == []


@pytest.mark.parametrize("modules", [ENGINE, PLUGIN], ids=["deepetpicker", "deepetpicker_plugin"])
def test_no_import_cycle(modules: Dict[str, pathlib.Path]):
    """Not by an import inside a function either, which would only hide that neither can be without the other."""
    edges = {name: imports(name) & set(modules) - {name} for name in modules}
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


@functools.lru_cache(maxsize=None)
def names_of(module: str) -> FrozenSet[str]:
    """Return the names that a module of ours binds outside its functions and classes."""
    names: Set[str] = set()
    nodes: List[ast.AST] = list(tree_of(FILES[module]).body)
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name):
            names.add(node.id)
        else:
            nodes.extend(ast.iter_child_nodes(node))
    return frozenset(names)


def missing_in(tree: ast.Module) -> Iterator[str]:
    """Yield what a script or a test imports from us and is not there."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] not in FOLDERS:
            continue
        if node.module not in FILES:
            yield f"line {node.lineno}: there is no {node.module}"
            continue
        known = names_of(node.module)
        yield from (f"line {node.lineno}: {node.module} has no {alias.name}" for alias in node.names
                    if not {alias.name, "__getattr__"} & known and f"{node.module}.{alias.name}" not in FILES)


@pytest.mark.long
def test_what_scripts_and_tests_import_from_us_exists():
    """What mypy does not see: a function that moves takes its users along."""
    wrong = "from deepetpicker.errors import InputError, Nothing\nfrom deepetpicker.nowhere import InputError"
    assert list(missing_in(ast.parse(wrong))) == ["line 1: deepetpicker.errors has no Nothing",
                                                  "line 2: there is no deepetpicker.nowhere"]
    assert offenders({str(path.relative_to(ROOT)): list(missing_in(tree_of(path))) for path in SCRIPTS}) == {}
    assert len(SCRIPTS) > 120


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
    found = {path.name: [name for name in replaced(tree_of(path)) if "._" in name.replace("__", "")
                         and not name.endswith(theirs)] for path in paths}
    assert len(paths) > 100
    assert offenders(found) == {}


def test_no_drawer_for_odds_and_ends():
    drawers = ("utils", "util", "helpers", "misc", "common")
    assert [name for name in [*ENGINE, *PLUGIN] if name.rpartition(".")[2] in drawers] == []


def undocumented(tree: ast.Module) -> List[str]:
    """Return what is public in a module and has no docstring, the module itself included."""
    missing = [] if ast.get_docstring(tree) else ["the module"]
    todo = [("", tree)]
    while todo:
        prefix, parent = todo.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name[0] != "_":
                if not ast.get_docstring(node):
                    missing.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    todo.append((f"{prefix}{node.name}.", node))
    return missing


def test_everything_public_is_documented():
    example = "def f():\n    def inside(): ...\nclass A:\n    '''Of A.'''\n    def g(self): ...\ndef _h(): ..."
    assert undocumented(ast.parse(example)) == ["the module", "f", "A.g"]
    found = {name: undocumented(tree_of(FILES[name])) for name in [*ENGINE, *PLUGIN] if ".tests" not in name}
    assert offenders(found) == {}, "these have no docstring"


def newer_than_3_8(path: pathlib.Path) -> List[str]:
    """Return what a module has that Python 3.8 does not know; syntax that it does not know is an error."""
    tree = ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 8))
    annotated = any(isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation for node in ast.walk(tree))
    future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    newer = [str(kw.arg) for node in ast.walk(tree) if isinstance(node, ast.Call)
             for kw in node.keywords if kw.arg in ("slots", "kw_only", "strict")
             and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("dataclass", "zip", "field")]
    return newer if future or not annotated else ["begin with: from __future__ import annotations", *newer]


def test_base_windows_and_plugin_are_python_3_8(tmp_path: pathlib.Path):
    (tmp_path / "new.py").write_text("def f(a: int): return zip(a, a, strict=True)", "utf-8")
    assert newer_than_3_8(tmp_path / "new.py") == ["begin with: from __future__ import annotations", "strict"]
    found = {n: newer_than_3_8(FILES[n]) for n in FILES if is_base(n) or is_windows(n) or n in PLUGIN}
    assert offenders(found) == {}
    assert len(found) > 100
