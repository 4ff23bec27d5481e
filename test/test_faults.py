"""docs/faults.md is true: 74 rows, each with tests that exist, and none of them skipped without a reason."""

import ast
import re
from pathlib import Path

import pytest

TEST = Path(__file__).parent
PAGE = TEST.parent / "docs" / "faults.md"
ROW = re.compile(r"^\| (\d+) \|(.+?)\|(.+?)\|(.*?)\|(.*?)\|$", re.MULTILINE)
SKIPS = ("skip", "skipif", "xfail")


def rows(text: str) -> dict[int, list[str]]:
    """Tests by number of the row."""
    return {int(number): re.findall(r"`(\w+\.py::\w+)`", tests) for number, _, _, tests, _ in ROW.findall(text)}


def needs(text: str) -> dict[int, str]:
    return {int(number): need.strip() for number, _, _, _, need in ROW.findall(text)}


def skips(tree: ast.AST) -> list[ast.Call | ast.Attribute]:
    """Every pytest.skip, mark.skip, mark.skipif and mark.xfail under a node, called or not."""
    called = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") in SKIPS]
    bare = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in SKIPS]
    return called + [n for n in bare if not any(n is call.func for call in called)]


def has_reason(skip: ast.AST) -> bool:
    if not isinstance(skip, ast.Call):
        return False
    words = {keyword.arg: keyword.value for keyword in skip.keywords}
    positional = skip.args if skip.func.attr == "skip" else []
    reason = words.get("reason", positional[0] if positional else None)
    return isinstance(reason, (ast.Constant, ast.JoinedStr)) and getattr(reason, "value", "?") != ""


def find(source: str, name: str) -> tuple[ast.AST | None, list[ast.AST]]:
    """The test or state machine of that name, with what the whole module is marked with."""
    body = ast.parse(source).body
    found = [n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name]
    marks = [n for n in body if isinstance(n, ast.Assign) and "pytestmark" in ast.dump(n.targets[0])]
    return (found[0] if found else None), marks


def complaint(name: str, folder: Path = TEST) -> str:
    """What is wrong with a test that a row names; "" if nothing."""
    file, test = name.split("::")
    if not (folder / file).exists():
        return f"there is no {file}"
    found, marks = find((folder / file).read_text(), test)
    if found is None:
        return f"there is no {name}"
    if not all(has_reason(skip) for part in [found, *marks] for skip in skips(part)):
        return f"{name} is skipped without a reason"
    return ""


def is_conditional(name: str) -> bool:
    found, marks = find((TEST / name.split("::")[0]).read_text(), name.split("::")[1])
    return any(skips(part) for part in [found, *marks])


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
    ],
)
def test_a_row_that_is_not_true_is_seen(source, wrong, tmp_path):
    (tmp_path / "test_x.py").write_text(source)
    said = complaint("test_x.py::test_a", tmp_path)
    assert wrong in said and bool(said) == bool(wrong)
    assert complaint("test_nowhere.py::test_a", tmp_path) == "there is no test_nowhere.py"


def test_a_row_without_a_test_is_seen():
    assert rows("| 7 | fault | what | | |\n| 8 | fault | what | `test_x.py::test_a` | |") == {
        7: [],
        8: ["test_x.py::test_a"],
    }
