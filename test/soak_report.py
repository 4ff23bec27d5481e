"""Makes gates, a plot and the figures in docs/reliability.md from a soak's folder: soak_report.py out/soak."""

import csv
import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
from gates import Gate, drifts, grows, longest_silence, rises, second_half, slope, unaccounted, unpublished

FIELDS = [
    "t_s", "rss_mb", "in_use_mb", "blocks", "threads", "files", "tensors", "tensor_bytes", "age_p50_s", "age_p99_s",
    "cpu_ms_per_image", "results", "sent", "received", "processed", "dropped", "objects", "load", "fault",
]  # fmt: skip
MB_PER_MIN = 0.1  # 6 MB an hour, if all of it were growth
BLOCKS_PER_MIN = 100.0  # 10 kB, of objects in Python's own allocator, which is not the heap
TENSORS_PER_MIN = TENSOR_MB_PER_MIN = 1.0  # they come and go with the objects
THREADS_PER_MIN = FILES_PER_MIN = 0.1
DRIFT_PERCENT_PER_MIN = 1.0
SILENCE_S = 60.0  # camera off, disabled and deactivated one after another
STEP_MB = 0.25
_COUNTED = ("received", "processed", "lost on the way", "dropped for a newer one", "ignored while disabled or inactive")
BEGIN, END = "<!-- soak: written by test/soak_report.py -->", "<!-- end of soak -->"


def read(folder: Path) -> dict[str, np.ndarray]:
    """The samples by column; "" is NaN."""
    with open(folder / "samples.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name] or "nan") for row in rows]) for name in FIELDS if name != "fault"
    } | {"fault": np.array([row["fault"] for row in rows])}  # fmt: skip


def unexpected_traces(log: str) -> list[str]:
    """Log records with a traceback that is not of an injected failure."""
    records = re.split(r"(?m)^(?=\[(?:DEBUG|INFO|WARN|ERROR|FATAL)\])", log)
    return [record for record in records if "Traceback" in record and "injected by the soak" not in record]


def gates(folder: Path) -> list[Gate]:
    samples, end = read(folder), json.loads((folder / "end.json").read_text())
    t = samples["t_s"]
    return [
        grows("resident memory", t, samples["rss_mb"], MB_PER_MIN, "MB"),
        rises("least memory in use", t, samples["in_use_mb"], MB_PER_MIN, "MB"),
        rises("least number of Python's blocks", t, samples["blocks"], BLOCKS_PER_MIN, "blocks"),
        grows("live tensors", t, samples["tensors"], TENSORS_PER_MIN, "tensors"),
        grows("live tensors' memory", t, samples["tensor_bytes"] / 1e6, TENSOR_MB_PER_MIN, "MB"),
        grows("threads", t, samples["threads"], THREADS_PER_MIN, "threads"),
        grows("open files", t, samples["files"], FILES_PER_MIN, "files"),
        drifts("processor time per image", t, samples["cpu_ms_per_image"], DRIFT_PERCENT_PER_MIN),
        drifts("age p50", t, samples["age_p50_s"], DRIFT_PERCENT_PER_MIN),
        unaccounted(end["counts"]),
        unpublished(end["counts"]),
        longest_silence(t, samples["results"], SILENCE_S),
        Gate("calls without an answer", end["unanswered"], 0),
        Gate("results out of order, of no image, or twice without a prompt", end["disorder"], 0),
        Gate("tracebacks that were not planted", len(unexpected_traces((folder / "node.log").read_text())), 0),
        Gate("exit code", abs(end["exit code"]), 0),
    ]


