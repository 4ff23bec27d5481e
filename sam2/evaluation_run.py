"""Evaluates videos one after another in this process, or in several worker processes.

Knows neither what is measured nor the command line.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch
from tqdm import tqdm

from sam2.errors import BadInput, DeviceLost, Sam2Error
from sam2.evaluation_files import Results
from sam2.evaluation_video import AnyVideo, StreamTracker, VideoResult, evaluate_video

MakeTracker = Callable[[], StreamTracker]


def evaluate_all(
    videos: Sequence[AnyVideo], prompt: str, make_tracker: MakeTracker, results: Results, workers: int
) -> list[VideoResult]:
    """Results of all videos, in the same order; those that `results` has from an earlier run are not computed again.

    prompt: one of PROMPT_KINDS; workers: processes, each with a tracker of its own, 1 = this process (for more,
    make_tracker must be picklable). A video that cannot be read or tracked is reported and gives a result with a
    `failure`, which is not stored. Raises BadInput if two videos have the same name, DeviceLost, and what make_tracker
    raises; results until then stay stored.
    """
    counts = Counter(video.name for video in videos)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise BadInput(
            f"videos: expected different names, since results are kept by name, got {', '.join(twice)} twice"
        )
    done = {video.name: found for video in videos if (found := results.find(video))}
    missing = [video for video in videos if video.name not in done]
    if len(missing) < len(videos):
        print(f"{len(videos) - len(missing)} of {len(videos)} videos: {results.folder} has their results", flush=True)
    run = _in_processes if workers > 1 and len(missing) > 1 else _in_this_process
    with tqdm(total=len(videos), initial=len(videos) - len(missing), unit="video", desc=prompt) as progress:
        for result in run(missing, prompt, make_tracker, workers):
            if result.failure:
                tqdm.write(f"video {result.name} failed: {result.failure}", file=sys.stderr)
            else:
                results.keep(result)
            done[result.name] = result
            progress.update()
    return [done[video.name] for video in videos]


def _in_this_process(videos: list[AnyVideo], prompt: str, make_tracker: MakeTracker, _: int) -> Iterator[VideoResult]:
    if not videos:
        return
    tracker = make_tracker()
    for video in videos:
        yield _play(video, tracker, prompt)


def _play(video: AnyVideo, tracker: StreamTracker, prompt: str) -> VideoResult:
    """The result of one video; any failure but a lost device becomes part of it, so that the other videos go on."""
    try:
        return evaluate_video(video, tracker, prompt)
    except DeviceLost:
        raise
    except (Sam2Error, OSError) as error:  # whose messages say what is wrong
        failure = str(error) or repr(error)
    except Exception:
        failure = traceback.format_exc()
    return VideoResult(video.name, 0, 0.0, [], failure)


_tracker: StreamTracker | Exception  # set in each worker process before its first video


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Ends this process when its parent ends: a killed parent cannot stop its workers, which would wait for ever."""
    parent.join()
    os._exit(1)


def _start_worker(make_tracker: MakeTracker) -> None:
    global _tracker
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops the workers
    torch.set_num_threads(1)
    try:
        _tracker = make_tracker()
    except Exception as error:  # raised with the first video instead, since an error here would only break the pool
        _tracker = error


def _work(video: AnyVideo, prompt: str) -> VideoResult:
    if isinstance(_tracker, Exception):
        raise _tracker
    return _play(video, _tracker, prompt)


def _in_processes(
    videos: list[AnyVideo], prompt: str, make_tracker: MakeTracker, workers: int
) -> Iterator[VideoResult]:
    """Yields results in the order in which the videos finish."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(workers, len(videos)), context, _start_worker, (make_tracker,)) as pool:
        jobs = [pool.submit(_work, video, prompt) for video in videos]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            raise Sam2Error(
                "evaluation: one of its processes was killed, most likely for lack of memory; use fewer --workers; "
                "finished videos are kept"
            ) from error
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:  # its video may take minutes more
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise
