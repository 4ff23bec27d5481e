"""Annotated videos on disk: DAVIS 2017, YouTube-VOS, MOSE, LVOS and SA-V, all read alike.

Knows file layouts; nothing of training. A video has frames, in order, and masks by frame index. Layouts are those of
the datasets' own downloads (davischallenge.org, youtube-vos.org, MOSE and LVOS project pages,
ai.meta.com/datasets/segment-anything-video).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2.errors import BadInput
from sam2.training.dataset_files import find_files, in_order, read_film, read_list, read_rgb
from sam2.training.dataset_masks import FolderMasks, RleMasks


@dataclass(frozen=True)
class Layout:
    """Where one dataset keeps its folders; {split} is filled in."""

    frames: str
    masks: str
    source: str  # where to get it
    validation: str = "valid"  # its name for the split to be evaluated on
    list_file: str = ""  # names of the split's videos, one per line; "" = every folder is a video


LAYOUTS: dict[str, Layout] = {
    "davis": Layout(
        "JPEGImages/480p",
        "Annotations/480p",
        "https://davischallenge.org/davis2017/code.html (TrainVal, 480p)",
        "val",
        "ImageSets/2017/{split}.txt",
    ),
    "youtube_vos": Layout("{split}/JPEGImages", "{split}/Annotations", "https://youtube-vos.org/dataset/vos"),
    "mose": Layout("{split}/JPEGImages", "{split}/Annotations", "https://henghuiding.com/MOSE"),
    "lvos": Layout("{split}/JPEGImages", "{split}/Annotations", "https://lingyihongfd.github.io/lvos.github.io"),
    "sav": Layout(
        "sav_{split}/JPEGImages_24fps",
        "sav_{split}/Annotations_6fps",
        "https://ai.meta.com/datasets/segment-anything-video-downloads",
        "val",
        "sav_{split}/sav_{split}.txt",
    ),
}


@dataclass(frozen=True)
class Video:
    """One annotated video. `masks` holds only the annotated frames; an absent object has no mask there or, if the
    dataset stores each object separately, an empty one."""

    name: str
    source: Path | tuple[Path, ...]  # an .mp4, or the image files in order
    masks: FolderMasks | RleMasks

    @property
    def files(self) -> list[Path]:
        """All files it is read from."""
        return [*(self.source if isinstance(self.source, tuple) else [self.source]), *self.masks.paths]

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame in order, (H, W, 3) uint8 RGB. Raises BadInput where a film ends before its masks."""
        if isinstance(self.source, tuple):
            yield from (read_rgb(path) for path in self.source)
        else:
            count = 0
            for _, frame in read_film(self.source):
                yield frame
                count += 1
            self._check_end([index for index in self.masks if index >= count])

    def frames_at(self, indices: list[int]) -> list[np.ndarray]:
        """Some frames, in the order asked for; cheap for images, but a film is decoded up to the last of them."""
        if isinstance(self.source, tuple):
            return [read_rgb(self.source[i]) for i in indices]
        wanted, kept = set(indices), {}
        for index, frame in read_film(self.source, wanted):
            kept[index] = frame
            if len(kept) == len(wanted):
                break
        self._check_end(sorted(wanted - set(kept)))
        return [kept[i] for i in indices]

    def _check_end(self, missing: list[int]) -> None:
        if missing:
            raise BadInput(f"{self.source}: frames {missing} are annotated, but the film ends before them")


def open_dataset(name: str, root: str | Path, split: str = "train") -> list[Video]:
    """Returns the videos of one split, sorted by name, without reading frames or masks.

    name: a key of LAYOUTS; root: the folder the download was unpacked into; split as the dataset calls it ("train",
    "val", "valid", "test"). Raises BadInput saying where to get the dataset and which folder was expected.
    """
    if name not in LAYOUTS:
        raise BadInput(f"dataset {name!r}: expected one of {', '.join(LAYOUTS)}")
    root, layout = Path(root), LAYOUTS[name]
    if name == "sav" and split == "train":
        return _open_sav_films(root, layout)
    frames, masks = root / layout.frames.format(split=split), root / layout.masks.format(split=split)
    for folder in (frames, masks):
        if not folder.is_dir():
            raise BadInput(
                f"{name} ({split}): expected the folder {folder}; name the root that holds it, or get the dataset from "
                f"{layout.source}"
            )
    names = _video_names(root, layout, split, masks)
    if not names:
        raise BadInput(f"{name} ({split}): no video in {masks}; get the dataset from {layout.source}")
    return [_open_folder(frames / video, masks / video) for video in names]


