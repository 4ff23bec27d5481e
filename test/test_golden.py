"""The same numbers as the official code: every bundled golden case, and mistakes that each comparison must catch.

`SAM2_GOLDEN_DIR=<folder> pytest test/test_golden.py` runs that folder's cases instead.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import WHOLE, Cut, GoldenFolder, VideoRun, build, run_image_case, with_the_official_sign
from golden_catalogue import AFTER_THE_WHOLE_CASE, ENCODER, IMAGE, QUICK, Mutation
from golden_compare import differences, is_per_frame, limit_of, worst
from golden_mutations import around, memory_not_rounded_to_bf16
from golden_recipe import synthetic_clip, weights_sha256
from golden_record import encode_in_stages
from PIL import Image

from sam2 import model, preprocess

GOLDEN = GoldenFolder(Path(os.environ.get("SAM2_GOLDEN_DIR") or Path(__file__).parent / "golden"))
IS_BUNDLED = "SAM2_GOLDEN_DIR" not in os.environ
needs_bundled = pytest.mark.skipif(not IS_BUNDLED, reason="only for the bundled cases")
CUTS = {  # what `make test` runs of the long cases; a later frame has more memories and costs more
    "A": Cut(frames={1: 3}),
    "B": Cut(stop=3, frames={2: 2}),
    "H": Cut(frames={1: 2}),
    "J": Cut(frames={1: 2}),
}
NOT_QUICK = ("F", "G", "I")  # other weights, backwards, corrections that stay: already their first frames take long
BF16_RMS = 3e-5  # of logits: below it only if memories were rounded to bfloat16 as the official code does


@pytest.fixture(autouse=True, scope="module")
def idle_cores():
    """These tests are arithmetic and want every idle core; on a busy one, threads would only wait for each other."""
    before = torch.get_num_threads()
    cores = max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))
    torch.set_num_threads(max(1, min(cores, round(cores + 1 - os.getloadavg()[0]))))  # this process is one of the load
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def undecided_pixel(monkeypatch):
    around(monkeypatch, model, "logits_to_input_size", with_the_official_sign)


@cache
def ran(name: str, is_cut: bool) -> VideoRun:
    return VideoRun(GOLDEN.case(name), GOLDEN.clip(name)).run(CUTS[name] if is_cut else WHOLE)


def cases() -> list:
    if not IS_BUNDLED:
        return [pytest.param(name, False, id=name) for name in GOLDEN.names]
    quick = [name for name in GOLDEN.names if name not in NOT_QUICK]
    return [pytest.param(name, name in CUTS, id=f"{name}-start" if name in CUTS else name) for name in quick] + [
        pytest.param(name, False, id=name, marks=pytest.mark.slow) for name in (*CUTS, *NOT_QUICK)
    ]


@pytest.mark.parametrize(("name", "is_cut"), cases())
def test_case_equals_official(name, is_cut, record_property):
    case, expected = GOLDEN.case(name), GOLDEN.expected(name)
    assert expected, f"{GOLDEN.path}: no arrays for case {name}"
    if case["kind"] == "image":
        predictor = build(case)
        arrays = run_image_case(predictor, case, GOLDEN.clip(case["name"]))
    else:
        run = ran(name, is_cut)
        predictor, arrays = run.predictor, run.arrays
    assert weights_sha256(predictor.state_dict()) == GOLDEN.weights_sha256(name)
    record_property("not compared", [key for key in expected if limit_of(key) is None])
    record_property("logits max and rms", worst(arrays, expected, r"low64$"))
    assert not differences(arrays, expected, complete=not is_cut)


@needs_bundled
@pytest.mark.parametrize(
    ("mutation", "is_whole"),
    [pytest.param(m, False, id=str(m)) for m in QUICK]
    + [pytest.param(m, True, id=str(m), marks=pytest.mark.slow) for m in AFTER_THE_WHOLE_CASE],
)
def test_mistake_is_caught(mutation: Mutation, is_whole, monkeypatch):
    run = ran(mutation.case, mutation.case in CUTS and not is_whole)
    mutation.plant(monkeypatch, run)
    caught = differences(mutation.arrays(run), expected_of(mutation), complete=False)
    print(*caught, sep="\n")  # `pytest -rP` shows by how much
    assert {line.split(":")[0] for line in caught} >= set(mutation.caught_by.split()), caught


def expected_of(mutation: Mutation) -> dict[str, np.ndarray]:
    """The stored arrays; for a single frame, of its propagation only that frame."""
    expected = GOLDEN.expected(mutation.case)
    if mutation.frame is None:
        return expected
    prefix = f"s{mutation.last}_"
    row = expected[f"{prefix}frames"].tolist().index(mutation.frame)
    return {
        key: value[row : row + 1] if is_per_frame(key) and key.startswith(prefix) else value
        for key, value in expected.items()
    }


@needs_bundled
def test_tracking_a_frame_again_changes_nothing():
    """What `test_mistake_is_caught` relies on."""
    unmutated = Mutation(None, "A", "", last=1, frame=1)
    assert not differences(unmutated.arrays(ran("A", True)), expected_of(unmutated), complete=False)


@needs_bundled
def test_logits_show_that_memories_are_rounded_to_bf16(monkeypatch):
    """Unrounded memories stay within the limits, but not within the noise: BF16_RMS lies between."""
    rounded, expected = ran("A", True), GOLDEN.expected("A")
    print("rounded", worst(rounded.arrays, expected, "s1_low64"))
    assert worst(rounded.arrays, expected, "s1_low64")[1] < BF16_RMS
    memory = rounded.state.objects[1].prompted[0].maskmem
    memory_not_rounded_to_bf16(monkeypatch, rounded)
    unrounded = rounded.fork(before=1).run(Cut(first=1, frames={1: 2}))
    print("unrounded", worst(unrounded.arrays, expected, "s1_low64"))
    assert worst(unrounded.arrays, expected, "s1_low64")[1] > BF16_RMS
    assert rounded.state.objects[1].prompted[0].maskmem is memory, "a fork changes nothing for the tests that follow"


@needs_bundled
@pytest.mark.parametrize(("plant", "caught_by"), [pytest.param(*m, id=m[0].__name__) for m in ENCODER])
def test_encoder_mistake_is_caught(plant, caught_by, monkeypatch):
    run = ran("A", True)
    plant(monkeypatch, run)
    _, stages = encode_in_stages(run.predictor, run.state.images[0][None])
    stages = {f"f00_o1_{name}": value for name, value in stages.items()}
    caught = differences(stages, GOLDEN.expected("A"), complete=False)
    print(*caught, sep="\n")
    assert {line.split(":")[0] for line in caught} >= {f"f00_o1_{name}" for name in caught_by.split()}, caught


@needs_bundled
@pytest.mark.parametrize(("plant", "caught_by"), [pytest.param(*m, id=m[0].__name__) for m in IMAGE])
def test_image_mistake_is_caught(plant, caught_by, monkeypatch):
    case = GOLDEN.case("E")
    predictor = build(case)
    plant(monkeypatch, None)
    caught = differences(run_image_case(predictor, case, GOLDEN.clip(case["name"])), GOLDEN.expected("E"))
    print(*caught, sep="\n")
    assert {line.split(":")[0] for line in caught} >= set(caught_by.split()), caught


@needs_bundled
@pytest.mark.parametrize("name", ["A", "B", "E"])
def test_every_array_has_a_limit_that_bites(name):
    """Equal passes, a little beyond the limit does not; whatever the array."""
    expected = GOLDEN.expected(name)
    assert not differences(expected, expected)
    for key, want in expected.items():
        step = 64 * max(limit_of(key).maximum, 1e-2)
        moved = (
            ~want if want.dtype in (bool, np.uint8) else np.nan_to_num(want) + np.asarray(step).astype(want.dtype) + 1
        )
        assert [line.split(":")[0] for line in differences({key: moved}, {key: want})] == [key]


@needs_bundled
def test_clip_is_the_official_run_s():
    assert sha256(synthetic_clip().tobytes()).hexdigest() == GOLDEN.manifest["clip"]["sha256_of_raw_bytes"]


@needs_bundled
@pytest.mark.parametrize("size_wh", [(640, 480), (1600, 1200)])
def test_preprocessing_equals_official(size_wh):
    stored = np.load(GOLDEN.path / "preproc.npz")
    name = f"{size_wh[1]}x{size_wh[0]}"
    frame = synthetic_clip()[0]
    rgb = frame if size_wh == (640, 480) else np.array(Image.fromarray(frame).resize(size_wh))
    video, image = preprocess.to_model_input(rgb, 1024), preprocess.to_image_predictor_input(rgb, 1024)
    assert abs(video[:, ::16, ::16].numpy() - stored[f"video_{name}_norm_sub16"]).max() < 1e-6
    assert abs(image[:, ::16, ::16].numpy() - stored[f"image_{name}_norm_sub16"]).max() < 1e-5
    assert abs(video - image).max() > 0.1  # the two paths are not the same, so neither can stand in for the other


@needs_bundled
def test_mask_prompt_preprocessing_equals_official():
    stored = np.load(GOLDEN.path / "preproc.npz")
    run = ran("B", True)
    mask = run.prompt_mask(run.case["steps"][1])
    assert mask.sum() == stored["mask_disc_500_300_45_video_area"]
    at_input_size = preprocess.masks_to_model(mask[None], 1024)
    assert (np.packbits(at_input_size[0, 0].numpy() > 0) == stored["mask_1024_packbits"]).all()
    low_res = preprocess.mask_logits(at_input_size)[0, 0].numpy()
    assert (low_res > 0).sum() == stored["mask_low_area_pos"]


@pytest.mark.slow
@needs_bundled
def test_another_folder_runs_instead(tmp_path):
    """The same numbers under another name pass; one of them changed, and a missing file, fail."""
    cases = {name: GOLDEN.manifest["cases"]["E2"] for name in ("right", "wrong", "missing")}
    (tmp_path / "manifest.json").write_text(json.dumps({"cases": cases}))
    arrays = GOLDEN.expected("E2")
    np.savez(tmp_path / "right.npz", **arrays)
    np.savez(tmp_path / "wrong.npz", **arrays | {"q0_iou": arrays["q0_iou"] + 1e-3})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", __file__],
        env=os.environ | {"SAM2_GOLDEN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    outcomes = {
        word: re.findall(rf"^{word} .*equals_official\[(\w+)\]", done.stdout, re.M) for word in ("PASSED", "FAILED")
    }
    assert outcomes == {"PASSED": ["right"], "FAILED": ["wrong", "missing"]}, done.stdout
