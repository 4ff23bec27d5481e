"""Reads a folder of golden cases and runs one: the steps of its JSON -> arrays named as the stored ones.

The tolerances are in `golden_compare.py`; weights and clip are made in `golden_recipe.py`.
"""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from golden_recipe import golden_weights, synthetic_clip
from golden_record import Recorder
from PIL import Image

from sam2.build_sam import build_sam2_video_predictor
from sam2.preprocess import to_model_input
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import FrameResult, ObjectState, VideoState

_FIELDS = {  # of a case; an unknown field would be ignored silently
    *("name", "kind", "config", "salt", "overrides", "attrs", "num_frames", "steps", "queries", "resize_to"),
    *("full_frames", "mem_frames", "stage_frames", "cpu_hole_fill", "apply_postprocessing", "clip", "frame"),
}


class GoldenFolder:
    """`manifest.json`, one npz (and perhaps one `_stage.npz`) per case, and perhaps the clip."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest = json.loads((path / "manifest.json").read_text())
        self.names = list(self.manifest["cases"])

    def case(self, name: str) -> dict:
        return self.manifest["cases"][name]["case"] | {"name": name}

    def weights_sha256(self, name: str) -> str | None:
        return self.manifest["cases"][name].get("weights_sha256")

    def expected(self, name: str) -> dict[str, np.ndarray]:
        """The stored arrays of a case, stage tensors included."""
        files = [self.path / f"{name}.npz", self.path / f"{name}_stage.npz"]
        return {key: value for file in files if file.exists() for key, value in np.load(file).items()}

    def clip(self, name: str) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB: the case's own clip, the folder's, or the recipe's."""
        stored = self.path / self.case(name).get("clip", "clip.npz")
        return _stored_clip(stored) if stored.exists() else synthetic_clip()


@lru_cache(maxsize=1)
def _stored_clip(path: Path) -> np.ndarray:
    return np.load(path)["frames"]


def build(case: dict) -> SAM2VideoPredictor:
    """The predictor of a case, with its weights and attributes."""
    assert not set(case) - _FIELDS, f"case {case['name']}: unknown fields {set(case) - _FIELDS}"
    predictor = build_sam2_video_predictor(
        case["config"], device="cpu", apply_postprocessing=case.get("apply_postprocessing", True)
    )
    predictor.load_state_dict(golden_weights(predictor.state_dict(), case), assign=True)
    for path, value in case.get("attrs", {}).items():
        *parents, name = path.split(".")
        owner = predictor.get_submodule(".".join(parents))
        assert hasattr(owner, name), f"case {case['name']}: the predictor has no {path}"
        setattr(owner, name, value)
    if not case.get("cpu_hole_fill"):
        predictor.fill_hole_area = 0  # the official code on a CPU skips it
    return predictor


def with_the_official_sign(resize, low_res_logits: torch.Tensor, image_size: int) -> torch.Tensor:
    """Around `sam2.model.logits_to_input_size`. Cases A, F and H remember their first mask binarised, and one of its
    pixels has a logit of 1e-6: noise decides its sign, and so whether the memory keeps its limit. The official's.
    """
    logits = resize(low_res_logits, image_size)
    pixel = logits[..., 630, 663]
    pixel[pixel.abs() < 1e-5] = -1e-5
    return logits


def resized(frames: np.ndarray, case: dict) -> list[np.ndarray]:
    """Frames at the case's `resize_to` (width, height), with Pillow's default filter."""
    if "resize_to" not in case:
        return list(frames)
    return [np.array(Image.fromarray(frame).resize(tuple(case["resize_to"]))) for frame in frames]


@dataclass(frozen=True)
class Cut:
    """A cheaper part of a case: steps `first` to `stop` - 1. frames: how many a propagation runs, by step; else all."""

    stop: int | None = None
    frames: Mapping[int, int] = field(default_factory=dict)
    first: int = 0


WHOLE = Cut()


