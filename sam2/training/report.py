"""A run's logs, loss curves drawn from them, and a contact sheet of the model's masks in the held-out clips."""

import csv
import io
import itertools
import math
from pathlib import Path

import cv2
import numpy as np

from sam2.files import reading, write_whole, writing
from sam2.training.state import Progress
from sam2.training.validate import Validation

LOG, CHECKS = "log.csv", "validation.csv"  # in a run's folder
_COLUMNS = 8  # of the contact sheet
_TILE = 256  # pixels; whole images of 1024 would make a sheet of 100 million
PALETTE = ((255, 80, 60), (60, 200, 90), (70, 130, 255), (255, 200, 40), (210, 90, 255), (60, 220, 230))  # RGB


def append_row(path: Path, row: dict[str, object]) -> None:
    """Adds a line to a CSV file, with a header if the file is new.

    If a full disk cut the last line short, the new one begins on a line of its own; a cut header is replaced.
    """
    with reading(path):
        header, before = ",".join(row), path.read_bytes() if path.exists() else b""
    first = before.partition(b"\r\n")[0].decode(errors="replace")
    is_new = first != header and header.startswith(first)
    with writing(path), open(path, "w" if is_new else "a", newline="") as file:
        if not is_new and not before.endswith(b"\n"):
            file.write("\r\n")
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def drop_rows(path: Path, last: int) -> None:
    """Drops rows with a step after `last` from a CSV file whose first column is the step; other lines stay."""
    if not path.exists():
        return
    with reading(path):
        lines = path.read_bytes().splitlines(keepends=True)
    steps = [line.partition(b",")[0] for line in lines]
    kept = [line for line, step in zip(lines, steps, strict=True) if not step.isdigit() or int(step) <= last]
    if len(kept) < len(lines):
        write_whole(path, b"".join(kept))


def go_back(folder: Path, step: int | None) -> None:
    """Drops what a run logged after `step`, from which it resumes: its curves would run backwards. None: it begins
    anew, and what an earlier run logged there is renamed to `log.1.csv` or the next free number, which is printed."""
    for path in (folder / LOG, folder / CHECKS):
        if step is not None:
            drop_rows(path, step)
        elif path.exists():
            names = (path.with_suffix(f".{number}{path.suffix}") for number in itertools.count(1))
            kept = next(name for name in names if not name.exists())
            path.rename(kept)
            print(f"{path} is of an earlier run, whose state is not there any more: renamed to {kept.name}", flush=True)


def log_step(folder: Path, at: Progress, kind: str, losses: dict[str, float], steps_per_s: float) -> None:
    row = {"step": at.step, "elapsed_s": round(at.elapsed_s, 1), "phase": at.phase, "kind": kind}
    names = ("loss", "iou", "focal", "dice", "iou_error", "presence", "alike_iou", "grad_norm", "rate")
    row |= {name: f"{losses.get(name, math.nan):.6g}" for name in names}
    append_row(folder / LOG, row | {"steps_per_s": f"{steps_per_s:.2f}", "clips_made": at.clips_made})


def log_check(folder: Path, at: Progress, result: Validation) -> None:
    figures = {name: f"{getattr(result, name):.4f}" for name in ("first_iou", "tracked_iou", "presence")}
    drop_rows(folder / CHECKS, at.step - 1)  # a finished run that is resumed is checked again
    append_row(folder / CHECKS, {"step": at.step, "elapsed_s": round(at.elapsed_s, 1), **figures})


def read_rows(path: Path) -> list[dict[str, str]]:
    """The complete rows of a CSV file; none if there is no file.

    After a power failure a file may contain garbage, mostly zeros; such rows are not complete.
    """
    if not path.exists():
        return []
    with reading(path):
        text = path.read_bytes().replace(b"\0", b"").decode(errors="replace")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [row for row in rows if None not in row and None not in row.values()]


def draw_contact_sheet(folder: Path, frames: np.ndarray, masks: np.ndarray, targets: np.ndarray) -> None:
    """Writes what `contact_sheet` draws, thinned to tiles of at most 256 pixels, into the run's folder."""
    every = -(-frames.shape[2] // _TILE)
    thin = np.s_[..., ::every, ::every]
    sheet = contact_sheet(frames[:, :, ::every, ::every], masks[thin], targets[thin])
    # Not by `cv2.imwrite`, which ends the process if the name is not UTF-8.
    write_whole(folder / "contact_sheet.png", cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())


def contact_sheet(frames: np.ndarray, masks: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """One row per clip, time to the right: predictions filled in colour, truth outlined in white.

    frames (B, T, S, S, 3) uint8 RGB, masks and targets (B, M, T, S, S) bool -> (B * S, C * S, 3) uint8 RGB, C = 8
    or, if that is less, T.
    """
    times = np.linspace(0, frames.shape[1] - 1, min(_COLUMNS, frames.shape[1])).astype(int)
    rows = []
    for clip, clip_masks, clip_targets in zip(frames, masks, targets, strict=True):
        tiles = []
        for time in times:
            tile = clip[time].copy()
            for index, (mask, target) in enumerate(zip(clip_masks[:, time], clip_targets[:, time], strict=True)):
                colour = np.array(PALETTE[index % len(PALETTE)], np.uint8)
                tile[mask] = tile[mask] // 2 + colour // 2
                outline, _ = cv2.findContours(target.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(tile, outline, -1, (255, 255, 255), 1)
            tiles.append(tile)
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def draw_curves(folder: Path) -> None:
    """Plots loss, training IoU and validation over steps into the run's folder; does nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows, checks = read_rows(folder / LOG), read_rows(folder / CHECKS)
    if not rows:
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        part = [row for row in rows if row["kind"] == kind]
        steps = [int(row["step"]) for row in part]
        left.plot(steps, [float(row["loss"]) for row in part], label=kind, linewidth=0.8)
        right.plot(steps, [float(row["iou"]) for row in part], label=f"{kind}: training IoU", linewidth=0.8)
    for name in ("first_iou", "tracked_iou", "presence"):
        right.plot([int(row["step"]) for row in checks], [float(row[name]) for row in checks], ".-", label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    right.set(xlabel="step", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_whole(folder / "curves.png", picture.getvalue())
