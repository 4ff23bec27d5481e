"""The pages of docs/ are true: parameters, topics, services and files they name are there."""

import ast
import builtins
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

import sam2  # noqa: E402
from sam2_ros.params import FIELDS, refusal  # noqa: E402
from sam2_ros.save_folder import saved_path  # noqa: E402

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").glob("*.md"))
TESTS = "".join(path.read_text() for path in ROOT.glob("test/*.py"))
FOREIGN = {"get_state"}  # rclpy's own


def known_names() -> set[str]:
    """Topics and services of the node's tables in the README."""
    return set(re.findall(r"`~/([a-z_/]+)`", README))


def wrong_names(text: str) -> set[str]:
    """Of /sam2/<name> and ~/<name>, those that the node does not have; a camera's name may come first."""
    named = {name.rstrip("/") for name in re.findall(r"(?:/sam2|~)/((?:[a-z_]+/?)+)", text)}
    named = {re.sub(r"^(front|wrist)(/|$)", "", name) for name in named} - {""}
    return named - known_names() - FOREIGN


def settings_in(text: str) -> dict:
    """What the page's YAML gives the node."""
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    return {name: v for b in blocks for name, v in b.get("/sam2", {}).get("ros__parameters", {}).items()}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_names_only_what_there_is(path):
    text = path.read_text()
    assert wrong_names(text) == set()
    for name, value in settings_in(text).items():
        assert name in FIELDS and refusal(name, value) == "", name
        assert type(value) is (list if isinstance(FIELDS[name].default, tuple) else type(FIELDS[name].default)), name
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (path.parent / link).exists(), link
    for named in re.findall(r"`(test/\w+\.py)`", text):
        assert (ROOT / named).exists(), named
    for named in re.findall(r"`(test_\w+)`", text):
        assert f"\ndef {named}(" in TESTS, named
    for kind, name in re.findall(r"sam2_ros/(msg|srv)/(\w+)", text):
        assert (ROOT / kind / f"{name}.{kind}").exists(), name
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 130


def names_from_nowhere(code: str) -> set[str]:
    """Names that the code uses, but neither imports nor defines."""
    nodes = list(ast.walk(ast.parse(code)))
    made = {
        a.asname or a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names
    }
    made |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    made |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    names = [n for n in nodes if isinstance(n, ast.Name)]
    made |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return {n.id for n in names} - made - set(dir(builtins))


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_a_program_can_be_copied_whole(path):
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        assert names_from_nowhere(code) == set()


def test_names_from_nowhere_are_found():
    assert names_from_nowhere("import a.b\ndef f(x):\n    return a.b(x, len(y))\nz = f(z2)") == {"y", "z2"}


def test_wrong_names_are_found():
    assert wrong_names("`/sam2/tracks` /sam2/front/prompts ~/nothing /sam2/other") == {"nothing", "other"}


@pytest.mark.parametrize("page", ["README.md", "docs/own_node.md", "docs/moveit.md"])
def test_the_first_click_is_on_a_thing(page):
    """The simulator's world is still then. The README's click is for the launch file, too."""
    text, launch = (ROOT / page).read_text(), (ROOT / "launch/demo.launch.py").read_text()
    (seed,) = re.findall(r"simulate --gentle --seed (\d+) --still 60 &", text)
    assert f'"seed": ("{seed}", ' in launch and '"still": ("60.0", ' in launch
    x, y = re.search(r"(?:--click |points_xy, prompt.point_labels = \[)(\d+)(?:\.0,)? (\d+)", text).groups()
    assert sam2.World.gentle(int(seed), (480, 640)).frame(0).masks[:, int(y), int(x)].any()


def test_the_readme_names_every_page():
    assert {path.name for path in PAGES} <= set(re.findall(r"docs/(\w+\.md)", README))


def test_the_page_on_cameras_names_the_folder_that_save_writes_to():
    folder = saved_path("/saved", node="", camera="front", name="kitchen").parent.name
    assert f"subfolder `{folder}`" in (ROOT / "docs" / "cameras.md").read_text()
