"""A network that takes milliseconds, a clip of a few pixels, and streams over them, for tests of behaviour. Outputs
differ whenever anything differs, but mean nothing."""

import gc
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from golden_recipe import golden_weights

import sam2
from sam2.config import CONFIGS
from sam2.model import SAM2

SIZE_HW = (48, 80)
PERIOD_NS = 50_000_000  # between frames
PRESENCE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
CONFIG = replace(
    CONFIGS["sam2.1_hiera_nano"],
    image_size=64, embed_dim=16, stages=(1, 1, 2, 1), global_attention_blocks=(2,), d_model=64, memory_dim=16,
    memory_attention_layers=1, feedforward_dim=64,
)  # fmt: skip


@lru_cache(maxsize=2)
def small_model(presence: float = 1.0) -> SAM2:
    """Pseudo-random weights with which memory affects the output. `presence`: the bias of the object score."""
    model = SAM2(CONFIG)
    model.load_state_dict(golden_weights(model.state_dict(), {"overrides": {PRESENCE_BIAS: presence}}))
    return model.eval()


@lru_cache(maxsize=1)
def images() -> np.ndarray:
    """(16, H, W, 3) uint8."""
    return np.random.RandomState(3).randint(0, 256, (16, *SIZE_HW, 3)).astype(np.uint8)


def frame(index: int) -> sam2.Frame:
    return sam2.Frame(images()[index % 16], stamp(index))


def stamp(index: int) -> int:
    return (index + 1) * PERIOD_NS


def click(object_id: str, x: float = 20, y: float = 15, label: int = 1, **kwargs) -> sam2.Prompt:
    return sam2.Prompt(object_id, [(x, y)], [label], **kwargs)


def disc(object_id: str, x: float = 30, y: float = 20, radius: float = 9, **kwargs) -> sam2.Prompt:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return sam2.Prompt(object_id, mask=(columns - x) ** 2 + (rows - y) ** 2 <= radius**2, **kwargs)


def made_on(index: int, prompt: sam2.Prompt) -> sam2.Prompt:
    """The same prompt with the stamp of frame `index`."""
    return replace(prompt, stamp_ns=stamp(index))


def run(
    tracker: sam2.Tracker, frames: Iterable[int], prompts: Mapping[int, Sequence[sam2.Prompt]] | None = None
) -> list[list[sam2.Track]]:
    """Returns the tracks of every frame; `prompts`: by the index of the frame of their step."""
    return [tracker.step(frame(index), (prompts or {}).get(index, ())) for index in frames]


def fork(tracker: sam2.Tracker) -> sam2.Tracker:
    """An independent tracker in the same state, on the same network."""
    model = tracker.model
    return deepcopy(tracker, {id(model): model})


def assert_same(left: Iterable[Sequence[sam2.Track]], right: Iterable[Sequence[sam2.Track]]) -> None:
    """Asserts that every field of every track is equal, bit for bit."""
    for tracks, others in zip(left, right, strict=True):
        for track, other in zip(tracks, others, strict=True):
            got, expected = vars(track).copy(), vars(other).copy()
            np.testing.assert_array_equal(got.pop("low_res_logits"), expected.pop("low_res_logits"))
            got.pop("mask", None), expected.pop("mask", None)
            assert got == expected


def largest_difference(left: Iterable[Sequence[sam2.Track]], right: Iterable[Sequence[sam2.Track]]) -> float:
    """The largest difference between the logits of the same objects in two streams."""
    return max(
        float(abs(track.low_res_logits - other.low_res_logits).max())
        for tracks, others in zip(left, right, strict=True)
        for track, other in zip(tracks, others, strict=True)
    )


def live_tensors() -> tuple[int, int]:
    """(number, bytes) of all tensors that are alive."""
    gc.unfreeze()  # see conftest.py
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    return len(tensors), sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def live_objects() -> tuple[int, int]:
    """(number of all reachable Python objects, numbers and strings included, bytes of the arrays among them)."""
    gc.unfreeze()  # see conftest.py
    gc.collect()
    left = gc.get_objects()  # containers only; objects without references, such as arrays, are found in them
    seen, num_bytes = {id(left)}, 0
    while left:
        thing = left.pop()
        if id(thing) not in seen:
            seen.add(id(thing))
            num_bytes += thing.nbytes if type(thing) is np.ndarray else 0
            left += [held for held in gc.get_referents(thing) if not gc.is_tracked(held)]
    return len(seen), num_bytes
