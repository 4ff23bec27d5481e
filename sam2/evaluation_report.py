"""Results of many videos as figures in percent, a table, and a plot of J&F over time.

Knows only `VideoResult`. J and F weight every object equally, whichever video it is in; visibility weights every frame
equally.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sam2 import metrics
from sam2.errors import BadInput
from sam2.evaluation_video import ObjectResult, VideoResult
from sam2.files import reading, write_whole

GROUPS: dict[str, Callable[[ObjectResult], bool]] = {
    "all": lambda result: True,
    "look-alike": lambda result: "look_alike" in result.tags,
    "small": lambda result: "small" in result.tags,
    "fast": lambda result: "fast" in result.tags,
    "none of these": lambda result: not result.tags,
}


def summarise(videos: list[VideoResult]) -> dict[str, Any]:
    """`group_summary` of all objects, and for each group worth reporting; J by age, and the speed."""
    results = [result for video in videos for result in video.objects]
    by_group = {name: group_summary(list(filter(belongs, results))) for name, belongs in _groups(results).items()}
    seconds, frames = sum(v.seconds for v in videos), sum(v.num_frames for v in videos)
    return {
        **by_group["all"],
        "videos": len(videos),
        "frames_per_second": round(frames / seconds, 2) if seconds else None,
        "by_group": by_group,
        "j_by_age": j_by_age(results),
    }


def _groups(results: list[ObjectResult]) -> dict[str, Callable[[ObjectResult], bool]]:
    """The groups worth reporting: only synthetic objects are tagged with what makes them difficult."""
    return GROUPS if any(result.tags for result in results) else {"all": GROUPS["all"]}


def group_summary(results: list[ObjectResult]) -> dict[str, Any]:
    """Figures in percent, None where there was nothing to judge. Visibility leaves out each object's first frame, which
    was prompted."""
    scores = [score for r in results if (score := metrics.score_frames(r.j, r.f, r.leading))]
    mean = metrics.mean_score(scores)
    seen = np.concatenate([np.array(r.seen[1:], bool) for r in results] or [np.zeros(0, bool)])
    there = np.concatenate([np.array(r.there[1:], bool) for r in results] or [np.zeros(0, bool)])
    returns = [found for r in results for found in r.returns.values()]
    return {
        "j_and_f": percent(mean.j_and_f),
        "j": percent(mean.j),
        "f": percent(mean.f),
        "visibility_accuracy": percent(_share(seen == there)),
        "seen_when_there": percent(_share(seen[there])),
        "unseen_when_away": percent(_share(~seen[~there])),
        "reacquisition": percent(_share(np.array(returns))),
        "objects": len(scores),  # that the first three figures are averaged over
        "returns": len(returns),
    }


def j_by_age(results: list[ObjectResult]) -> list[float | None]:
    """Mean J in percent by annotated frames since the prompt, over the objects in sight; None where none is."""
    values: list[list[float]] = [[] for _ in range(max((len(result.j) for result in results), default=0))]
    for result in results:
        for age in np.flatnonzero(result.there):
            values[age].append(result.j[age])
    return [percent(_share(np.array(found))) for found in values]


def _share(answers: np.ndarray) -> float:
    return float(np.mean(answers)) if answers.size else float("nan")


def percent(share: float) -> float | None:
    return None if np.isnan(share) else round(100 * share, 2)


def table(summary: dict[str, Any]) -> str:
    """A Markdown table, one row per group; `there` and `away`: visibility in frames with and without the object."""
    columns = {
        "objects": "objects",
        "J&F": "j_and_f",
        "J": "j",
        "F": "f",
        "visibility": "visibility_accuracy",
        "there": "seen_when_there",
        "away": "unseen_when_away",
        "returns": "returns",
        "re-acquired": "reacquisition",
    }
    rows = [["", *columns], ["---"] + ["---:"] * len(columns)]
    for name, group in summary["by_group"].items():
        values = [group[key] for key in columns.values()]
        rows.append([name, *("" if v is None else str(v) if isinstance(v, int) else f"{v:.1f}" for v in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows)


def drift(summary: dict[str, Any]) -> str:
    """One sentence: mean J at the prompt, one frame later, halfway and at the end."""
    ages = {age: value for age, value in enumerate(summary["j_by_age"]) if value is not None}
    if not ages:
        return "Nothing was there."
    shown = [age for age in (0, 1, max(ages) // 2, max(ages)) if age in ages]
    told = ", ".join(f"{ages[age]:.1f} at {age}" for age in dict.fromkeys(shown))
    return f"J of what is there, by annotated frames since its prompt: {told}."


def write_into_card(card: Path, name: str, text: str) -> None:
    """Replaces the text between the lines `<!-- name -->` and `<!-- end -->` of a Markdown file.

    Raises what `split_card` and `write_whole` raise, and then the file is unchanged.
    """
    before, after = split_card(card, name)
    write_whole(card.resolve(), f"{before}{text}\n{after}".encode())  # resolved, so that a symlink stays one


def split_card(card: Path, name: str) -> tuple[str, str]:
    """The parts of a Markdown file up to and including the line `<!-- name -->`, and from `<!-- end -->` on.

    Raises BadInput if there is no such file or place, or if it is not UTF-8.
    """
    if not card.is_file():
        raise BadInput(f"--card: expected a Markdown file, found none at {card}")
    try:
        with reading(card):
            before, mark, rest = card.read_text("utf-8").partition(f"<!-- {name} -->\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{card}: expected Markdown in UTF-8 ({error}); save it as UTF-8") from error
    _, end, after = rest.partition("<!-- end -->\n")
    if not end:
        raise BadInput(f"{card}: expected the lines <!-- {name} --> and <!-- end -->, found none; add them")
    return before + mark, end + after


def curves(videos: list[VideoResult]) -> dict[str, np.ndarray]:
    """Per group with objects, (T,) mean J&F in percent by frame; NaN in frames that do not count."""
    length = max((video.num_frames for video in videos), default=0)
    out = {}
    for name, belongs in _groups([result for video in videos for result in video.objects]).items():
        total, count = np.zeros(length), np.zeros(length)
        for video in videos:
            for result in filter(belongs, video.objects):
                kept = metrics.scored_frames(len(result.frames), result.leading)
                places = result.frames[kept]
                total[places] += 50 * (np.array(result.j[kept]) + result.f[kept])
                count[places] += 1
        if count.any():
            out[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return out


def plot(videos: list[VideoResult], title: str, path: Path) -> None:
    """J&F over time, one line per group, to a picture file, atomically. Needs matplotlib (the `training` extra)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, line in curves(videos).items():
        frames = np.flatnonzero(~np.isnan(line))  # not every frame needs to be annotated
        marker = "" if len(frames) == np.ptp(frames) + 1 else "."
        axes.plot(frames, line[frames], marker=marker, label=name, linewidth=2.5 if name == "all" else 1.2)
    axes.set(title=title, xlabel="frame", ylabel="mean J&F, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], dpi=110)
    write_whole(path, picture.getvalue())
