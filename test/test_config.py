"""Names people use find the right variant; anything else is refused with the list."""

import pytest
import torch

import sam2
from sam2 import device
from sam2.config import CONFIGS, find_config
from sam2.errors import BadInput


@pytest.mark.parametrize(
    "name, expected",
    [
        ("tiny", "sam2.1_hiera_tiny"),
        ("nano", "sam2.1_hiera_nano"),
        ("sam2_hiera_large", "sam2_hiera_large"),
        ("facebook/sam2.1-hiera-base-plus", "sam2.1_hiera_base_plus"),
        ("configs/sam2.1/sam2.1_hiera_b+.yaml", "sam2.1_hiera_base_plus"),
        ("sam2_hiera_s.yaml", "sam2_hiera_small"),
    ],
)
def test_names(name, expected):
    assert find_config(name).name == expected


def test_nine_variants():
    assert len(CONFIGS) == 9


def test_unknown_name_is_refused_with_the_list():
    with pytest.raises(BadInput, match="sam2.1_hiera_small"):
        find_config("medium")


@pytest.mark.parametrize("told", [None, "5"])
def test_threads_on_a_cpu(told, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(device, "_TORCHS_THREADS", 5)
    before = torch.get_num_threads()
    try:
        for count, name, threads in ((3, "nano", 3), (0, "nano", 5 if told else 1), (2, "tiny", 2), (0, "tiny", 5)):
            sam2.set_cpu_threads(count, name)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_threads_that_cannot_be():
    for count, name in ((-1, "nano"), (1, "giant")):
        with pytest.raises(sam2.BadInput):
            sam2.set_cpu_threads(count, name)
