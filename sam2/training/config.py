"""The training recipes: what is trained, on what, for how long.

A phase ends at a share of the whole run, so that the same recipe fits a minute and a day. The run's length is counted
in steps, or in minutes of training (then phases and rates follow the clock, summed over resumed runs, since the speed
of a machine is not known in advance).
"""

from dataclasses import dataclass, replace

import numpy as np

from sam2.config import find_config
from sam2.errors import BadInput
from sam2.training.losses import LossWeights

EARLY = LossWeights(others=0.1)
# With `others` every hypothesis learns the mask, so whichever is selected is a good one. Presence, which often stays
# wrong once an object is lost, gets less weight so that it does not drown out the masks.
LATE = LossWeights(focal=8.0, focal_alpha=0.55, others=1.6, iou=2.0, presence=0.8)


@dataclass(frozen=True)
class Phase:
    """One part of a run; its learning rate falls from the first to the second value along a cosine."""

    kind: str  # "pretext", "stills", "clips" or "streams"
    until: float  # share of the run at which it ends
    batch: int  # images or clips
    objects: int  # prompts per image, or objects per clip
    frames: int = 1  # of a clip; of a stream, per step: at least 2
    max_stride: int = 1  # between frames of a clip, drawn per clip
    rate: tuple[float, float] = (1e-3, 1e-3)  # learning rate of everything but the encoder
    encoder: float = 0.05  # the image encoder's rate as a share of `rate`; 0 freezes it
    prompt_chances: tuple[float, float, float] = (0.5, 0.25, 0.25)  # of a mask, a box, a click as the first prompt
    losses: LossWeights = LossWeights()
    stills: float = 0.0  # share of the steps of "clips" that learn from batch * frames stills instead
    streams: float = 0.0  # share of the steps of "clips" that learn from clips of full length, `frames` at a time
    window: int = 0  # pixels; learn from windows of this size around objects; 0: from whole images
    whole: float = 0.0  # share of the steps that take whole images nevertheless, fewer of them: as many pixels
    vanish: float = 0.0  # share of the clips chosen for an object that vanishes and returns; not of streams
    alike: float = 0.0  # weight of the pretext loss added to stills and clips: pixels of an object alike in all frames
    strength: float = 1.0  # of the augmentations, 0..1

    def draw(self, rng: np.random.Generator, side: int) -> "Phase":
        """Draws the next step: this phase with `kind`, `batch`, `frames` and `window` as the shares decide.

        side: of the whole image, pixels.
        """
        step = self
        share = rng.random() if self.stills or self.streams else 1.0
        if share < self.stills:
            step = replace(step, kind="stills", batch=self.batch * self.frames, frames=1)
        elif share < self.stills + self.streams:
            step = replace(step, kind="streams")
        if self.window and rng.random() < self.whole:
            step = replace(step, window=0, batch=max(1, round(step.batch * (self.window / side) ** 2)))
        return step


@dataclass(frozen=True)
class TrainConfig:
    """A recipe: the phases of a run, in order, and what they share."""

    model: str
    phases: tuple[Phase, ...]
    clip_frames: int  # length of the clips the data comes in
    pool: int  # clips kept to draw batches from
    steps: int = 0  # length of the run; 0: by the clock
    budget_minutes: float = 0.0
    size: int = 0  # of the images, pixels; 0: the model's own
    gentle: float = 0.0  # share of the synthetic clips that come from the gentle world
    workers: int = 0  # processes making clips; 0: none, and the run can be repeated exactly
    loss_stride: int = 1  # mask losses are computed at the input's side divided by this
    muon: float = 0.0  # Muon's rate for matrices relative to AdamW's for the rest: needs fewer steps; 0: AdamW for all
    weight_decay: float = 0.01
    layer_decay: float = 1.0  # the rate of each block of the trunk relative to the next, and of the last to the rest
    warmup: int = 50  # steps at the start of each phase
    max_grad_norm: float = 1.0
    ema: float = 0.999
    min_area: int = 16  # pixels an object needs to be prompted
    seed: int = 0  # of everything drawn, and of the first synthetic world
    needs_checkpoint: bool = False  # begins with trained weights, which must be given

    @property
    def image_size(self) -> int:
        """The side of the images, pixels."""
        return self.size or find_config(self.model).image_size

    @property
    def recipe(self) -> str:
        """What must stay the same when a run is resumed; its length, batches and data may change."""
        phases = ", ".join(f"{phase.kind} until {phase.until:g}" for phase in self.phases)
        return f"{find_config(self.model).name} at {self.image_size} pixels, seed {self.seed}: {phases}"


_STILLS = Phase("stills", 1.0, batch=96, objects=16, prompt_chances=(0.0, 0.5, 0.5), losses=EARLY)
_CLIPS = Phase("clips", 1.0, batch=64, objects=4, frames=8, max_stride=4, losses=LATE)

# An endless world needs little augmentation: training and use see the same kind of images.
_MIXED = replace(
    _CLIPS, encoder=0.8, prompt_chances=(0.15, 0.45, 0.4), strength=0.2, stills=0.15, streams=0.45, vanish=0.5
)

_NANO = TrainConfig(  # for one large GPU
    model="nano",
    clip_frames=40,
    gentle=0.15,
    pool=2048,
    budget_minutes=30,
    workers=7,  # more would take processor time from the training loop
    loss_stride=2,
    muon=2.0,
    ema=0.997,
    min_area=60,
    phases=(
        Phase("pretext", 0.04, batch=96, objects=16, rate=(1.5e-3, 1e-3), encoder=1.0, strength=0.3),
        replace(_STILLS, until=0.2, rate=(1.3e-3, 9e-4), encoder=0.7, strength=0.3),
        replace(_MIXED, until=0.4, rate=(9e-4, 8e-4), streams=0.0),
        replace(_MIXED, rate=(8e-4, 1e-6)),
    ),
)

