"""The rules of the house that a program can check: who imports whom, how long things are, options with one value."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("sam2", "sam2_ros", "test", "benchmarks", "launch")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.parent not in (ROOT / "sam2_ros" / "msg", ROOT / "sam2_ros" / "srv")  # generated
]
MAX_LINES, MAX_FUNCTION_LINES, MAX_ARGUMENTS = 300, 60, 8
OFFICIAL_SIGNATURES = {  # options of the official API, kept so that existing calls run
    ("build_sam2_video_predictor", "vos_optimized"),
}
OFFICIAL_CONSTRUCTORS = {"SAM2AutomaticMaskGenerator"}  # whose arguments are as many as upstream's


def imported_modules(source: str) -> set[str]:
    """Every module named by an import anywhere in the source, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level)
    return names


def ros_imports(source: str) -> set[str]:
    """Imports that nothing under sam2/ may have."""
    return {
        name
        for name in imported_modules(source)
        for top in [name.split(".")[0]]
        if top in ("rclpy", "sam2_ros") or top.startswith("ament_") or top.endswith("_msgs")
    }


def attributes_of(module: str, source: str) -> set[str]:
    """What is read of an imported module, under whatever name it was imported: `module.name`."""
    tree = ast.parse(source)
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    local = {alias.asname or module for alias in imports if alias.name == module or alias.name.startswith(f"{module}.")}
    return {
        f"{module}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in local
    }


def model_imports(source: str, public_names: set[str]) -> set[str]:
    """What nothing under sam2_ros/ may use: torch, and anything of sam2 but its public names."""
    return {
        name
        for name in imported_modules(source) | attributes_of("sam2", source)
        if name.split(".")[0] == "torch"
        or name.startswith("sam2.")
        and (name.count(".") > 1 or name.split(".")[1] not in public_names)
    }


def public_names() -> set[str]:
    """What `from sam2 import X` gives that is no module."""
    import sam2

    modules = {path.stem for path in (ROOT / "sam2").iterdir()}
    return {name for name in sam2.__all__ if name not in modules}  # `dir` has no name that is loaded when asked for


def long_functions(source: str) -> dict[str, int]:
    """Lines of every function beyond the limit."""
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    return {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES}


def wide_constructors(source: str) -> dict[str, int]:
    """Number of arguments of every `__init__` beyond the limit, self not counted."""
    found = {}
    for cls in ast.walk(ast.parse(source)):
        if isinstance(cls, ast.ClassDef):
            for node in cls.body:
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    count = len(node.args.args) - 1 + len(node.args.kwonlyargs)
                    if count > MAX_ARGUMENTS:
                        found[cls.name] = count
    return found


def unused_arguments(source: str) -> set[tuple[str, str]]:
    """(function, argument with a default) where the body never reads it: an option that changes nothing."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef):
            continue
        with_default = node.args.args[len(node.args.args) - len(node.args.defaults) :]
        with_default += [a for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        read = {n.id for statement in node.body for n in ast.walk(statement) if isinstance(n, ast.Name)}
        found |= {(node.name, argument.arg) for argument in with_default if argument.arg not in read}
    return found


def names(paths) -> list:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.mark.parametrize("path", names(p for p in SOURCES if p.is_relative_to(ROOT / "sam2")))
def test_the_model_knows_nothing_of_ros(path):
    assert not ros_imports(path.read_text())


@pytest.mark.parametrize("path", names(p for p in SOURCES if p.is_relative_to(ROOT / "sam2_ros")))
def test_the_node_knows_only_public_names_of_the_model(path):
    assert not model_imports(path.read_text(), public_names())


@pytest.mark.parametrize("path", names(SOURCES))
def test_sizes(path):
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_LINES
    assert not long_functions(source)
    assert wide_constructors(source).keys() <= OFFICIAL_CONSTRUCTORS


@pytest.mark.parametrize("path", names(p for p in SOURCES if p.parent.name == "sam2"))
def test_no_option_without_effect(path):
    assert unused_arguments(path.read_text()) <= OFFICIAL_SIGNATURES


def test_no_option_with_a_single_value():
    """Every field of the table of variants has at least two values there, or it should be a constant."""
    from sam2.config import CONFIGS

    values = defaultdict(set)
    for config in CONFIGS.values():
        for field, value in vars(config).items():
            values[field].add(value)
    assert not [field for field, seen in values.items() if len(seen) == 1]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import rclpy", {"rclpy"}),
        ("def f():\n    from sensor_msgs.msg import Image", {"sensor_msgs.msg", "sensor_msgs.msg.Image"}),
        ("import ament_index_python", {"ament_index_python"}),
        ("from sam2_ros import node", {"sam2_ros", "sam2_ros.node"}),
        ("import torch\nfrom sam2 import masks", set()),
    ],
)
def test_ros_imports_are_seen(source, found):
    assert ros_imports(source) == found


@pytest.mark.parametrize(
    ("source", "is_allowed"),
    [
        ("import sam2", True),
        ("from sam2 import Tracker", True),
        ("import torch", False),
        ("def f():\n    import torch.nn as nn", False),
        ("from sam2 import masks", False),
        ("from sam2.masks import label_mask", False),
        ("import sam2.types", False),
        ("from . import node", True),
        ("import sam2\ntracker = sam2.Tracker", True),
        ("import sam2\nsam2.masks.upsample_logits(1)", False),
        ("import sam2 as s\ndef f(): return s.masks", False),
    ],
)
def test_model_imports_are_seen(source, is_allowed):
    assert (model_imports(source, {"Tracker"}) == set()) is is_allowed


def test_sizes_are_seen():
    assert long_functions("def f():\n" + "    pass\n" * MAX_FUNCTION_LINES) == {"f": MAX_FUNCTION_LINES + 1}
    wide = "class A:\n    def __init__(self, a, b, c, d, e, f, g, h, *, i): pass"
    assert wide_constructors(wide) == {"A": 9}
    assert unused_arguments("def f(a, b=1, *, c=2): return a + b") == {("f", "c")}
