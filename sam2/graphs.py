"""Captures functions of tensors as CUDA graphs and replays them: launching a small kernel costs more than running it.
Knows nothing about what the functions compute.

How much this saves has not been measured. A graph is checked against the plain function before it is used; if anything
goes wrong, the plain function runs instead.
"""

import logging
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger("sam2")

# A capture costs about ten runs. While an object's memory fills up, every shape occurs only once.
TIMES_SEEN, AMONG = 8, 32
GRAPHS_KEPT = 8  # each holds its intermediate tensors

Function = Callable[..., tuple[Tensor, ...]]
Shapes = tuple[torch.Size, ...]


class CudaGraph:
    """One captured run, on its own copies of the inputs.

    `stream`: graphs captured on one stream share cuBLAS's workspace, so graphs that may run at the same time need
    different streams, and graphs of one stream are dropped together (pytorch#193402). The function may write to tensors
    of its own as long as repeating it is harmless. Raises RuntimeError if it cannot be captured or if the replay gives
    a different result.
    """

    def __init__(self, function: Function, inputs: tuple[Tensor, ...], stream: torch.cuda.Stream):
        self._inputs = [x.clone() for x in inputs]
        current = torch.cuda.current_stream(inputs[0].device)
        # Without autocast's cache: a graph must not refer to converted weights that autocast will free.
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        with torch.cuda.device(inputs[0].device), torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            expected = self._warm_up(function, stream)
            self._graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                    self._outputs = function(*self._inputs)
            finally:
                torch.cuda.set_stream(current)  # a failed capture leaves its own stream current
        replayed = self(inputs)
        if not all(
            torch.allclose(a.float(), b.float(), equal_nan=True) for a, b in zip(expected, replayed, strict=True)
        ):
            raise RuntimeError("a replayed CUDA graph gave another result")

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The outputs for inputs of the captured shapes, in tensors of their own."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return tuple(x.clone() for x in self._outputs)

    def _warm_up(self, function: Function, stream: torch.cuda.Stream) -> tuple[Tensor, ...]:
        """Runs it twice: in first runs libraries allocate memory and choose kernels, which a capture forbids."""
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(2):
                    outputs = function(*self._inputs)
        finally:  # also after a failure, since the inputs are freed then
            torch.cuda.current_stream().wait_stream(stream)
        return outputs


class Replayed:
    """Runs `function`, as a graph once its inputs' shapes occurred `TIMES_SEEN` times among the last `AMONG` calls that
    no graph served. Keeps at most `GRAPHS_KEPT` graphs; before it captures one more, it drops all of them.

    capture: makes a graph of (function, inputs); None: the function itself always runs.
    """

    def __init__(self, function: Function, capture: Callable[[Function, tuple[Tensor, ...]], Callable] | None):
        self._function, self._capture = function, capture
        self._graphs: dict[Shapes, Callable] = {}
        self._recent: deque[Shapes] = deque(maxlen=AMONG)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shapes = tuple(x.shape for x in inputs)
        if shapes not in self._graphs:
            self._recent.append(shapes)
            is_usual = self._recent.count(shapes) >= TIMES_SEEN
            if not is_usual or not self._add(shapes, inputs):
                return self._function(*inputs)
        return self._graphs[shapes](inputs)

    def forget(self) -> None:
        """Drops all graphs, for when tensors that the function uses have been replaced."""
        self._graphs.clear()
        self._recent.clear()

    def _add(self, shapes: Shapes, inputs: tuple[Tensor, ...]) -> bool:
        if self._capture is None:
            return False
        if len(self._graphs) == GRAPHS_KEPT:
            self._graphs.clear()  # together: see `CudaGraph`
        try:
            self._graphs[shapes] = self._capture(self._function, inputs)
        except RuntimeError as error:
            log.warning("CUDA graphs are not used: %s", str(error).splitlines()[0])
            self._capture = None
            self._graphs.clear()
            return False
        return True
