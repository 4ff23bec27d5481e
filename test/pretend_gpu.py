"""A pytest plugin that pretends that there is a GPU: everything computes on the CPU, but tensors say that they are on a
CUDA device, and refuse what CUDA's would refuse.

So the paths that only a GPU takes run where there is none: a tensor that was left on the other device is found, and so
is a captured graph that waits for the device or misses what has changed since its capture. It knows nothing of speed,
of memory, nor of the order of streams.

`python -m pytest -p pretend_gpu FILES`, with the library made of `pretend_gpu.cpp` in the variable LIBRARY names.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "PRETENDED_GPU"


def torch_folder() -> Path:
    """Where PyTorch is installed, without importing it."""
    return Path(find_spec("torch").submodule_search_locations[0])


if LIBRARY in os.environ:  # PyTorch asks for a device's hooks once, when it is imported
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch_folder() / "lib" / name), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(os.environ[LIBRARY])

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

ATEN = torch.ops.aten
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)  # between devices
INDEXED = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default)  # a CPU's indices will do


class OnGpu(Tensor):
    """A tensor that says that it is on a CUDA device; `inner`, on the CPU, has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGpu":
        return Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device="cuda:0",
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"OnGpu({self.inner!r})"

    def tolist(self) -> list:
        return self.inner.tolist()

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.inner.__reduce_ex__(protocol)  # a file does not know where it will be loaded

    @classmethod
    def __torch_dispatch__(cls, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        return run(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """In its context tensors can be made on the device."""

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        return run(func, args, kwargs or {})


class Graph:
    """Stands for `torch.cuda.CUDAGraph`: repeats the operators that ran during its capture, on the same tensors."""

    capturing: "list | None" = None

    def replay(self) -> None:
        for func, args, kwargs, out in self.operators:
            new = func(*args, **kwargs)
            for theirs, mine in zip(tensors_in([new]), tensors_in([out]), strict=True):
                if theirs is not mine:  # else it worked in place
                    mine.copy_(theirs)

    @staticmethod
    @contextmanager
    def capture(graph: "Graph", **_: object) -> Iterator[None]:
        Graph.capturing = graph.operators = []
        try:
            yield
        finally:
            Graph.capturing = None


class Stream:
    """Stands for `torch.cuda.Stream`: everything is computed at once, in the order of the calls."""

    def __init__(self, *_: object) -> None:
        pass

    def record_event(self) -> object:
        return object()

    wait_stream = wait_event = synchronize = lambda *_: None


def run(func: Callable, args: tuple, kwargs: dict) -> object:
    """Runs an operator on the CPU. Raises RuntimeError where CUDA's would."""
    if is_composite(func):
        with PretendedGpu():
            return func.decompose(*args, **kwargs)
    tensors = list(tensors_in([*args, *kwargs.values()]))
    to_gpu = goes_to_gpu(func, args, kwargs, tensors)
    check(func, args, tensors, to_gpu)
    args = replaced(args, on_cpu)
    kwargs = {name: replaced(value, on_cpu) for name, value in kwargs.items() if name != "pin_memory"}
    if "device" in kwargs:
        kwargs["device"] = "cpu"
    out = func(*args, **kwargs)
    if Graph.capturing is not None and not func.is_view:
        Graph.capturing.append((func, args, kwargs, out))
    return on_gpu(out, func, tensors) if to_gpu else out


def tensors_in(values: Iterable) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def replaced(value: object, by: Callable[[Tensor], Tensor]) -> object:
    """An operator's argument or result with other tensors."""
    if isinstance(value, Tensor):
        return by(value)
    return type(value)(replaced(one, by) for one in value) if isinstance(value, list | tuple) else value


def on_cpu(tensor: Tensor) -> Tensor:
    return tensor.inner if isinstance(tensor, OnGpu) else tensor


@cache
def is_composite(func: Callable) -> bool:
    """Whether it is made of other operators."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def goes_to_gpu(func: Callable, args: tuple, kwargs: dict, tensors: list[Tensor]) -> bool:
    """Whether the results are on the device."""
    if func is ATEN._local_scalar_dense.default:  # a number
        return False
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]).type == "cuda"
    decisive = args[:1] if func is ATEN.copy_.default else tensors
    return any(isinstance(tensor, OnGpu) for tensor in decisive)


def check(func: Callable, args: tuple, tensors: list[Tensor], to_gpu: bool) -> None:
    """Raises RuntimeError for what CUDA refuses: tensors of both devices, and waiting for the device in a capture."""
    here = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    others = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.ndim > 0]
    is_mixed = len(others) > 0 and len(here) > 0
    if func in INDEXED:
        is_mixed = is_mixed and not isinstance(args[0], OnGpu)
    if is_mixed and func not in COPIES:
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found both cuda:0 and cpu")
    if Graph.capturing is not None and here and not to_gpu:
        raise RuntimeError(f"{func}: operation not permitted when stream is capturing")


def on_gpu(out: object, func: Callable, tensors: list[Tensor]) -> object:
    """An operator's results; those computed in place are the tensors that were given."""
    given = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, OnGpu)}
    # A view made in inference mode of a tensor that was not is like that tensor.
    is_plain = func.is_view and not any(tensor.is_inference() for tensor in tensors)
    with torch.inference_mode(False) if is_plain else nullcontext():
        return replaced(out, lambda tensor: given[id(tensor)] if id(tensor) in given else OnGpu(tensor))


def pytest_configure() -> None:
    """Pretends from here on, in all threads."""
    main, make_tensor, run_thread = Stream(), torch.tensor, threading.Thread.run
    replacements = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "device_count": lambda: 1,
        "current_device": lambda: 0, "set_device": lambda _: None, "device": lambda _: nullcontext(),
        "get_device_capability": lambda _: (8, 0), "is_bf16_supported": lambda: True,
        "mem_get_info": lambda _: (8 << 30, 8 << 30), "empty_cache": lambda: None, "synchronize": lambda _=None: None,
        "get_rng_state": lambda _: None, "set_rng_state": lambda *_: None, "manual_seed_all": lambda _: None,
        "Stream": Stream, "current_stream": lambda _=None: main, "set_stream": lambda _: None,
        "stream": lambda _: nullcontext(), "CUDAGraph": Graph, "graph": Graph.capture,
    }  # fmt: skip
    for name, replacement in replacements.items():
        setattr(torch.cuda, name, replacement)

    def run_with_gpu(thread: threading.Thread) -> None:
        with PretendedGpu():
            run_thread(thread)

    threading.Thread.run = run_with_gpu
    torch.tensor = lambda *args, pin_memory=False, **kwargs: make_tensor(*args, **kwargs)
    Tensor.pin_memory = lambda self: self
    Tensor.record_stream = lambda self, _: None
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter becomes an OnGpu, not its data
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes a CPU's tensor, then copies it
    PretendedGpu().__enter__()
