"""The network for training on windows: a part of an image keeps the position codes it has in the whole image.

A window of half the side costs a quarter and shows things at their full size. The plain network would stretch its
position codes over the window, and what it learnt about the place of a click would not hold in whole images.
"""

import torch
from torch import Tensor

from sam2.config import ModelConfig
from sam2.hiera import Hiera
from sam2.memory_attention import MemoryAttention
from sam2.model import SAM2
from sam2.position import sine_grid
from sam2.prompt_encoder import PromptEncoder


class View:
    """The square of the whole image that is in view, in pixels; all of it until `move`."""

    def __init__(self, whole: int):
        self.whole = self.side = whole
        self.row = self.column = 0

    def move(self, side: int, row: int = 0, column: int = 0) -> None:
        """Moves the view. All are multiples of 32, the side of the trunk's smallest pattern."""
        self.side, self.row, self.column = side, row, column

    def cut(self, table: Tensor, stride: int) -> Tensor:
        """The part in view of a table (..., h, w) of the whole image, whose cells are `stride` pixels."""
        rows, columns = (slice(start // stride, (start + self.side) // stride) for start in (self.row, self.column))
        return table[..., rows, columns]


class WindowedSAM2(SAM2):
    """Treats images of `view.side` pixels as the part at `view.row`, `view.column` of one of `config.image_size`."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.view = View(config.image_size)
        self.image_encoder.trunk = _Trunk(config, self.view)
        self.memory_attention = _MemoryAttention(config, self.view)
        self.sam_prompt_encoder = _PromptEncoder(config, self.view)

    @property
    def image_size(self) -> int:
        return self.view.side

    def memory_position(self, maskmem: Tensor) -> Tensor:
        return _sine_grid(self.view, maskmem)


def _sine_grid(view: View, x: Tensor) -> Tensor:
    """The position codes (1, C, h, w) of x (B, C, h, w), which is the part in view."""
    return view.cut(sine_grid(x.shape[1], view.whole // 16, view.whole // 16, x.device), 16)


class _Trunk(Hiera):
    def __init__(self, config: ModelConfig, view: View):
        super().__init__(config)
        self.view = view

    def position(self, height: int, width: int) -> Tensor:
        side = self.view.whole // 4
        return self.view.cut(super().position(side, side).permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)


class _MemoryAttention(MemoryAttention):
    def __init__(self, config: ModelConfig, view: View):
        super().__init__(config)
        self.view = view

    def position(self, stride16: Tensor) -> Tensor:
        return _sine_grid(self.view, stride16)


class _PromptEncoder(PromptEncoder):
    def __init__(self, config: ModelConfig, view: View):
        super().__init__(config)
        self.view = view

    def sparse(self, points_xy_model: Tensor, labels: Tensor) -> Tensor:
        x, y = points_xy_model.unbind(-1)  # no tensor of the corner: copying one to the GPU would synchronise
        return super().sparse(torch.stack((x + self.view.column, y + self.view.row), -1), labels)

    def grid_position(self) -> Tensor:
        return self.view.cut(super().grid_position(), 16)
