"""`load_model` says what its weights are good for."""

import logging

import pytest
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
