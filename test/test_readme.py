"""The README is true: its map names every source file and nothing else, and its parameter table is the node's."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from sam2_ros.params import FIELDS  # noqa: E402

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ROOMS = ("sam2", "sam2/training", "sam2_ros", "benchmarks")


def mapped() -> dict[str, set[str]]:
    """File names by folder, as the README's map has them."""
    tree = README.split("## The map")[1].split("```")[1]
    rooms, room = {}, ""
    for line in tree.strip().splitlines():
        if not line.startswith(" "):
            room = line.split()[0].rstrip("/")
        elif line.split()[0].endswith(".py"):
            rooms.setdefault(room, set()).add(line.split()[0])
    return rooms


@pytest.mark.parametrize("room", ROOMS)
def test_map_names_every_file(room):
    present = {path.name for path in (ROOT / room).glob("*.py")} - ({"__init__.py"} if room != "sam2" else set())
    assert mapped()[room] == present


def test_map_lines_are_short():
    tree = README.split("## The map")[1].split("```")[1]
    assert max(map(len, tree.splitlines())) <= 100


def test_the_page_of_the_benchmarks_has_every_script():
    scripts = [path for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text()]
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert len(scripts) > 10
    missing = [
        p.name for p in scripts if not re.search(rf"`python (-m benchmarks\.{p.stem}|benchmarks/{p.name})\b", page)
    ]
    assert missing == []


def parameter_rows() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([\w.]+)`( \(live\))? \| (\w+) \| (.*?) \| (.*?) \| (.*) \|$", README, re.MULTILINE)
    return {name: [live, kind, default, span, text] for name, live, kind, default, span, text in rows}


def test_parameter_table_is_complete():
    assert list(parameter_rows()) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_parameter_row(name):
    field = FIELDS[name]
    live, kind, default, span, text = parameter_rows()[name]
    assert default == json.dumps(field.default) and kind == type(json.loads(default)).__name__
    assert bool(live) == field.metadata["live"] and text == field.metadata["sentence"]
    for word in (*field.metadata["choices"], *field.metadata["span"], field.metadata["unit"]):
        assert str(word) in span
