"""What goes wrong with a GPU only: its memory, its context, its first image. Skipped where there is none."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_mutations import around
from small_stream import click, frame, small_model

import sam2
from sam2 import graphs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
DEVICE_LOST = """
import torch, sam2, numpy
tracker = sam2.Tracker(sam2.load_model("nano", device="cuda"))
image = sam2.Frame(numpy.zeros((240, 320, 3), numpy.uint8))
tracker.step(image, [sam2.Prompt("a", points_xy=[(9, 9)], labels=[1])])
index = torch.full((1,), 7, device="cuda")
try:
    torch.zeros(3, device="cuda")[index].sum().item()
except RuntimeError:
    pass
try:
    tracker.step(image)
except sam2.DeviceLost as error:
    print("lost:", error)
"""


@pytest.fixture
def little_memory():
    """A share of the GPU that a network does not fit into; given back afterwards."""
    torch.cuda.empty_cache()
    yield lambda share: torch.cuda.set_per_process_memory_fraction(share)
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def nano_on_gpu() -> sam2.Tracker:
    return sam2.Tracker(sam2.load_model("nano", device="cuda"))


def test_out_of_memory_in_one_step_changes_nothing(little_memory):
    tracker = sam2.Tracker(copy.deepcopy(small_model()).cuda())  # that one is shared by the tests
    tracker.step(frame(0), [click("a")])
    little_memory(1e-9)
    torch.cuda.empty_cache()
    with pytest.raises(sam2.OutOfMemory):
        tracker.step(sam2.Frame(np.zeros((4000, 4000, 3), np.uint8), 10**12))
    little_memory(1.0)
    assert [track.object_id for track in tracker.step(frame(1))] == ["a"]


def test_out_of_memory_while_loading_is_said_and_the_next_try_works(little_memory):
    little_memory(1e-9)
    with pytest.raises(sam2.OutOfMemory):
        nano_on_gpu()
    little_memory(1.0)
    assert nano_on_gpu().object_ids == []


def test_a_forced_assert_on_the_device_is_a_lost_device():
    path = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", DEVICE_LOST], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("lost:"), done.stdout + done.stderr


def test_the_first_image_is_not_the_slow_one(monkeypatch):
    """A capture costs as much as some ten runs, and all of them are done in the warm-up. Not yet run on a GPU."""
    captured = []
    around(
        monkeypatch,
        graphs.CudaGraph,
        "__init__",
        lambda original, self, *args, **kwargs: captured.append(self) or original(self, *args, **kwargs),
    )
    tracker = nano_on_gpu()
    tracker.warm_up()
    assert len(captured) == 6, "encoding, looking, and tracking four objects, three, two, one"
    for n in range(20):
        prompts = [sam2.Prompt("a", points_xy=[(320, 240)], labels=[1])] if n == 0 else []
        tracker.step(sam2.Frame(np.zeros((480, 640, 3), np.uint8), n + 1), prompts)
        assert len(captured) == 6, f"image {n} had to be captured"


def test_twenty_loads_leave_the_gpu_as_it_was():
    def load() -> int:
        nano_on_gpu()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    before = load()
    assert [load() for _ in range(20)] == [before] * 20
