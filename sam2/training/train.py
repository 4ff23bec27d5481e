"""Train or fine-tune SAM 2: one loop, resumable, on one CPU or many GPUs.

    python -m sam2.training.train --config smoke --out out/smoke
    python -m sam2.training.train --config nano --out out/nano --minutes 9          # run again to go on
    python -m sam2.training.train --config finetune --model tiny --checkpoint sam2.1_hiera_tiny.pt \\
        --dataset davis --root /data/DAVIS --out out/davis --export out/davis/tiny.pt
    torchrun --nproc-per-node 8 -m sam2.training.train --config finetune ...

The folder --out keeps `state.pt` (everything needed to go on), `log.csv`, `validation.csv`, `curves.png`,
`contact_sheet.png` and, when the command ends, the averaged weights as `weights.pt`. Recipes are in `config`.
"""

import math
import sys
import time
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from sam2.checkpoint import load_weights
from sam2.config import find_config
from sam2.errors import BadInput, OutOfMemory
from sam2.training import report, state
from sam2.training.config import Phase, TrainConfig
from sam2.training.data import Source, open_source
from sam2.training.draws import Maker
from sam2.training.lessons import Lessons
from sam2.training.optim import Average, make_optimizer, prepare_from_scratch, set_rates
from sam2.training.state import Progress, Stateful
from sam2.training.stop import noted_signals
from sam2.training.team import ALONE, NotMade, Team, learning_together
from sam2.training.validate import held_out_clips, validate
from sam2.training.windows import WindowedSAM2
from sam2.weights_cache import sha256

LOG_EVERY = 10  # steps; the only moments the loop waits for the device
SAVE_EVERY_S, VALIDATE_EVERY_S = 45, 90  # at least; longer where it takes more than a twentieth of the time
MAX_FAILURES, FAILURES_WITHIN = 5, 1000  # non-finite losses allowed, in this many steps
_BAR = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed} {postfix}"


