"""Which devices the network runs on: the CPU and CUDA's, whatever else PyTorch has a name for."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sam2.build_sam import build_sam2
from sam2.checkpoint import load_model
from sam2.device import choose_device, device_errors
from sam2.errors import BadInput, UnknownObject
from sam2.model import SAM2
from sam2.training.team import join_team


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


@pytest.mark.parametrize(
    "use",
    [
        lambda: load_model("nano", device="cuda"),
        lambda: build_sam2("configs/sam2.1/sam2.1_hiera_nano.yaml", device="cuda"),
        lambda: join_team("cuda"),
    ],
    ids=["load_model", "build_sam2", "training"],
)
def test_a_gpu_that_this_torch_has_no_kernels_for_is_named_before_the_first_image(use, monkeypatch):
    """Torch's own sentence, at the first kernel, does not say what to do."""

    class Thor(TorchFunctionMode):  # torch remembers its constructors by identity: they must not be replaced
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.ones and torch.device((kwargs or {}).get("device") or "cpu").type == "cuda":
                if has_kernels:
                    return torch.ones(*args)
                raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA ...")
            return func(*args, **(kwargs or {}))

    has_kernels = False
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (11, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Thor")
    monkeypatch.setattr(SAM2, "to", lambda self, *_: self)
    with Thor():
        with pytest.raises(BadInput, match=r"^device cuda(:0)?: PyTorch \S+ was not built for Thor; install a build"):
            use()
        has_kernels = True
        use()


def test_an_error_of_our_own_is_not_read_as_a_shortage_of_memory():
    """UnknownObject is a RuntimeError, too, and quotes ids that people choose."""
    with pytest.raises(UnknownObject), device_errors(torch.device("cpu")):
        raise UnknownObject("object_id: expected one of ['cup'], got 'out of memory'")
