"""docs/faults.md is true: 74 rows, each with tests that exist, and none of them skipped without a reason."""

import ast
import functools
import re
from pathlib import Path

import pytest

TEST = Path(__file__).parent
PAGE = TEST.parent / "docs" / "faults.md"
ROW = re.compile(r"^\| (\d+) \|(.+?)\|(.+?)\|(.*?)\|(.*?)\|$", re.MULTILINE)
SKIPS = ("skip", "skipif", "xfail", "importorskip")
EVERYWHERE = ("rclpy", "torch")  # what every machine has that this page is about


def rows(text: str) -> dict[int, list[str]]:
    """Tests by number of the row."""
    return {int(number): re.findall(r"`(\w+\.py::\w+)`", tests) for number, _, _, tests, _ in ROW.findall(text)}


def needs(text: str) -> dict[int, str]:
    return {int(number): need.strip() for number, _, _, _, need in ROW.findall(text)}


def skips(tree: ast.AST) -> list[ast.Call | ast.Attribute]:
    """Every pytest.skip, importorskip, mark.skip, mark.skipif and mark.xfail under a node, called or not."""
    called = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _last_name(n.func) in SKIPS]
    bare = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in SKIPS]
    found = called + [n for n in bare if not any(n is call.func for call in called)]
    return [skip for skip in found if module_asked_for(skip) not in EVERYWHERE]


def _last_name(called: ast.AST) -> str:
    return getattr(called, "attr", getattr(called, "id", ""))


def module_asked_for(skip: ast.AST) -> str:
    """The module without which an importorskip skips; "" for any other skip."""
    if not (isinstance(skip, ast.Call) and _last_name(skip.func) == "importorskip" and skip.args):
        return ""
    return getattr(skip.args[0], "value", "?")


def has_reason(skip: ast.AST) -> bool:
    if not isinstance(skip, ast.Call):
        return False
    words = {keyword.arg: keyword.value for keyword in skip.keywords}
    positional = skip.args if _last_name(skip.func) == "skip" else []
    reason = words.get("reason", positional[0] if positional else None)
    return isinstance(reason, (ast.Constant, ast.JoinedStr)) and getattr(reason, "value", "?") != ""