class Trainer:
    """Owns the weights, the optimiser and the place in the schedule. `run` does the work."""

    def __init__(self, config: TrainConfig, maker: Maker, out: Path, device: torch.device, team: Team = ALONE):
        self.config, self.out, self.device, self.team = config, out, device, team
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = WindowedSAM2(replace(find_config(config.model), image_size=config.image_size))
        prepare_from_scratch(self.model)
        self.lessons = Lessons(self.model, config.min_area, config.loss_stride, maker.is_varied).to(device).train()
        self.wrapped: nn.Module = learning_together(self.lessons) if team.size > 1 else self.lessons
        self.optimizer = make_optimizer(self.lessons, config.weight_decay, config.layer_decay, config.muon)
        self.average = Average(self.lessons, config.ema)
        self.progress = Progress()
        self.maker = maker
        self.steps_per_s = 0.0
        self.kind = ""  # of the newest step
        self.batch_scale = 1.0  # halved where a batch does not fit
        self.failures: list[int] = []  # recent steps at which the loss was not finite

    @property
    def _modules(self) -> dict[str, Stateful]:
        return {"model": self.lessons, "optimizer": self.optimizer, "average": self.average}

    @cached_property
    def held_out(self) -> Tensor:  # (clips, frames, S, S, 4) uint8: RGB and the objects' numbers
        return torch.from_numpy(held_out_clips(self.maker, self.config.min_area)).to(self.device)

    def start_from(self, path: Path) -> None:
        """Begins with the weights in a file instead of random ones. Raises BadCheckpoint unless it holds exactly the
        model's."""
        load_weights(self.model, path)
        self.average = Average(self.lessons, self.config.ema)
        self.progress.began_with = sha256(path)

    def resume(self) -> bool:
        """Resumes from the folder's state; False if there is none, and old logs are set aside. Raises what `load_state`
        raises, and BadInput if the team's processes found different states."""
        self.lessons.streams.clear()
        found = state.load_state(self.out, self._modules, self.config.recipe)
        self.progress = found or self.progress
        first = int(self.team.agree(self.progress.step, self.device))
        if first != self.progress.step:
            raise BadInput(
                f"{self.out}: this process goes on from step {self.progress.step}, the first of the team from {first}; "
                "expected one folder that all machines share"
            )
        if self.team.leads:
            report.go_back(self.out, first if found else None)
        return found is not None

    @property
    def share(self) -> float:
        """How much of the run is done, 0..1."""
        if self.config.steps:
            return self.progress.step / self.config.steps
        return self.progress.elapsed_s / (60 * self.config.budget_minutes)

    def run(self, seconds: float = math.inf) -> int:
        """Trains until the run is done, `seconds` have passed or a signal comes; returns the signal's number, 0 if
        none.

        Saves the state and, unless a signal ended it, runs `check`. Raises FloatingPointError if the loss stays
        non-finite, and what making clips raises, after saving the progress so far.
        """
        _ = self.held_out  # what is wrong with them ends every process of the team now, not one at the first check
        self.save()  # `_throw_back` needs a state to resume
        earlier_clips = self.progress.clips_made
        losses, failure, done = {}, None, min(self.share, 1.0)
        with (
            noted_signals() as signals,
            closing(open_source(self.maker, self.device, self.config, earlier_clips, self.team)) as source,
            closing(tqdm(total=1, initial=done, disable=not self.team.leads, mininterval=5, bar_format=_BAR)) as bar,
        ):
            begin = clock = time.monotonic()
            next_save, next_check = begin + SAVE_EVERY_S, begin + VALIDATE_EVERY_S
            while self.share < 1 and not failure and self._is_in_time(begin, seconds, signals):
                first = self.progress.step
                try:
                    for _ in range(self._steps_until_look()):
                        losses = self._step_that_fits(source)
                        if signals and self.team.size == 1:  # a team stops together
                            break
                except NotMade as error:
                    failure = error.__cause__
                    if self.progress.step == first:  # there is nothing new to log
                        break
                self.progress.clips_made = earlier_clips + source.clips_made
                now = time.monotonic()
                self.progress.elapsed_s += self.team.agree(now - clock, self.device)
                self.steps_per_s, clock = (self.progress.step - first) / (now - clock), now
                if not self._log(losses, bar):
                    continue
                if self.team.leads and now >= next_check:
                    bar.write(self.check())
                    clock = time.monotonic()
                    next_check = clock + max(VALIDATE_EVERY_S, 20 * (clock - now))
                if (now := time.monotonic()) >= next_save:
                    self.save()
                    clock = time.monotonic()
                    next_save = clock + max(SAVE_EVERY_S, 20 * (clock - now))
        self.save()
        if failure:
            self._end_for_want_of_clips(failure)
        stopped_by = int(self.team.largest(max(signals, default=0), self.device))
        if self.team.leads and not stopped_by:
            print(self.check(), flush=True)
        return stopped_by

    def _end_for_want_of_clips(self, failure: BaseException) -> NoReturn:
        if self.team.leads:
            print(
                f"step {self.progress.step} is saved; when this is put right, the same command goes on:",
                file=sys.stderr,
            )
        self.leave_team()
        raise failure

    def _is_in_time(self, begin: float, seconds: float, signals: list[int]) -> bool:
        """Whether to take another step; the same in every process of the team."""
        return self.team.largest(math.inf if signals else time.monotonic() - begin, self.device) < seconds

    def _steps_until_look(self) -> int:
        left = self.config.steps - self.progress.step if self.config.steps else LOG_EVERY
        return min(LOG_EVERY, left)

    def _enter_phase(self) -> tuple[Phase, float]:
        """Notes in `progress` which phase the run is in; returns it, and how much of it is done, 0..1."""
        index = next((i for i, p in enumerate(self.config.phases) if self.share < p.until), len(self.config.phases) - 1)
        if index != self.progress.phase:
            self.progress.phase, self.progress.phase_step = index, 0
        phase = self.config.phases[index]
        start = self.config.phases[index - 1].until if index else 0.0
        return phase, (self.share - start) / (phase.until - start)

    def _step_that_fits(self, source: Source) -> dict[str, Tensor]:
        """Takes a step; if the batch does not fit into the device's memory, halves batches from now on."""
        while True:
            try:
                return self._step(source)
            except torch.OutOfMemoryError as error:
                phase = self.config.phases[self.progress.phase]
                images = phase.frames if phase.stills else 1  # how much larger a batch of stills is
                if self.team.size > 1 or phase.batch * images * self.batch_scale <= 1:
                    which = "in a team" if self.team.size > 1 else "even of one clip"
                    raise OutOfMemory(
                        f"{self.device}: no memory for a step, {which}; give a smaller --size, --pool or --batch-scale "
                        f"({error})"
                    ) from error
            self.batch_scale /= 2
            self.lessons.streams.clear()
            torch.cuda.empty_cache()
            tqdm.write(
                f"out of device memory at step {self.progress.step}: batches are {self.batch_scale} of the recipe's"
            )

    def _step(self, source: Source) -> dict[str, Tensor]:
        at = self.progress
        phase, done = self._enter_phase()
        rng = np.random.default_rng((self.config.seed, at.retries, at.step))  # the same plan in every process
        own = np.random.default_rng((self.config.seed, at.retries, at.step, self.team.rank))
        torch.manual_seed(int(own.integers(2**62)))
        rate = set_rates(self.optimizer, phase, done, (at.phase_step + 1) / self.config.warmup)
        drawn = phase.draw(rng, self.model.config.image_size)
        losses = self.wrapped(self.team.together(lambda: self._sample(source, drawn, own)), drawn, rng)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.lessons.parameters(), self.config.max_grad_norm, foreach=True)
        self.optimizer.step()
        self.average.update(self.lessons, at.step)
        at.step += 1
        at.phase_step += 1
        losses |= {"grad_norm": norm, "rate": torch.tensor(rate)}
        self.kind = drawn.kind
        return {name: value.detach() for name, value in losses.items()}

    def _sample(self, source: Source, drawn: Phase, rng: np.random.Generator) -> Tensor | None:
        """Draws the clips of a step; None if it continues an open stream."""
        frames, stride, vanish = drawn.frames, drawn.max_stride, drawn.vanish
        if drawn.kind == "streams":
            if not self.lessons.streams.is_due(drawn.window):
                return None
            frames, stride, vanish = self.config.clip_frames, 1, 0.0
        batch = max(1, round(drawn.batch * self.batch_scale))
        return source.sample(rng, self.progress.step, batch, frames, stride, vanish)

    def _log(self, losses: dict[str, Tensor], bar: tqdm) -> bool:
        """Logs a line; False if the loss was not finite and the run went back to its last saved state."""
        values = {name: float(value) for name, value in losses.items()}
        if not math.isfinite(self.team.agree(values["loss"] + values["grad_norm"], self.device)):
            self._throw_back(values)
            return False
        at, phase = self.progress, self.config.phases[self.progress.phase]
        if self.team.leads:
            report.log_step(self.out, at, self.kind, values, self.steps_per_s)
            bar.set_description_str(f"{at.phase} {phase.kind}", refresh=False)
            bar.set_postfix_str(f"step {at.step} loss {values['loss']:.3f} IoU {values['iou']:.3f}", refresh=False)
            bar.update(min(self.share, 1.0) - bar.n)
        return True

    def _throw_back(self, values: dict[str, float]) -> None:
        retries, step = self.progress.retries + 1, self.progress.step
        self.failures = [*(failed for failed in self.failures if failed > step - FAILURES_WITHIN), step]
        if len(self.failures) > MAX_FAILURES or not self.resume():
            raise FloatingPointError(
                f"step {step}: expected a loss that is a number, got {values}, {len(self.failures)} times in "
                f"{FAILURES_WITHIN} steps; lower the phase's `rate` in sam2/training/config.py"
            )
        self.progress.retries = retries  # so that other clips and prompts are drawn
        tqdm.write(f"the loss is no number; back to step {self.progress.step}")

    def check(self) -> str:
        """Validates the averaged weights; writes figures and pictures; returns one line of text."""
        self.average.swap(self.lessons)
        self.model.view.move(self.model.config.image_size)
        result = validate(self.model, self.held_out, objects=3, min_area=self.config.min_area)
        self.average.swap(self.lessons)
        at = self.progress
        report.log_check(self.out, at, result)
        report.draw_curves(self.out)
        report.draw_contact_sheet(self.out, self.held_out[..., :3].cpu().numpy(), result.masks, result.targets)
        place = f"step {at.step}, {at.elapsed_s / 60:.1f} min, phase {at.phase} {self.config.phases[at.phase].kind}"
        return f"{place}, {self.steps_per_s:.1f} steps/s, {at.clips_made} clips made; {result}"

    def save(self) -> None:
        if self.team.leads:
            state.save_state(self.out, self._modules, self.progress, self.config.recipe)

    def export(self, path: Path) -> None:
        """Writes the averaged weights in the official layout, `.pt` or `.safetensors`."""
        state.export(state.averaged_weights(self.model, self.average.state_dict()), path)

    def leave_team(self) -> None:
        """Destroys the process group that `join_team` made, once no process of the team waits for another."""
        if self.team.size > 1:
            dist.barrier()
            # The wrapper holds the group. Freed with it, the group would wait for threads that need the GIL.
            self.wrapped = self.lessons
            dist.destroy_process_group()


if __name__ == "__main__":
    from sam2.training.cli import main

    sys.exit(main())
