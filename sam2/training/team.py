"""The processes that train as one, and the device of this one."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


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


ALONE = Team()


def join_team(device: str) -> tuple[Team, torch.device]:
    """The processes `torchrun` started, or this one alone, and its device. device: "auto", "cpu" or "cuda"."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    torch.backends.cudnn.benchmark = True  # the same shapes come thousands of times,
    torch.backends.cuda.enable_cudnn_sdp(False)  # but memories grow every frame, and this plans each length anew
    if "RANK" not in os.environ:
        return ALONE, torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    local = torch.device(kind, int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(local)
    return Team(dist.get_rank(), dist.get_world_size()), local