class Module:
    """A file of tests or of their helpers: its functions, classes and constants by name, and what runs when it is
    imported, of which `pytestmark` is a part."""

    def __init__(self, path: Path) -> None:
        self.named, self.at_import, self.imported = {}, [], {}
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.named[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not _always_runs(node):
                self.named[node.targets[0].id] = node
            else:
                self.at_import.append(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                self.imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                self.imported |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}


def _always_runs(assigned: ast.Assign) -> bool:
    """Unlike a mark that is made for those tests that name it."""
    asks = any(_last_name(n.func) == "importorskip" for n in ast.walk(assigned) if isinstance(n, ast.Call))
    return asks or assigned.targets[0].id == "pytestmark"


@functools.cache
def module_at(path: Path) -> Module:
    return Module(path)


@functools.cache
def read_in(part: ast.AST) -> tuple[set[str], list[ast.AST], set[str]]:
    """The names in a piece of code, arguments too (they may be fixtures), its skips, and the modules it imports."""
    nodes = list(ast.walk(part))
    names = {n.id for n in nodes if isinstance(n, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    modules = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
    modules |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return names, skips(part), modules


def reached(folder: Path, module: str, name: str, done: set) -> list[ast.AST]:
    """The skips in what runs for a test: itself, the fixtures and helpers of ours that it names, what those name, and
    so on, and what runs when the files with these are imported. done: what has been looked at, by module and name."""
    path = folder / f"{module}.py"
    if (module, name) in done or not path.exists():
        return []
    done.add((module, name))
    here = module_at(path)
    parts = [*here.at_import, *filter(None, [here.named.get(name)])]
    found = [skip for part in parts for skip in read_in(part)[1]]
    for other in {other for part in parts for other in read_in(part)[0]} - {name}:
        where = (module, other) if other in here.named else here.imported.get(other, ("conftest", other))
        found += reached(folder, *where, done)
    for imported in {module for part in parts for module in read_in(part)[2]}:
        found += reached(folder, imported, "", done)
    return found


def complaint(name: str, folder: Path = TEST) -> str:
    """What is wrong with a test that a row names; "" if nothing."""
    file, test = name.split("::")
    if not (folder / file).exists():
        return f"there is no {file}"
    if not isinstance(module_at(folder / file).named.get(test), ast.FunctionDef | ast.ClassDef):
        return f"there is no {name}"
    if not all(map(has_reason, skips_of(name, folder))):
        return f"{name} is skipped without a reason"
    return ""


def skips_of(name: str, folder: Path = TEST) -> list[ast.AST]:
    file, test = name.split("::")
    return reached(folder, file.removesuffix(".py"), test, set())


def is_conditional(name: str) -> bool:
    return bool(skips_of(name))


def test_every_row_is_there_and_has_a_test():
    table = rows(PAGE.read_text())
    assert list(table) == list(range(1, 75))
    assert not [number for number, tests in table.items() if not tests]


@pytest.mark.parametrize("number, tests", rows(PAGE.read_text()).items())
def test_the_tests_of_a_row(number, tests):
    assert not list(filter(None, map(complaint, tests)))


def test_what_needs_hardware_is_said():
    table, said = rows(PAGE.read_text()), needs(PAGE.read_text())
    assert [n for n, tests in table.items() if any(map(is_conditional, tests))] == [n for n in said if said[n]]
    only = [n for n, tests in table.items() if all(map(is_conditional, tests)) and "middlewares" not in said[n]]
    assert only == [n for n in said if "**only**" in said[n]]


def test_modules_that_are_not_everywhere_are_named():
    table, said = rows(PAGE.read_text()), needs(PAGE.read_text())
    asked = {
        n: {module_asked_for(skip) for test in tests for skip in skips_of(test)} - {""} for n, tests in table.items()
    }
    assert asked[49] == {"launch_ros"}
    assert not [(n, module) for n, modules in asked.items() for module in modules if module not in said[n]]


def test_the_count_of_what_is_executed():
    text = PAGE.read_text()
    only = [n for n, need in needs(text).items() if "**only**" in need or "middlewares" in need]
    part = [n for n, need in needs(text).items() if need and n not in only]
    words = " ".join(text.split())
    assert f"74 rows {74 - len(only) - len(part)} are executed whole" in words
    assert f"{len(part)} in part ({', '.join(map(str, part[:-2]))} and {part[-2]} have" in words
    assert f"{part[-1]} one that needs sros2) and {len(only)} only" in words
    assert all(re.search(rf"\b{number} \(", words) for number in only)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("def test_a(): pass", ""),
        ("def test_b(): pass", "no test_x.py::test_a"),
        ("@pytest.mark.skip\ndef test_a(): pass", "without a reason"),
        ("@pytest.mark.skip()\ndef test_a(): pass", "without a reason"),
        ("@pytest.mark.skipif(True, reason='')\ndef test_a(): pass", "without a reason"),
        ("@pytest.mark.skipif(True, reason='no GPU')\ndef test_a(): pass", ""),
        ("pytestmark = pytest.mark.skipif(True)\ndef test_a(): pass", "without a reason"),
        ("def test_a():\n    pytest.skip(f'{rmw} is missing')", ""),
        ("def test_a():\n    pytest.skip()", "without a reason"),
        ("def test_a():\n    pytest.importorskip('no_such_module')", "without a reason"),
        ("import pytest\npytest.importorskip('no_such_module')\ndef test_a(): pass", "without a reason"),
        ("import pytest\npytest.importorskip('rclpy')\ndef test_a(): pass", ""),
        ("def test_a():\n    pytest.importorskip('odd', reason='it has no wheel')", ""),
        ("def load():\n    return pytest.importorskip('odd')\ndef test_a():\n    load()", "without a reason"),
        ("from helper import load\ndef test_a():\n    load()", "without a reason"),
        ("import helper_that_asks\ndef test_a(): pass", "without a reason"),
        ("def test_a(asking): pass", "without a reason"),
        ("gpu = pytest.mark.skipif(True)\n@gpu\ndef test_a(): pass", "without a reason"),
        ("gpu = pytest.mark.skipif(True)\ndef test_a(): pass", ""),
    ],
)
def test_a_row_that_is_not_true_is_seen(source, wrong, tmp_path):
    (tmp_path / "test_x.py").write_text(source)
    (tmp_path / "helper.py").write_text("def load():\n    return pytest.importorskip('odd')")
    (tmp_path / "helper_that_asks.py").write_text("odd = pytest.importorskip('odd')")
    (tmp_path / "conftest.py").write_text("@pytest.fixture\ndef asking():\n    pytest.importorskip('odd')")
    said = complaint("test_x.py::test_a", tmp_path)
    assert wrong in said and bool(said) == bool(wrong)
    assert complaint("test_nowhere.py::test_a", tmp_path) == "there is no test_nowhere.py"


def test_a_row_without_a_test_is_seen():
    assert rows("| 7 | fault | what | | |\n| 8 | fault | what | `test_x.py::test_a` | |") == {
        7: [],
        8: ["test_x.py::test_a"],
    }