def describe(name: str, split: str) -> str:
    """Describes the folder that `open_dataset` expects as root, and where to get it."""
    layout = LAYOUTS[name]
    holds = " and ".join(folder.format(split=split) for folder in (layout.frames, layout.masks))
    if name == "sav" and split == "train":
        holds = "<name>.mp4 beside <name>_manual.json"
    return f"the folder that holds {holds}, from {layout.source}"


def _video_names(root: Path, layout: Layout, split: str, masks: Path) -> list[str]:
    listed = root / layout.list_file.format(split=split)
    if layout.list_file and listed.is_file():
        names = read_list(listed)
        if not names:
            raise BadInput(f"{listed}: expected names of videos, a line each, found none; write them there")
        _check_apart(root, layout, split, names)
        for name in names:
            if not (masks / name).is_dir():
                raise BadInput(f"{listed}: names {name}, expected the folder {masks / name}; correct the list")
        return names
    if layout.list_file and "{split}" not in layout.masks:  # only the list tells the splits apart
        raise BadInput(
            f"expected {listed} with the names of the videos, a line each: write it, if the data are your own, or get "
            f"the dataset from {layout.source}"
        )
    return sorted(folder.name for folder in masks.iterdir() if folder.is_dir() and folder.name[0] != ".")


def _check_apart(root: Path, layout: Layout, split: str, names: list[str]) -> None:
    """Raises BadInput if a video is both trained on and evaluated: it would be scored too well."""
    other = {"train": "val", "val": "train"}.get(split, "")
    theirs = root / layout.list_file.format(split=other)
    if shared := set(names) & set(read_list(theirs) if other and theirs.is_file() else ()):
        raise BadInput(
            f"{theirs}: names {min(shared)}, as does {split}.txt; expected each video in one list, since what was "
            "trained on is scored too well; remove it from one"
        )


def _object_id(folder: Path) -> int:
    if not folder.name.isdecimal():
        raise BadInput(f"{folder}: expected one folder of masks per object, named by its number")
    return int(folder.name)


def _open_folder(frames: Path, masks: Path) -> Video:
    pictures = (p for p in frames.glob("[!.]*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = tuple(sorted(pictures, key=in_order))
    if not images:
        raise BadInput(f"{frames}: expected JPEG frames, found none")
    index_of = {path.stem: index for index, path in enumerate(images)}
    if len(index_of) < len(images):
        twice = next(path for index, path in enumerate(images) if index_of[path.stem] != index)
        raise BadInput(f"{twice}: expected one picture of each frame, got another of {twice.stem}; move one elsewhere")
    files: dict[int, list[tuple[int | None, Path]]] = {}
    for path in find_files(masks, (".png",)):  # either one per frame, or one folder per object
        object_id = _object_id(path.parent) if path.parent != masks else None
        if path.stem not in index_of:
            raise BadInput(
                f"{path}: expected its frame {path.stem}.jpg in {frames}, found none; put it there, or remove the mask"
            )
        files.setdefault(index_of[path.stem], []).append((object_id, path))
    if not files:
        raise BadInput(f"{masks}: expected PNG masks named like the frames in {frames}, found none")
    return Video(frames.name, images, FolderMasks(dict(sorted(files.items()))))


def _open_sav_films(root: Path, layout: Layout) -> list[Video]:
    """SA-V's training part: `<name>.mp4` beside `<name>_manual.json` (or `_auto.json`), in any subfolder."""
    videos = []
    for film in find_files(root, (".mp4",)):
        notes = [film.with_name(f"{film.stem}_{kind}.json") for kind in ("manual", "auto")]
        found = next((path for path in notes if path.is_file()), None)
        if found is not None:
            videos.append(Video(film.stem, film, RleMasks(found)))
    if not videos:
        raise BadInput(
            f"sav (train): expected <name>.mp4 beside <name>_manual.json under {root}; get it from {layout.source}"
        )
    return videos