class _ModelInputs(Sequence[torch.Tensor]):
    """Frames, converted lazily to the network's input."""

    def __init__(self, frames: list[np.ndarray], image_size: int):
        self._frames, self._image_size = frames, image_size

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        return to_model_input(self._frames[index], self._image_size)


class VideoRun:
    """One run of a case, which fills `arrays`. Mutations continue in forks, which do not change this run."""

    def __init__(self, case: dict, clip: np.ndarray):
        self.case = case
        self.predictor = build(case)
        self.recorder = Recorder(self.predictor, case)
        frames = resized(clip[: case["num_frames"]], case)
        self.size_hw = frames[0].shape[:2]
        cpu = torch.device("cpu")
        self.state = VideoState(_ModelInputs(frames, self.predictor.image_size), *self.size_hw, cpu, cpu)
        self.arrays: dict[str, np.ndarray] = {}
        self._before: dict[int, dict] = {}  # objects as they were before each step

    def fork(self, before: int | None = None) -> "VideoRun":
        """A run with the same predictor, its own results, and a copy of the state now or before a step."""
        twin = copy(self)
        objects = self.state.objects if before is None else self._before[before]
        twin.arrays, twin.state = {}, replace(self.state, objects=_copy(objects))
        return twin

    def retrack(self, index: int, frame: int) -> dict[str, np.ndarray]:
        """Runs one frame of a propagation again, with the memories of now."""
        twin = self.fork()
        twin.step(index, self.case["steps"][index] | {"start": frame}, max_frames=1)
        return twin.arrays

    def run(self, cut: Cut = WHOLE) -> "VideoRun":
        for index, step in list(enumerate(self.case["steps"]))[cut.first : cut.stop]:
            self._before[index] = _copy(self.state.objects)
            self.step(index, step, cut.frames.get(index))
        return self

    def step(self, index: int, step: dict, max_frames: int | None = None) -> None:
        predictor, state = self.predictor, self.state
        match step["op"]:
            case "points":
                given = {k: step[k] for k in ("points", "labels", "box", "clear_old_points") if k in step}
                answer = predictor.add_new_points_or_box(state, step["frame"], step["obj"], **given)
                self._keep_prompt(index, step, answer)
            case "mask":
                answer = predictor.add_new_mask(state, step["frame"], step["obj"], self.prompt_mask(step))
                self._keep_prompt(index, step, answer)
            case "propagate":
                self._propagate(index, step, max_frames)
            case "clear":
                predictor.clear_all_prompts_in_frame(state, step["frame"], step["obj"])
            case "remove":
                predictor.remove_object(state, step["obj"])
            case "reset":
                predictor.reset_state(state)
            case unknown:
                raise ValueError(f"case {self.case['name']}, step {index}: unknown op {unknown!r}")

    def prompt_mask(self, step: dict) -> np.ndarray:
        """(H, W) bool."""
        cx, cy, radius = step["disc"]
        y, x = np.mgrid[: self.size_hw[0], : self.size_hw[1]]
        return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2

    def _propagate(self, index: int, step: dict, max_frames: int | None) -> None:
        frames = self.predictor.propagate_in_video(
            self.state,
            start_frame_idx=step.get("start"),
            max_frame_num_to_track=step.get("max"),
            reverse=step.get("reverse", False),
        )
        rows: list[dict[str, np.ndarray]] = []
        for frame, ids, masks in frames:
            objects = self.state.objects
            results = [objects[i].prompted.get(frame) or objects[i].recent[frame] for i in ids]
            columns = [
                self._describe(index, frame, i, result, mask)
                for i, result, mask in zip(ids, results, masks, strict=True)
            ]
            row = {name: np.stack([column[name] for column in columns]) for name in columns[0]}
            row["is_cond"] = np.array([frame in objects[i].prompted for i in ids])
            rows.append(row | {"frames": np.array(frame)})
            if len(rows) == max_frames:
                frames.close()
        self.arrays |= {f"s{index}_{name}": np.stack([row[name] for row in rows]) for name in rows[0]}
        self.arrays[f"s{index}_obj_ids"] = np.array(ids)

    def _keep_prompt(self, index: int, step: dict, answer) -> None:
        frame, obj = step["frame"], self.state.objects[step["obj"]]
        result = obj.new_prompted.get(frame) or obj.new_recent[frame]
        mask = answer[2][answer[1].index(step["obj"])]
        self.arrays |= {
            f"s{index}_{name}": value for name, value in self._describe(index, frame, step["obj"], result, mask).items()
        }

    def _describe(self, index: int, frame: int, obj_id: int, result: FrameResult, mask: torch.Tensor) -> dict:
        """What is stored of one object on one frame; `mask` (1, H, W) logits as returned."""
        logits = result.logits[0, 0].numpy()  # (4h, 4w)
        inside = mask[0].numpy() > 0
        prefix = f"s{index}_f{frame:02}_o{obj_id}_"
        if frame in self.case.get("full_frames", ()):
            self.arrays[prefix + "low256_f16"] = logits.astype(np.float16)
            self.arrays[prefix + "videomask_packbits"] = np.packbits(inside)
        if frame in self.case.get("mem_frames", ()) and result.maskmem is not None:
            self.arrays[prefix + "maskmem_bf16"] = result.maskmem[0, ::4, ::4, ::4].float().numpy()
        if frame in self.case.get("stage_frames", ()):
            stages = self.recorder.stages_of(result.pointer, self.state.images[frame])
            self.arrays |= {f"f{frame:02}_o{obj_id}_{name}": value for name, value in stages.items()}
        return {
            "low64": logits[::4, ::4],
            "score": result.object_score[0, 0].numpy(),
            "obj_ptr": result.pointer[0].numpy(),
            "area": np.array(inside.sum()),
        } | self.recorder.choice(result.pointer)


