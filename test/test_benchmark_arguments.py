"""What a benchmark cannot do with its arguments is a sentence and exit code 2, before anything is measured."""

import importlib
import os
import sys

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

pytestmark = pytest.mark.ros

WHOLE = "expected a whole number of at least 1, got "
MISTAKES = [
    ("approximate", "--frames 0", WHOLE),
    ("approximate", "--clips 0", WHOLE),
    ("approximate", "--speed huge", "model 'huge': expected one of nano"),
    ("approximate", "--likeness huge", "model 'huge': expected one of nano"),
    ("cameras", "--rate 0", "expected a number above 0, got '0'"),
    ("cameras", "--seconds nan", "expected a number above 0, got 'nan'"),
    ("cameras", "--model huge", "model 'huge'"),
    ("corrections", "--clips -1", WHOLE),
    ("corrections", "--model huge", "model 'huge'"),
    ("depth", "--worlds 0", WHOLE),
    ("depth", "--frames few", WHOLE),
    ("depth", "--model huge", "model 'huge'"),
    ("hand_off", "--frames 0", WHOLE),
    ("model", "--variants nano huge", "model 'huge'"),
    ("node", "--images 0", WHOLE),
    ("node", "--rate -5", "expected a number above 0, got '-5'"),
    ("node", "--model huge", "model 'huge'"),
    ("savings", "--objects 0", WHOLE),
    ("savings", "--turns 0", WHOLE),
    ("savings", "--threads 0", WHOLE),
    ("savings", "--model huge", "model 'huge'"),
    ("stream", "--objects 1 0", WHOLE),
    ("stream", "--frames 0", WHOLE),
    ("stream", "--model huge", "model 'huge'"),
]


@pytest.fixture
def benchmark(monkeypatch):
    """Loads a benchmark that was started with these words."""

    def load(name, words):
        monkeypatch.setattr(sys, "argv", [name, *words.split()])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(os, "environ", dict(os.environ))
        return importlib.import_module(f"benchmarks.{name}")

    return load


@pytest.mark.parametrize(("name", "words", "said"), MISTAKES)
def test_a_mistake_is_a_sentence_with_exit_code_2(benchmark, capsys, name, words, said):
    with pytest.raises(SystemExit) as ended:
        benchmark(name, words).main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and f"argument {words.split()[0]}: {said}" in line


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("--model fake", "node_fake.md"),
        ("--images 5", None),
        ("--images 5 --out {}/mine.md", "mine.md"),
        ("--out {}/mine.md", "mine.md"),
    ],
)
def test_the_recorded_results_of_the_node_are_of_its_usual_number_of_images(
    benchmark, tmp_path, monkeypatch, words, written
):
    node = benchmark("node", words.format(tmp_path))
    monkeypatch.setattr(node, "RESULTS", tmp_path)
    monkeypatch.setattr(node, "measure", lambda args, size_hw: (f"{size_hw[1]} wide", True))
    assert node.main() == 0
    assert [path.name for path in tmp_path.iterdir()] == [written] * bool(written)
    assert not written or "    640 wide\n    1280 wide\n" in (tmp_path / written).read_text()
