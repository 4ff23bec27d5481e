"""The processes of a distributed run, and the device of this one."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sam2.device import check_kernels, choose_device
from sam2.errors import BadInput, Sam2Error

Made = TypeVar("Made")


class NotMade(Exception):
    """Raised by `Team.together` in every process; its cause says why."""


@dataclass(frozen=True)
class Team:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def largest(self, value: float, device: torch.device) -> float:
        """The largest of all processes' values, in every process."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return shared.item()

    def agree(self, value: float, device: torch.device) -> float:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return shared.item()

    def together(self, make: Callable[[], Made]) -> Made:
        """Returns what `make` returns. If it raises in one process, raises NotMade in all of them, because none could
        finish the step without that one. Raises torch.OutOfMemoryError unchanged: a smaller step may fit."""
        failure: Exception | None = None
        try:
            made = make()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            failure = error
        if self.largest(failure is not None, torch.device("cpu")):  # on the CPU, so as not to wait for the GPU
            raise NotMade from failure or Sam2Error("another process of the team has no clips; it says why")
        return made


ALONE = Team()


def learning_together(module: nn.Module) -> DistributedDataParallel:
    """Wraps the module so that gradients are averaged over the team. Its buffers are constants, so they are not
    broadcast in every step."""
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        return DistributedDataParallel(module, find_unused_parameters=True, forward_sync_buffers=False)
    return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)  # its older name


def join_team(wanted: str) -> tuple[Team, torch.device]:
    """Joins the processes that `torchrun` started, if it did; returns the team and this process's device.

    wanted: "auto", "cpu", "cuda" or, alone, "cuda:N". Raises BadInput as `choose_device` and `check_kernels` do, and
    for a numbered one in a team, whose processes would share it.
    """
    device = choose_device(wanted)
    torch.backends.cudnn.benchmark = True  # pays off: the same shapes come thousands of times
    torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for every length, and memories grow every frame
    team = ALONE
    if "RANK" in os.environ:
        if device.index is not None:
            raise BadInput(f"device: torchrun's processes take a GPU each, expected auto, cpu or cuda, got {wanted!r}")
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        team = Team(dist.get_rank(), dist.get_world_size())
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if team.size > 1 else device.index or 0)
        torch.cuda.set_device(device)
    check_kernels(device)
    return team, device