def plot(folder: Path, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    samples = read(folder)
    minutes = samples["t_s"] / 60
    figure, axes = pyplot.subplots(5, 1, sharex=True, figsize=(10, 9), layout="constrained")
    axes[0].plot(minutes, samples["rss_mb"], lw=0.8, label="resident")
    axes[0].plot(minutes, samples["in_use_mb"], lw=0.8, label="in use")
    axes[0].set_ylabel("MB")
    axes[0].legend(loc="center right")
    axes[1].plot(minutes, samples["tensors"], lw=0.8)
    axes[1].set_ylabel("live tensors")
    axes[2].plot(minutes, samples["threads"], lw=0.8, label="threads")
    axes[2].plot(minutes, samples["files"], lw=0.8, label="open files")
    axes[2].legend(loc="upper right")
    axes[3].plot(minutes, samples["age_p50_s"], lw=0.8, label="age p50")
    axes[3].plot(minutes, samples["age_p99_s"], lw=0.8, label="age p99")
    axes[3].set(ylabel="s", yscale="log")
    axes[3].legend(loc="upper right")
    axes[4].plot(minutes, samples["load"], lw=0.8, color="grey", label="load of the machine")
    axes[4].plot(minutes, samples["objects"], lw=0.8, label="objects")
    axes[4].legend(loc="upper right")
    axes[4].set_xlabel("minutes")
    for index in np.flatnonzero(samples["fault"] != ""):
        for axis in axes:
            axis.axvline(minutes[index], color="red", alpha=0.04, lw=1)
    figure.savefig(path, dpi=90)


def steps(samples: dict[str, np.ndarray]) -> str:
    """Lists the steps of resident memory in the second half, with the faults at the time."""
    t, rss = samples["t_s"], samples["rss_mb"]
    found = [
        f"{rss[i] - rss[i - 1]:+.2f} MB at minute {t[i] / 60:.1f} ({samples['fault'][i] or 'nothing else'})"
        for i in range(1, len(t))
        if t[i] > (t[0] + t[-1]) / 2 and abs(rss[i] - rss[i - 1]) > STEP_MB
    ]
    return f"Steps of resident memory above {STEP_MB} MB in the second half: {'; '.join(found) or 'none'}."


def by_sixths(samples: dict[str, np.ndarray]) -> list[str]:
    """Medians over sixths of the time, to compare the age of results with the load of the machine."""
    lines = ["| minutes | load of the machine | age p50 s | processor ms per image |", "| --- | --- | --- | --- |"]
    for part in np.array_split(np.arange(len(samples["t_s"])), 6):
        load, age, cost = (np.nanmedian(samples[name][part]) for name in ("load", "age_p50_s", "cpu_ms_per_image"))
        first, last = samples["t_s"][part[[0, -1]]] / 60
        lines.append(f"| {first:.0f} to {last:.0f} | {load:.1f} | {age:.3f} | {cost:.1f} |")
    return lines


def summary(folder: Path) -> str:
    """The report's text in Markdown."""
    samples, end = read(folder), json.loads((folder / "end.json").read_text())
    counts, t = dict.fromkeys(_COUNTED, "?") | end["counts"], samples["t_s"]  # a dead node has sent no counts
    late = {name: slope(*second_half(t, samples[name])) for name in ("rss_mb", "tensors", "threads", "files")}
    ages = samples["age_p50_s"][np.isfinite(samples["age_p50_s"])]
    p99 = samples["age_p99_s"][np.isfinite(samples["age_p99_s"])]
    lines = [
        f"{t[-1] / 60:.1f} minutes at {end['rate']:g} images/s of {end['size_hw'][1]}x{end['size_hw'][0]}, seed "
        f"{end['seed']}; load of the machine {np.median(samples['load']):.1f} in the median. "
        f"{end['sent']} images sent, {counts['received']} received, {counts['processed']} processed, "
        f"{counts['lost on the way']} lost on the way by the middleware's count, "
        f"{counts['dropped for a newer one']} dropped for a newer one, "
        f"{sum(int(n) for key, n in counts.items() if key.startswith('refused'))} refused, "
        f"{sum(int(n) for key, n in counts.items() if key.startswith('failed: step'))} lost to planted failures, "
        f"{counts['ignored while disabled or inactive']} ignored while disabled. {end['calls']} service calls. "
        f"Age p50 {np.median(ages):.2f} s, p99 {np.median(p99):.2f} s (medians over 5 s windows).",
        "", f"Done to the node: {', '.join(f'{name} {n}x' for name, n in sorted(end['attacks'].items()))}.",
        "", "| gate | value | at most | |", "| --- | --- | --- | --- |",
        *[
            f"| {gate.name} | {gate.value:.3g} {gate.unit} | {gate.bound:g} | "
            f"{'kept' if gate.is_kept else '**broken**'} |"
            for gate in gates(folder)
        ],
        "", "Slopes of the second half, with 95 % intervals: " + "; ".join(
            f"{name} {s} ({'' if s.holds_zero else 'not '}statistically zero)" for name, s in late.items()
        ) + ".", "", steps(samples), "", *by_sixths(samples),
    ]  # fmt: skip
    return "\n".join(line if line.startswith("|") else textwrap.fill(line, 118) for line in lines)


def report(folder: Path, docs: Path | None = None) -> int:
    """Prints the text and writes the plot, and both into `docs` if given; returns 1 if a gate is broken."""
    plot(folder, folder / "soak.png")
    text = summary(folder)
    print(text)
    if docs is not None:
        plot(folder, docs / "soak.png")
        page = docs / "reliability.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{text}\n\n![soak](soak.png)\n\n{END}{rest.split(END)[1]}")
    return 0 if all(gate.is_kept for gate in gates(folder)) else 1


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.exit(report(folder, Path("docs") if "--docs" in sys.argv else None))