def _copy(objects: dict) -> dict:
    """Copies the dicts and the results in them, which get their memory when a propagation needs it. Tensors are shared:
    the recorder knows a result by its pointer."""

    def copied(by_frame: dict) -> dict:
        return {frame: copy(it) if isinstance(it, FrameResult) else it for frame, it in by_frame.items()}

    return {i: ObjectState(**{f.name: copied(getattr(obj, f.name)) for f in fields(obj)}) for i, obj in objects.items()}


def run_image_case(model: SAM2VideoPredictor, case: dict, clip: np.ndarray) -> dict[str, np.ndarray]:
    """Runs the image predictor's queries on one frame, in order; a query may use a mask of the one before."""
    recorder = Recorder(model, case)
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(resized(clip[case.get("frame", 0)][None], case)[0])
    arrays = {
        "input_1024_sub": recorder.last_image[0, :, ::16, ::16].numpy(),
        "image_embed": predictor.get_image_embedding()[:, ::4, ::4, ::4].numpy(),
    }
    previous = np.empty(0)  # (C, 4h, 4w) logits of the query before
    for index, query in enumerate(case["queries"]):
        given = {"point_coords": "points", "point_labels": "labels", "box": "box"}
        prompt = {name: np.array(query[key]) for name, key in given.items() if key in query}
        if "mask_input_from" in query:
            prompt["mask_input"] = previous[query["mask_input_from"]][None]
        multimask = query.get("multimask", True)
        logits, iou, low = predictor.predict(**prompt, multimask_output=multimask, return_logits=True)
        previous = low
        arrays |= {
            f"q{index}_iou": iou,
            f"q{index}_low64": low[:, ::4, ::4],
            f"q{index}_low256_f16": low.astype(np.float16),
            f"q{index}_area": (logits > predictor.mask_threshold).sum(axis=(1, 2)),
            f"q{index}_logits_video_sub": logits[:, ::8, ::8],
        }
    return arrays
