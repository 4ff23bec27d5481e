"""Runs what only a GPU's paths do where there is no GPU: `on_pretended_gpu.py`, and those of the GPU's own tests that
need none of its speed, memory or random numbers, in a process that has the plugin `pretend_gpu`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pretend_gpu import LIBRARY, torch_folder

HERE = Path(__file__).parent
COMPILER = shutil.which("c++")
THE_GPUS_OWN = [
    "test_graphs.py::test_a_cuda_graph_replays_what_it_captured",
    "test_preprocess.py::test_the_device_path_on_a_gpu",
    "test_ahead.py::test_on_a_gpu_the_second_stream_changes_nothing",
    "test_gpu_faults.py::test_the_first_image_is_not_the_slow_one",
]
pytestmark = [
    pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this PyTorch has CUDA: run the GPU's tests on a GPU"),
    pytest.mark.skipif(torch.__version__ < (2, 7), reason="what `pretend_gpu.cpp` overrides came with PyTorch 2.7"),
    pytest.mark.skipif(sys.platform != "linux", reason="libraries have other names elsewhere"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
]


def run_with_gpu(tmp_path: Path, *arguments: str) -> None:
    library = tmp_path / "pretended_gpu.so"
    subprocess.run(
        [COMPILER, "-std=c++20", "-shared", "-fPIC", f"-I{torch_folder() / 'include'}", HERE / "pretend_gpu.cpp",
         "-o", library],
        check=True,
    )  # fmt: skip
    path = os.pathsep.join([str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pretend_gpu", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, LIBRARY: str(library), "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parent)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_the_gpus_paths_compute_what_the_cpus_do(tmp_path):
    run_with_gpu(tmp_path, "-m", "not slow", str(HERE / "on_pretended_gpu.py"))


@pytest.mark.ros
@pytest.mark.slow
def test_the_gpus_own_tests_and_the_nodes_warm_up(tmp_path):
    pytest.importorskip("rclpy")
    tests = [str(HERE / name) for name in ("on_pretended_gpu.py", *THE_GPUS_OWN)]
    run_with_gpu(tmp_path, "-m", "slow or gpu", *tests)
