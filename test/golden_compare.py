"""Compares golden arrays, within the limits of `test/golden/README.md`; the noise measured there is 10 to 100 times
smaller.
"""

import re
from typing import NamedTuple

import numpy as np

INFINITE = float("inf")


class Limit(NamedTuple):
    maximum: float  # of |difference|
    rms: float = INFINITE  # per frame and object
    relative: float = 0.0  # allowed on top of `maximum`, times the expected value
    differing: float = 1.0  # fraction of entries that may differ at all


EXACT = Limit(0.0)
BIT_LIMIT = 10  # pixels of a mask that may differ
BF16_STEP = 2.0**-7  # relative distance of neighbouring bfloat16 numbers, at most
LOGITS = Limit(1e-3, rms=2e-4)
ENCODER = Limit(2e-4)

_LIMITS: list[tuple[str, Limit]] = [  # the first pattern that matches an array's name applies
    (r"_(frames|obj_ids|token|is_cond|lens)$", EXACT),
    (r"_(low64|dec_masks4|logits_video_sub)$", LOGITS),
    (r"_low256_f16$", Limit(1.6e-2)),  # float16 steps
    (r"_videomask_packbits$", EXACT),  # BIT_LIMIT bits
    (r"_area$", Limit(BIT_LIMIT)),
    (r"_(score|dec_obj_score)$", Limit(1e-4)),
    (r"_(iou4|iou_selected|iou)$", Limit(2e-5)),
    (r"_stability$", Limit(1e-3)),
    (r"_(obj_ptr|memattn_ptr_tokens|dec_hs|dec_mask_tokens)$", Limit(1e-3, rms=3e-4)),
    (r"_maskmem_bf16$", Limit(5e-4, rms=1e-3, relative=BF16_STEP, differing=0.01)),
    (r"_memattn_in_memory_seq_b_c$", Limit(1e-3, rms=1e-3, relative=BF16_STEP, differing=0.05)),
    (r"_maskmem_fp32$", Limit(2e-4)),
    (r"_block\d+_mean_std_absmax$", Limit(1e-4, relative=1e-5)),
    (r"_(trunk_stage\d|neck\d|backbone_fpn\d|patch\w+_nhwc)$|^image_embed$", ENCODER),
    (r"_(memattn_out_seq_b_c|dec_src)$", ENCODER),
    (r"_(vision_pos_enc\d|maskmem_pos_enc|dense_pe|prompt_sparse|prompt_dense)$", Limit(1e-4)),
    (r"_memattn_(in_memory_pos|ptr_pos)$", Limit(1e-4)),
    (r"^input_1024_sub$", Limit(1e-5)),
]


def limit_of(name: str) -> Limit | None:
    """The limit of an array; None for a name that matches no pattern."""
    return next((limit for pattern, limit in _LIMITS if re.search(pattern, name)), None)


def differences(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], complete: bool = True) -> list[str]:
    """One line per array that is missing or beyond its limit; arrays without a limit are ignored.

    With `complete=False` compares only the arrays that were computed, and of a propagation only the computed frames.
    """
    lines = []
    for name, want in expected.items():
        limit = limit_of(name)
        if limit is None:
            continue
        if name not in got:
            lines += [f"{name}: not computed"] if complete else []
            continue
        have = got[name]
        want = want if complete else _first_frames(name, want, have)
        line = _difference(name, have, want, limit)
        lines += [line] if line else []
    return lines


def worst(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], pattern: str) -> tuple[float, float]:
    """Largest |difference| and largest rms (per frame and object) over the arrays whose names match."""
    figures = [
        _figures(got[name].astype(np.float64), _first_frames(name, want, got[name]).astype(np.float64), name)[:2]
        for name, want in expected.items()
        if re.search(pattern, name) and name in got
    ]
    return max((f[0] for f in figures), default=0.0), max((f[1] for f in figures), default=0.0)


def _first_frames(name: str, want: np.ndarray, have: np.ndarray) -> np.ndarray:
    return want[: len(have)] if want.ndim and is_per_frame(name) else want


def is_per_frame(name: str) -> bool:
    """Whether it names an array [T, ...] of a propagation: no frame in the name, and not the object ids."""
    return bool(re.match(r"s\d+_(?!f\d)(?!obj_ids)", name))


def _difference(name: str, have: np.ndarray, want: np.ndarray, limit: Limit) -> str | None:
    if have.shape != want.shape:
        return f"{name}: shape {have.shape}, expected {want.shape}"
    if name.endswith("_packbits"):
        bits = int(np.unpackbits(have ^ want).sum())
        return f"{name}: {bits} pixels differ, allowed {BIT_LIMIT}" if bits > BIT_LIMIT else None
    have, want = have.astype(np.float64), want.astype(np.float64)
    if (np.isnan(have) != np.isnan(want)).any():
        return f"{name}: NaN in other places than expected"
    maximum, rms, differing = _figures(have, want, name)
    beyond = np.nan_to_num(np.abs(have - want) - limit.relative * np.abs(want)).max(initial=0.0)
    if beyond > limit.maximum or rms > limit.rms or differing > limit.differing:
        return f"{name}: max {maximum:.2g}, rms {rms:.2g}, {differing:.2%} differ; allowed {tuple(limit)}"
    return None


def _figures(have: np.ndarray, want: np.ndarray, name: str) -> tuple[float, float, float]:
    """Largest |difference|, its largest rms over any frame and object, fraction of entries that differ."""
    error = np.nan_to_num(np.abs(have - want))
    leading = 2 if is_per_frame(name) and error.ndim > 2 else 0
    rms = np.sqrt((error**2).mean(axis=tuple(range(leading, error.ndim))))
    return float(error.max(initial=0.0)), float(np.max(rms, initial=0.0)), float((error > 0).mean())
