"""Which devices the network runs on: the CPU and CUDA's, whatever else PyTorch has a name for."""

import pytest
import torch

from sam2.device import choose_device, device_errors
from sam2.errors import BadInput, UnknownObject


@pytest.mark.parametrize("name", ["mps", "xpu", "xpu:1", "meta", "cpu:7", "gpu", ""])
def test_other_devices_are_refused(name):
    with pytest.raises(BadInput, match=f"^device: expected auto, cpu, cuda or cuda:N, got '{name}'$"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "count", "expected"), [("cpu", 0, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda:1")]
)
def test_devices_that_are_there_are_taken(name, count, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:1", 1)])
def test_a_missing_gpu_says_how_many_there_are(name, count, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(BadInput, match=f"device '{name}': PyTorch finds {count or 'no'} CUDA device"):
        choose_device(name)


@pytest.mark.parametrize(("is_there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(is_there, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    assert choose_device("auto") == torch.device(expected)


def test_an_error_of_our_own_is_not_read_as_a_shortage_of_memory():
    """UnknownObject is a RuntimeError, too, and quotes ids that people choose."""
    with pytest.raises(UnknownObject), device_errors(torch.device("cpu")):
        raise UnknownObject("object_id: expected one of ['cup'], got 'out of memory'")
