"""Parameter groups, optimisers, learning rates, the EMA of the weights, and an initialisation that learns quickly.

Knows names of parameters, not what they compute. Sources: SAM 2 paper, appendix C.2 (AdamW, layer decay 0.8-0.9 on the
trunk, gradient clipping); layer decay from Clark et al. 2020 as used by BEiT.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sam2.attention import Attention
from sam2.model import SAM2
from sam2.training.config import Phase


def layer_scale(name: str, num_blocks: int, decay: float) -> float:
    """The learning-rate factor of a parameter, as upstream: `decay` for the trunk's last block, `decay` ** 2 for the
    one before, and so on to the patch embedding; 1 outside the trunk and for its position embeddings."""
    if "image_encoder.trunk." not in name or "trunk.pos_embed" in name:
        return 1.0
    block = re.search(r"\.blocks\.(\d+)\.", name)
    depth = int(block.group(1)) + 1 if block else 0
    return decay ** (num_blocks + 1 - depth)


_EMBEDDING = re.compile(  # tables of vectors, not maps between them: `trunk.patch_embed.proj` is a convolution
    r"trunk\.pos_embed(_window)?$|_embed(dings\.\d)?\.weight$|_tokens?\.weight$|tpos_enc$|no_mem_\w+$|no_obj_\w+$"
)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups the parameters by rate and decay, each group with `scale` (layer decay), `is_encoder` and `is_matrix`.

    Biases, norms and embeddings have no weight decay.
    """
    blocks = [int(m.group(1)) for n, _ in model.named_parameters() if (m := re.search(r"trunk\.blocks\.(\d+)\.", n))]
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = layer_scale(name, max(blocks, default=-1) + 1, layer_decay)
        decays = parameter.ndim >= 2 and not _EMBEDDING.search(name)
        is_encoder, is_matrix = "image_encoder." in name, decays and parameter.ndim == 2
        group = groups.setdefault(
            (is_encoder, is_matrix, scale, decays),
            {
                "params": [],
                "weight_decay": weight_decay * decays,
                "scale": scale,
                "is_encoder": is_encoder,
                "is_matrix": is_matrix,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


_MOMENTUM, _NEWTON_SCHULZ_STEPS, _NEWTON_SCHULZ = 0.95, 3, (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for matrices, batched by shape: `torch.optim.Muon` takes them one by one and spends a tenth of a step on
    launching small kernels.

    Nesterov momentum 0.95, three Newton-Schulz iterations in bfloat16; updates have the size of AdamW's. Sources:
    Jordan et al. 2024; the scale of an update from Liu et al. 2025 (arXiv 2502.16982).
    """

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients, momenta = [p.grad for p in parameters], [self._momentum(p) for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
            directions = _orthogonal(torch._foreach_lerp(gradients, momenta, _MOMENTUM))
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, directions, alpha=-group["lr"])

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def _orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalises each matrix and scales it to the root mean square of AdamW's updates."""
    of_shape: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(matrices):
        of_shape.setdefault(matrix.shape, []).append(index)
    out = list(matrices)
    for shape, indices in of_shape.items():
        found = orthogonalised(torch.stack([matrices[i] for i in indices])) * (0.2 * math.sqrt(max(shape)))
        for index, direction in zip(indices, found.unbind(), strict=True):
            out[index] = direction
    return out


def orthogonalised(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> (n, rows, columns) float32, singular values moved towards 1 (Jordan et al. 2024)."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT.contiguous()  # `foreach` is slow for mixed memory layouts
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16()
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)  # Frobenius
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


class MuonAdamW:
    """Muon for the matrices between layers, AdamW for everything else, behind the interface of one optimizer.

    muon: Muon's rate relative to AdamW's; at 1 their steps have the same size.
    """

    def __init__(self, groups: list[dict[str, Any]], muon: float):
        matrices = [group | {"scale": muon * group["scale"]} for group in groups if group["is_matrix"]]
        others = [group for group in groups if not group["is_matrix"]]
        self.parts = {
            "muon": Muon(matrices),
            "adamw": torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.999), fused=True),
        }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts.values() for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def make_optimizer(
    model: nn.Module, weight_decay: float, layer_decay: float, muon: float = 0.0
) -> torch.optim.AdamW | MuonAdamW:
    """Returns AdamW, or `MuonAdamW` if `muon` is not 0, with learning rates of 0 until `set_rates`.

    weight_decay and layer_decay: as `parameter_groups` takes them; muon: Muon's rate relative to AdamW's.
    """
    groups = parameter_groups(model, weight_decay, layer_decay)
    if muon:
        return MuonAdamW(groups, muon)
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), fused=fused)


def set_rates(optimizer: torch.optim.Optimizer | MuonAdamW, phase: Phase, progress: float, warm: float) -> float:
    """Sets every group's rate; returns the decoder's. progress: 0..1 through the phase; warm: 0..1 of the warm-up."""
    first, last = phase.rate
    rate = (last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))) * min(warm, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"] * (phase.encoder if group["is_encoder"] else 1.0)
    return rate


class Average:
    """Exponential moving average of a model's parameters, with a smaller decay in the first steps."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.averaged = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averaged.values()), [p.detach() for p in model.parameters()], weight)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.averaged)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in self.averaged.items():
            value.copy_(state[name])

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchanges the average with the model's weights; call again to undo."""
        for value, parameter in zip(self.averaged.values(), model.parameters(), strict=True):
            kept = value.clone()
            value.copy_(parameter)
            parameter.copy_(kept)


@torch.no_grad()
def prepare_from_scratch(model: SAM2) -> None:
    """Prepares a randomly initialised model: small embeddings, and tied projections in the attention layers."""
    trunk = model.image_encoder.trunk
    for embedding in (trunk.pos_embed, trunk.pos_embed_window, model.maskmem_tpos_enc, model.no_obj_ptr):
        nn.init.trunc_normal_(embedding, std=0.02)
    tie_prompts(model)
    tie_memory(model)


@torch.no_grad()
def tie_prompts(model: SAM2) -> None:
    """Makes the decoder attend to the prompted pixels from the first step.

    Its cross-attention gets equal query and key projections, four times larger, so that a token attends to the pixels
    with its own position code; otherwise clicks have no effect for hundreds of steps.
    """
    for attention in _crossings(model.sam_mask_decoder.transformer):
        attention.q_proj.weight.mul_(4)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.k_proj.bias.copy_(attention.q_proj.bias)


@torch.no_grad()
def tie_memory(model: SAM2) -> None:
    """Makes memory attention match similar pixels, and memories depend strongly on the mask, from the first step.

    Queries start equal to the keys that the same image would have as a memory, so that each pixel attends to similar
    ones in the remembered frames; otherwise attention starts uniform and all objects have much the same memories.
    """
    encoder = model.memory_encoder
    content = encoder.out_proj.weight[:, :, 0, 0] @ encoder.pix_feat_proj.weight[:, :, 0, 0]  # (D, C)
    for attention in _crossings(model.memory_attention):
        attention.q_proj.weight.copy_(6 * attention.k_proj.weight @ content)
        attention.q_proj.bias.zero_()
    encoder.mask_downsampler.encoder[-1].get_parameter("weight").mul_(4)


def _crossings(module: nn.Module) -> list[Attention]:
    """The attention layers in which something attends to something else."""
    return [m for name, m in module.named_modules() if isinstance(m, Attention) and not name.endswith("self_attn")]
