"""Draws a whole data set into a folder: all of it or nothing."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .shapes import CLASSES, DRAWING_VERSION, SPLITS, make_class_picture, make_scene
from .shapes_figures import Figures
from .shapes_layouts import AdeWriter, ClassFolderWriter, CocoWriter, encode_png

_SCENE_WRITERS = dict(coco=CocoWriter, ade=AdeWriter)
_WRITERS = _SCENE_WRITERS | dict(imagenet=ClassFolderWriter)
LAYOUTS = tuple(_WRITERS)
RECORD = 'shapes.json'  # parameters and figures; written last

Track = Callable[[Iterable[int], str], Iterable[int]]


@dataclass(frozen=True)
class ShapesSpec:
    """What to draw.

    Attributes:
        train: Training scenes.
        val: Unseen scenes.
        size: Side of a scene in pixels, 64 to 1024; pictures of a class are three quarters of
            it, at least 64.
        seed: Another seed is another data set.
        layouts: Some of ``LAYOUTS``. The class folders hold twice as many pictures as there are
            scenes.
    """

    train: int = 2000
    val: int = 200
    size: int = 128
    seed: int = 0
    layouts: tuple[str, ...] = LAYOUTS

    def __post_init__(self) -> None:
        if self.train < 1 or self.val < 1:
            raise ValueError(f'train and val must be at least 1, got {self.train} and {self.val}')
        if unknown := set(self.layouts) - set(LAYOUTS):
            known = ', '.join(LAYOUTS)
            raise ValueError(f'unknown layout {", ".join(sorted(unknown))}, known are {known}')

    def scenes(self, split: str) -> range:
        """Numbers of a split's scenes."""
        return range(self.train if split == 'train' else self.val)

    def class_pictures(self, split: str) -> range:
        """Numbers of a split's pictures of a class."""
        return range(2 * len(self.scenes(split)))

    @property
    def class_picture_size(self) -> int:
        """Side in pixels of a picture of a class."""
        return max(64, self.size * 3 // 4)


def export_shapes(
    out: Path,
    spec: ShapesSpec,
    force: bool = False,
    track: Track = lambda numbers, title: numbers,
) -> tuple[dict, bool]:
    """Writes the data set, or finds it written already.

    Everything is drawn into a temporary folder beside ``out``, which takes its final name when it
    is complete.

    Args:
        out: Folder to make.
        spec: What to draw.
        force: Draw anew and replace a data set of this kind that is there already. Other files are
            never deleted.
        track: Wraps the loops over pictures to show their progress, given the numbers and a title.

    Returns:
        The figures (see :class:`Figures`), and whether an existing data set was reused.

    Raises:
        FileExistsError: If ``out`` holds another data set (and not ``force``), or anything that is
            not one.
        OSError: If the folder cannot be written.
        ValueError: If the size or the seed of ``spec`` is out of range.
    """
    out = out.resolve()  # a link to a folder stays a link
    _refuse_foreign(out)
    if not force and (figures := _existing_figures(out, spec)) is not None:
        return figures, True

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as workshop:
        fresh = Path(workshop) / 'fresh'
        fresh.mkdir()
        figures = _write_scenes(fresh, spec, track)
        if 'imagenet' in spec.layouts:
            _write_class_pictures(fresh, spec, track)
        record = json.dumps(_parameters(spec) | {'figures': figures}, indent=2)
        (fresh / RECORD).write_text(record + '\n', encoding='utf-8')
        if out.exists():
            os.rename(out, Path(workshop) / 'replaced')
        os.rename(fresh, out)
    return figures, False


def _write_scenes(root: Path, spec: ShapesSpec, track: Track) -> dict:
    writers = [make(root) for layout, make in _SCENE_WRITERS.items() if layout in spec.layouts]
    figures = Figures()
    for split in SPLITS:
        for index in track(spec.scenes(split), f'{split} scenes'):
            scene = make_scene(split, index, spec.seed, spec.size)
            figures.add(split, scene)
            png = encode_png(scene.image) if writers else b''
            for writer in writers:
                writer.add(split, f'{split}_{index:06d}', png, scene)
    for writer in writers:
        writer.close()
    return figures.summary()


def _write_class_pictures(root: Path, spec: ShapesSpec, track: Track) -> None:
    writer = ClassFolderWriter(root)
    for split in SPLITS:
        for index in track(spec.class_pictures(split), f'{split} class pictures'):
            image, label = make_class_picture(split, index, spec.seed, spec.class_picture_size)
            writer.add(split, f'{split}_{index:06d}', encode_png(image), label)


def _parameters(spec: ShapesSpec) -> dict:
    layouts = [layout for layout in LAYOUTS if layout in spec.layouts]
    made_by = {'drawing': DRAWING_VERSION, 'classes': list(CLASSES)}
    return made_by | asdict(spec) | {'layouts': layouts}


def _refuse_foreign(out: Path) -> None:
    """Raises FileExistsError unless ``out`` is absent, empty, or written by an earlier run."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f'{out} is a file, not a folder: choose another place with --out')
    entries = {entry.name for entry in out.iterdir()}
    foreign = sorted(entries - {RECORD, *(writer.FOLDER for writer in _WRITERS.values())})
    if entries and RECORD not in entries:
        foreign = sorted(entries)
    if foreign:
        listed = ', '.join(foreign[:3]) + (', …' if len(foreign) > 3 else '')
        raise FileExistsError(
            f'{out} holds files that this tool did not write ({listed}); '
            'it does not delete them: choose another folder with --out, or move them away'
        )


def _existing_figures(out: Path, spec: ShapesSpec) -> dict | None:
    """The figures of a data set at ``out`` that serves for ``spec``; None if there is none."""
    record_path = out / RECORD
    if not record_path.exists():
        return None
    try:
        record = json.loads(record_path.read_text(encoding='utf-8'))
        figures, there = record['figures'], set(record['layouts']) & set(LAYOUTS)
    except (ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f'{record_path} cannot be read ({error!r}): draw the data set anew with --force'
        ) from error
    wanted = _parameters(spec)
    differing = [
        f'{key} is {record.get(key)}, wanted {value}'
        for key, value in wanted.items()
        if key != 'layouts' and record.get(key) != value
    ]
    there = {layout for layout in there if (out / _WRITERS[layout].FOLDER).is_dir()}
    if missing := [layout for layout in wanted['layouts'] if layout not in there]:
        differing.append(f'missing layout: {", ".join(missing)}')
    if differing:
        raise FileExistsError(
            f'{out} already holds another data set ({"; ".join(differing)}): '
            'replace it with --force, or choose another folder with --out'
        )
    return figures