# What is left to learn lies within a pixel of the boundary, and in first masks. Above a rate of 6e-4 IoU stood still.
# See "What was seen on the way" in the card of the weights.
_SHARP = replace(_MIXED, batch=96, losses=replace(LATE, others=0.8), stills=0.25, rate=(6e-4, 1e-6))

_POLISH = replace(
    _NANO,
    loss_stride=1,
    seed=430_000,  # the shipped weights have seen some 20,000 worlds from 1 on, and 30,000 from 400,000 on
    needs_checkpoint=True,
    pool=1536,
    workers=10,
    budget_minutes=17.5,
    phases=(_SHARP,),
)

_NANO_CPU = replace(  # on one core, most of it in windows of half the model's size
    _NANO,
    gentle=0.35,
    workers=1,
    pool=400,
    clip_frames=24,
    loss_stride=4,
    warmup=30,
    budget_minutes=240,
    phases=(
        Phase("pretext", 0.02, batch=16, objects=6, rate=(1.5e-3, 1e-3), encoder=1.0, strength=0.3, window=128),
        replace(_STILLS, until=0.2, batch=32, objects=3, rate=(1.3e-3, 9e-4), encoder=0.7, alike=0.3, strength=0.3,
                window=128),
        replace(_CLIPS, until=0.6, batch=8, objects=3, rate=(9e-4, 3.5e-4), encoder=0.7,
                prompt_chances=(0.3, 0.35, 0.35), frames=4, strength=0.25, stills=0.5, window=128, whole=0.3,
                vanish=0.5),
        replace(_CLIPS, until=1.0, batch=8, objects=3, rate=(3.8e-4, 1e-6), encoder=0.8,
                prompt_chances=(0.15, 0.45, 0.4), frames=4, strength=0.2, stills=0.58, streams=0.32, window=128,
                whole=0.5, vanish=0.6),
    ),
)  # fmt: skip

_POLISH_CPU = replace(
    _NANO_CPU,
    seed=1,
    needs_checkpoint=True,
    budget_minutes=60,
    phases=_NANO_CPU.phases[-1:],
)

_SMOKE = TrainConfig(
    model="nano",
    clip_frames=4,
    pool=24,
    steps=400,
    size=64,
    loss_stride=4,
    warmup=5,
    ema=0.95,
    phases=(
        Phase("pretext", 0.65, batch=8, objects=6, rate=(3e-3, 1e-3), encoder=1.0, strength=0.0),
        Phase("stills", 0.9, batch=8, objects=6, prompt_chances=(0.0, 0.5, 0.5), strength=0.0),
        Phase("clips", 1.0, batch=2, objects=2, frames=4, rate=(5e-4, 5e-4), encoder=0.1, strength=0.0),
    ),
)

# Follows the SAM 2 paper (arXiv 2408.00714), appendix C.2, and the official fine-tuning recipe for MOSE in lengths,
# kinds of prompts, rates, decays and losses. The differences ("there" is the official recipe):
# - a frame is corrected by 1 to 3 clicks, frame 0 in 30 % of the clips that begin with a click or a box, a later
#   frame in 40 %; there by 7, always on frame 0, of which one in ten is drawn from the whole object instead of the
#   error region, and if nothing is wrong a click is drawn, too: here it is left out;
# - a later frame is prompted when tracking reaches it, by clicks that correct the tracked mask; there also without a
#   tracked mask, before tracking begins;
# - masks of prompted frames are binarised before memory encoding, as the tracker does; there only outside training;
# - half of the boxes are exact, there all have noise; half of the first clicks prefer the object's interior;
# - half of the clips are played backwards, there none; objects that vanish are preferred, and where there are fewer
#   than `objects`, some are repeated;
# - all four masks learn to predict their IoU, there only those that are output; IoU and the best mask are determined
#   at the masks' resolution, there at the image's; an object that no prompt showed gives no loss while absent;
# - a mask learns also while the network takes its object for absent; there it is blank then, and learns nothing;
# - losses are averaged over frames and clicks, there summed; AdamW cancels this factor, gradient clipping does not;
# - times of pointers are divided by 15, as in the tracker, there by the length of the clip less one;
# - no drop path, no dropout; stronger augmentation; no weight decay of embeddings; the weights are averaged (EMA).
_FINETUNE = TrainConfig(
    model="tiny",
    clip_frames=8,
    pool=64,  # of 32 MiB each
    needs_checkpoint=True,
    steps=2000,
    workers=4,
    layer_decay=0.9,
    weight_decay=0.1,
    max_grad_norm=0.1,
    phases=(
        Phase("clips", 1.0, batch=1, objects=3, frames=8, rate=(5e-6, 5e-7), encoder=0.6,
              losses=LossWeights(focal=20.0, focal_alpha=0.25, single=None, over_judged=True)),
    ),
)  # fmt: skip

CONFIGS: dict[str, TrainConfig] = {
    "nano": _NANO,
    "nano_cpu": _NANO_CPU,
    "polish": _POLISH,
    "polish_cpu": _POLISH_CPU,
    "smoke": _SMOKE,
    "finetune": _FINETUNE,
}


def find_train_config(name: str) -> TrainConfig:
    """Returns the recipe of that name. Raises BadInput that lists the names."""
    if name not in CONFIGS:
        raise BadInput(f"training config {name!r}: expected one of {', '.join(CONFIGS)}")
    return CONFIGS[name]
