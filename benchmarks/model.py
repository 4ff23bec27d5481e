"""What each variant costs: memory and seconds for loading it and for one frame, each variant in its own process.

    python -m benchmarks.model --device cuda --variants tiny large

Prints and writes `benchmarks/results/model_<device>.md`. The weights are random, in files of the official layout: cost
does not depend on values. "Encode" turns one image into features; "track" is one object with a full memory bank through
memory attention, decoder and memory encoder. Reading and resizing the image is not included (see `benchmarks.stream`).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

import sam2
from benchmarks.arguments import model_name
from benchmarks.machine import processor
from benchmarks.stream import RESULTS
from sam2.config import CONFIGS
from sam2.device import choose_device
from sam2.memory_attention import concatenate
from sam2.model import NUM_MEMORIES, SAM2

NUM_POINTERS = 16  # one prompted, fifteen recent
SECONDS_PER_MEASUREMENT = 5.0
MAX_REPEATS = 50
_COLUMNS = ("parameters_millions", "load_s", "loaded_mib", "encode_ms", "track_ms", "peak_mib")


def main() -> None:
    args = parse()
    if args.measure:
        print(json.dumps(measure(args.measure, args.weights, args.device, args.precision)))
        return
    device = choose_device(args.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for variant in tqdm(args.variants, desc="variants"):
            config = sam2.find_config(variant)
            weights = write_random_weights(config.name, Path(folder))
            rows.append({"name": config.name} | measure_in_own_process(config.name, weights, args))
            weights.unlink()
    text = report(rows, device)
    (RESULTS / f"model_{device.type}.md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: auto)")
    parser.add_argument(
        "--variants", type=model_name, nargs="+", default=list(CONFIGS), metavar="NAME", help="default: all nine"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # used by `measure_in_own_process`
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_random_weights(name: str, folder: Path) -> Path:
    path = folder / f"{name}.safetensors"
    torch.manual_seed(0)
    save_file(SAM2(sam2.find_config(name)).state_dict(), path)
    return path


def measure_in_own_process(name: str, weights: Path, args: argparse.Namespace) -> dict:
    """Runs `measure` in a child, since peak memory is per process. Raises RuntimeError with its stderr if it fails."""
    command = [sys.executable, "-m", "benchmarks.model", "--measure", name, "--weights", str(weights)]
    command += ["--device", args.device, "--precision", args.precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, weights: str, device_name: str, precision: str) -> dict:
    device = choose_device(device_name)
    before = peak_bytes(device)
    started = time.perf_counter()
    model = sam2.load_model(name, checkpoint=weights, device=device_name, precision=precision)
    synchronize(device)
    figures = {
        "load_s": time.perf_counter() - started,
        "parameters_millions": sum(p.numel() for p in model.parameters()) / 1e6,
        "loaded_mib": (peak_bytes(device) - before) / 2**20,
        "dtype": str(model.precision.dtype).removeprefix("torch."),
    }
    with torch.inference_mode(), model.precision.context(device):
        image = torch.randn(1, 3, model.image_size, model.image_size, device=device)
        figures["encode_ms"] = 1e3 * seconds(lambda: model.encode_image(image), device)
        features = model.encode_image(image)
        bank = full_bank(model)

        def track() -> None:
            answer = model.select(
                model.decode(features, model.attend(model.self_attend(features.stride16), *bank)), multimask=True
            )
            model.encode_memory(features.stride16, answer.low_res_logits, answer.object_score, from_prompt=False)

        figures["track_ms"] = 1e3 * seconds(track, device)
    return figures | {"peak_mib": (peak_bytes(device) - before) / 2**20}


def full_bank(model: SAM2) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Memory of one object as `attend` takes it: seven frames and sixteen pointers, of random values."""
    config, device = model.config, model.device
    maskmem = torch.randn(1, config.memory_dim, config.grid_size, config.grid_size, device=device)
    spatial = [model.spatial_memory(maskmem, code) for code in range(NUM_MEMORIES)]
    pointers = torch.randn(1, NUM_POINTERS, config.d_model, device=device)
    time = torch.arange(NUM_POINTERS, device=device) / 15
    return concatenate(spatial, model.pointer_memory(pointers, time))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median time of `work` after it has warmed up."""
    times: list[float] = []
    work()
    while not times or (sum(times) < SECONDS_PER_MEASUREMENT and len(times) < MAX_REPEATS):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """Most memory this process ever held: the allocator's on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(rows: list[dict], device: torch.device) -> str:
    """A markdown table with the machine it was measured on."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    where += f", threads: {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f}" if device.type == "cpu" else ""
    lines = [
        f"# One model, one frame: {where}, {rows[0]['dtype']}, torch {torch.__version__}",
        "",
        "Random weights in the official layout, from a safetensors file in the page cache; one object, seven memories,",
        "sixteen pointers. Memory is the most ever held above a process that has only imported everything.",
        "",
        "| variant | parameters (M) | load (s) | memory to load (MiB) | encode (ms) | track (ms) | peak memory (MiB) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append("| " + " | ".join([row["name"], *(f"{row[column]:.4g}" for column in _COLUMNS)]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
