"""oneDNN keeps a compiled kernel for every shape of every product, as long as the process lives. So there are few."""

import re

import pytest
import torch

import sam2
from sam2 import linear
from sam2.attention import RotaryAttention, average
from sam2.frame_step import batches

pytestmark = pytest.mark.skipif(not linear._HAS_ONEDNN, reason="products go through oneDNN on x86-64 only")


@pytest.fixture
def shapes(capfd):
    """Called with a function, it runs that and returns what kernels oneDNN was asked for."""

    def run(function) -> set[str]:
        capfd.readouterr()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION), torch.inference_mode():
            function()
        asked = re.findall(r"create:cache_\w+,cpu,(.*),[\d.e-]+$", capfd.readouterr().out, re.MULTILINE)
        assert asked, "oneDNN does not say what it makes"
        return set(asked)

    return run


def test_attention_to_any_number_of_pointers_and_objects_makes_few_kernels(shapes):
    """Measured: 20, and 242 without splitting and padding."""
    attention, q = RotaryAttention(32, 16), torch.randn(1, 256, 32)

    def attend():
        for num_objects in (1, 2, 3):
            for num_grids in (4, 5, 6):
                for num_pointers in range(4, 68, 4):
                    memory = torch.randn(num_objects, num_grids * 256 + num_pointers, 16)
                    attention(q, memory, memory, num_pointers)

    assert len(shapes(attend)) <= 24


@torch.inference_mode()
def test_keys_that_are_projected_in_parts_are_the_same():
    attention, table = RotaryAttention(32, 16), torch.polar(torch.ones(64, 16), torch.randn(64, 16))
    k = torch.randn(3, 2 * 64 + 5, 16)
    expected = attention._rotate_grids(attention.k_proj(k), table, 5)
    assert (attention._rotated_keys(k, table, 5) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("num_keys", [1024, 1025, 1087, 2048 + 63])
@torch.inference_mode()
def test_what_fills_up_a_tile_weighs_nothing(num_keys):
    q, k, v = torch.randn(1, 1, 300, 32), torch.randn(1, 1, num_keys, 32), torch.randn(1, 1, num_keys, 16)
    q = q - 5 * k.mean()  # scores below zero, beside which a forgotten zero would be heavy
    for counts in (None, torch.ones(num_keys)):
        expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
        assert (average(q, k, v, counts) - expected).abs().max() < 1e-6


def test_batches_on_a_cpu_have_few_sizes_and_lose_nobody():
    for number in range(1, 40):
        parts = list(batches([list(range(number)), ["x"]], torch.device("cpu")))
        assert [one for part in parts for one in part] == [*range(number), "x"]
        sizes = [len(part) for part in parts]
        assert sizes == [4] * (number // 4) + [number % 4] * (number % 4 > 0) + [1]
    assert list(batches([list(range(40))], torch.device("cuda"))) == [list(range(40))]


@pytest.mark.slow
def test_a_stream_whose_objects_come_and_go_and_are_corrected_makes_few_kernels(shapes):
    """Measured: 337; where keys and objects go through it as they come, 548 and more with every number of objects."""
    tracker = sam2.Tracker(sam2.load_model("nano", device="cpu"), sticky_corrections=True, batched=True)
    rgb = torch.randint(0, 255, (120, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()

    def stream():
        for index in range(36):
            prompts = [sam2.Prompt(f"{index}", [(20 + 3 * index, 60)], [1])] if index < 12 else []
            prompts += [sam2.Prompt(name, [(80, 50)], [1]) for name in tracker.object_ids if index in (20, 27)]
            tracker.step(sam2.Frame(rgb, index + 1), prompts)

    assert len(shapes(stream)) < 400
