"""`load_model` says what its weights are good for, and does not depend on their file any more."""

import gc
import logging
import sys

import pytest
import torch
from nano_video import nano_predictor
from safetensors.torch import save_file

import sam2
from sam2 import weights_cache

NOTICE = "nano is a demonstration model trained on a synthetic world; for real scenes load official weights"


def said(caplog, **kwargs) -> list[str]:
    """Warnings of the library while it loads nano."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sam2"):
        sam2.load_model("nano", device="cpu", **kwargs)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("checkpoint", [None, weights_cache.PACKAGED / "sam2.1_hiera_nano.safetensors"])
def test_the_packaged_weights_are_said_to_be_a_demonstration(checkpoint, caplog):
    assert said(caplog, checkpoint=checkpoint) == [NOTICE]
    assert said(caplog, checkpoint=checkpoint) == [NOTICE], "of every model, not once per process"


def test_weights_of_ones_own_are_no_demonstration(caplog, tmp_path):
    save_file({k: v.contiguous() for k, v in nano_predictor().state_dict().items()}, tmp_path / "mine.safetensors")
    (warning,) = said(caplog, checkpoint=tmp_path / "mine.safetensors")
    assert "not an official file" in warning


def test_a_loaded_model_is_ready_to_infer_and_wants_no_gradients():
    model = sam2.load_model("nano", device="cpu")
    assert not any(part.training for part in model.modules())
    assert not any(weight.requires_grad for weight in model.parameters())


def test_weights_do_not_change_with_their_file(tmp_path):
    """Mapped, those of float32 did; and of a file that had become shorter the first use ended the process (SIGBUS)."""
    path = tmp_path / "mine.safetensors"
    save_file({k: v.contiguous() for k, v in nano_predictor().state_dict().items()}, path)
    before = nano_predictor().state_dict()
    after = sam2.load_model("nano", checkpoint=path, device="cpu").state_dict()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


def test_loading_again_and_again_leaves_nothing_behind():
    """Measured: 0 to 3 of Python's blocks for each loading, and 742 of a mapped file (safetensors 0.4 to 0.8)."""

    def blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    for _ in range(3):
        sam2.load_model("nano", device="cpu")
    before = blocks()
    for _ in range(5):
        sam2.load_model("nano", device="cpu")
    assert blocks() - before < 5 * 100
