"""The number format follows the device unless it is asked for, and logs say which one it is and why."""

import pytest
import torch
from small_stream import small_model

from sam2.errors import BadInput
from sam2.precision import choose_precision

CPU, SECOND_GPU = torch.device("cpu"), torch.device("cuda:1")


@pytest.mark.parametrize("device", [CPU, SECOND_GPU])
@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_taken(wanted, device):
    assert choose_precision(wanted, device).name == wanted


def test_a_cpu_computes_in_float32():
    assert choose_precision("auto", CPU).dtype is torch.float32


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_a_gpu_computes_in_bfloat16_where_that_very_gpu_has_it(capability, dtype, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    assert choose_precision("auto", SECOND_GPU).dtype is dtype and asked == [SECOND_GPU]


def test_another_name_is_refused():
    with pytest.raises(BadInput, match="expected one of auto, fp32, bf16, fp16, got 'half'"):
        choose_precision("half", CPU)


@pytest.mark.parametrize(("wanted", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_inside_its_context_products_have_that_format(wanted, dtype):
    with choose_precision(wanted, CPU).context(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_a_model_says_what_it_is(monkeypatch):
    model = small_model()
    monkeypatch.setattr(model, "precision", choose_precision("auto", CPU))
    assert model.description == f"{model.config.name} on cpu in fp32 (cpu has no fast reduced precision)"
