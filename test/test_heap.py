"""What the process holds of memory, in processes of their own."""

import ctypes
import mmap
import os
import platform
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import PATIENCE_S, Bench
from fakes import FakeTracker

from sam2_ros import heap
from sam2_ros.worker import Phase

ROOT = Path(__file__).parents[1]
KERNEL = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])


def printed(code: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in variables} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("name", "expected"), [("LRU_CACHE_CAPACITY", "16"), ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")]
)
def test_what_onednn_keeps_is_bounded_unless_somebody_else_cares(name, expected, monkeypatch):
    code = f"import os; from sam2_ros import heap; heap.bound_kernels(); print(os.environ['{name}'])"
    monkeypatch.delenv(name, raising=False)
    assert printed(code) == expected
    assert printed(code, **{name: "77"}) == "77"


GROWTH = """
import sys
import threading
import numpy as np
from sam2_ros import heap
sys.path.insert(0, "test")
from proc_watch import Watch

def resident_mb():
    return Watch("self").read()["rss_mb"]

def grow():  # in a thread, as the network
    {reserve}
    before = resident_mb()
    blocks = [np.ones(1 << size, np.uint8) for size in (20, 16, 12) for _ in range(80)]
    grown = resident_mb() - before
    del blocks
    print(grown, resident_mb() - before)

{keep}
thread = threading.Thread(target=grow)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="other C libraries have no mallopt")
def test_what_was_reserved_is_there_and_stays():
    """Measured: 0.0 MB, and 85 MB where nothing was reserved, or was given back."""
    grown, left = map(float, printed(GROWTH.format(keep="heap.keep_freed()", reserve="heap.reserve()")).split())
    assert grown < 2 and left > -2
    for keep, reserve in (("heap.keep_freed()", "pass"), ("pass", "heap.reserve()")):
        grown, _ = map(float, printed(GROWTH.format(keep=keep, reserve=reserve)).split())
        assert grown > 60


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="other C libraries have no mallopt")
def test_what_was_reserved_is_there_where_the_kernel_is_older():
    """One that cannot be asked for pages gives those that are written to."""
    keep = "heap.keep_freed(); heap._own_all_pages = lambda: None"
    grown, _ = map(float, printed(GROWTH.format(keep=keep, reserve="heap.reserve()")).split())
    assert grown < 2


HOLES = """
holes = [(np.empty(6 << 20, np.uint8), np.ones(1 << 20, np.uint8)) for _ in range(8)]  # nobody writes to the large ones
between = [small for _, small in holes]
del holes
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="other C libraries have no mallopt")
@pytest.mark.skipif(KERNEL < (5, 14), reason="older kernels have no MADV_POPULATE_WRITE")
def test_pages_that_nobody_has_written_to_are_had_as_well():
    """Measured: 0.0 MB, and 39 to 42 MB where they are not."""
    code = GROWTH.split("def grow")[0] + f"heap.keep_freed()\n{HOLES}{{}}heap.reserve()\nbefore = resident_mb()\n"
    code += "used = [np.ones(4 << 20, np.uint8) for _ in range(8)]\nprint(resident_mb() - before)"
    assert float(printed(code.format(""))) < 2
    assert float(printed(code.format("heap._own_all_pages = lambda: None\n"))) > 20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="other C libraries have no mallopt")
def test_what_one_thread_freed_another_can_have():
    """Otherwise each thread would keep the most that it ever used. Measured: 0.0 MB, and 85 MB where each thread
    has memory of its own."""
    code = GROWTH.replace("{keep}", "heap.keep_freed()\n{keep}").replace("{reserve}", "pass")
    grown, _ = map(float, printed(code.format(keep="heap.reserve()")).split())
    assert grown < 2
    code = code.replace("heap.keep_freed()", "heap._M_ARENA_MAX = 0; heap.keep_freed()")  # 0: no such option
    grown, _ = map(float, printed(code.format(keep="heap.reserve()")).split())
    assert grown > 40


@pytest.mark.parametrize("most", [1 << 30, 32 << 20])
def test_an_older_library_is_told_the_most_that_it_accepts_and_another_nothing(most, monkeypatch):
    """Options by their numbers in glibc's malloc.h."""
    told = []
    refuses = SimpleNamespace(mallopt=lambda option, value: told.append((option, value)) or int(value <= most))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: refuses)
    heap.keep_freed()
    arenas, mapped_from, trimmed_from = -8, -3, -1
    assert dict(told) == {arenas: 1, mapped_from: most, trimmed_from: 1 << 30}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    heap.keep_freed()
    heap._own_all_pages()


def test_pages_are_asked_for_of_the_heap_alone(monkeypatch):
    """By Linux's number of the request; all that is mapped would be gigabytes."""
    told, maps = [], "00400000-00401000 r-xp 0 08:01 1 /bin/python\n00a00000-00b00000 rw-p 0 00:00 0   [heap]\n"
    asked = SimpleNamespace(madvise=lambda start, length, what: told.append((start.value, length.value, what)))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: maps)
    heap._own_all_pages()
    assert told == [(0xA00000, 0x100000, 23)]


def test_a_file_whose_name_is_no_text_may_be_mapped(tmp_path):
    with open(os.fsencode(tmp_path) + b"/m\xfcller", "w+b") as file:
        file.write(bytes(4096))
        file.flush()
        with mmap.mmap(file.fileno(), 4096):
            heap._own_all_pages()


def test_where_nobody_says_what_is_mapped_nothing_is_asked_for(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(madvise=pytest.fail))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
    heap._own_all_pages()


def test_later_networks_find_what_is_there():
    """A second reserve would need as much again, beside what is in use."""
    used = "heap.reserve(); used = np.ones(64 << 20, np.uint8); before = resident_mb(); heap.reserve"
    code = GROWTH.split("def grow")[0] + f"heap.keep_freed(); {used}{{}}(); print(resident_mb() - before)"
    assert float(printed(code.format(""))) < 2
    assert float(printed(code.format(".__wrapped__"))) > 30


def test_a_reserve_that_is_not_to_be_had_is_no_error():
    code = "import resource; from sam2_ros import heap; resource.setrlimit(resource.RLIMIT_DATA, (90 << 20,) * 2); "
    assert printed(code + "heap.reserve(); print('all the same')") == "all the same"
    with pytest.raises(subprocess.CalledProcessError):
        printed(code + "import numpy; numpy.ones(heap.RESERVE_BYTES, numpy.uint8)")


def test_the_node_does_all_of_it():
    """`main` says it before anything is imported that reads it."""
    pytest.importorskip("rclpy")
    code = (
        "from sam2_ros import heap, main; heap.keep_freed = lambda: print('kept', end=' '); "
        "heap.bound_kernels = lambda: 1 / 0; main.main([])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "kept " and "ZeroDivisionError" in ended.stderr


@pytest.mark.parametrize(("device", "expected"), [("cpu", 1), ("cuda", 0)])
def test_a_network_that_is_ready_on_a_cpu_has_memory_reserved(device, expected, monkeypatch):
    calls = []
    monkeypatch.setattr(heap, "reserve", lambda: calls.append(threading.current_thread().name))
    tracker = FakeTracker()
    tracker.model = SimpleNamespace(description="a fake", device=SimpleNamespace(type=device))
    with Bench(tracker) as bench:
        assert bench.phases.get(timeout=PATIENCE_S) is Phase.READY
    assert len(calls) == expected and threading.current_thread().name not in calls
