"""Scenes: reproducible, annotated exactly, and with the promised statistics."""

import itertools

import cv2
import numpy as np
import pytest

from mmmsvmamba.datasets import shapes
from mmmsvmamba.datasets.shapes import make_class_picture, make_scene
from mmmsvmamba.datasets.shapes_figures import ColourBaseline, Figures, describe

SCENE_0 = [  # label and box of every instance
    (0, (106, 94, 22, 34)),
    (1, (0, 88, 33, 40)),
    (0, (68, 38, 60, 65)),
    (1, (4, 16, 33, 31)),
    (0, (10, 38, 22, 21)),
]


@pytest.fixture(scope='module')
def scenes():
    return [make_scene('train', index) for index in range(60)]


def test_a_scene_is_a_function_of_its_arguments():
    first, again = make_scene('train', 3), make_scene('train', 3)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.semantic_map(), again.semantic_map())
    for other in (make_scene('train', 4), make_scene('val', 3), make_scene('train', 3, seed=1)):
        assert (first.image != other.image).mean() > 0.5


def test_the_drawing_has_not_changed():
    """If this fails on purpose, raise DRAWING_VERSION: written data sets are reused by it."""
    scene = make_scene('train', 0)
    drawn = [(instance.label, instance.bbox) for instance in scene.instances]
    assert (shapes.DRAWING_VERSION, drawn) == (2, SCENE_0)


def test_splits_and_seeds_share_no_picture():
    pictures = []
    for split, seed, index in itertools.product(shapes.SPLITS, (0, 1), range(20)):
        pictures.append(make_scene(split, index, seed, size=64).image)
        pictures.append(make_class_picture(split, index, seed, size=64)[0])
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_annotation_is_what_painting_the_shapes_in_order_leaves_visible(monkeypatch):
    painted = []
    paint = shapes._paint
    monkeypatch.setattr(shapes, '_paint', lambda r, c, s: (painted.append(s), paint(r, c, s)))
    for index in range(40):
        painted.clear()
        scene = make_scene('val', index)
        front_most = np.zeros(scene.image.shape[:2], int)
        for number, shape in enumerate(painted, 1):
            front_most[shape.window][shape.coverage >= 128] = number
        assert len(scene.instances) == len(painted)  # nothing visible is left unlabelled
        for number, (shape, instance) in enumerate(zip(painted, scene.instances, strict=True), 1):
            np.testing.assert_array_equal(instance.mask, front_most == number)
            assert instance.label == shape.label
            assert instance.hidden == pytest.approx(1 - (front_most == number).sum() / shape.area)


def test_masks_lie_on_the_pixels_of_one_colour(scenes):
    """Textures change brightness alone, so inside a mask all pixels point in one RGB direction."""
    checked = 0
    for scene in scenes:
        for instance in scene.instances:
            inner = cv2.erode(instance.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            pixels = scene.image[inner].astype(float)
            pixels = pixels[(pixels.max(1) < 250) & (pixels.max(1) > 60)]
            if len(pixels) < 50:
                continue
            directions = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
            common = np.median(directions, 0)
            cosine = directions @ common / np.linalg.norm(common)
            assert np.mean(cosine > 0.97) > 0.95
            checked += 1
    assert checked > 100


def test_boxes_and_areas(scenes):
    for instance in (i for scene in scenes for i in scene.instances):
        y, x = np.nonzero(instance.mask)
        assert instance.bbox == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        assert instance.area == len(x) >= shapes.MIN_VISIBLE


@pytest.mark.parametrize('size', [64, 97, 256])
def test_other_sizes(size):
    scene = make_scene('train', 1, size=size)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    smallest = shapes.MIN_VISIBLE * (size / 128) ** 2
    assert all(i.area >= smallest and i.hidden <= shapes.MAX_HIDDEN for i in scene.instances)


def test_max_objects():
    assert {len(make_scene('train', i, max_objects=2).instances) for i in range(30)} == {1, 2}


def test_pictures_of_a_class_hold_whole_shapes_of_it_and_take_turns(monkeypatch):
    painted, counts = [], set()
    paint = shapes._paint
    monkeypatch.setattr(shapes, '_paint', lambda r, c, s: (painted.append(s), paint(r, c, s)))
    for index in range(40):
        painted.clear()
        image, label = make_class_picture('val', index, size=80)
        assert image.shape == (80, 80, 3) and label == index % len(shapes.CLASSES)
        assert {shape.label for shape in painted} == {label}
        assert all(np.count_nonzero(shape.coverage >= 128) == shape.area for shape in painted)
        counts.add(len(painted))
    assert counts == {2, 3, 4}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(split='test', index=0), "unknown split 'test', expected one of train, val"),
        (dict(split='train', index=-1), 'must not be negative'),
        (dict(split='train', index=0, seed=-1), 'must not be negative'),
        (dict(split='train', index=0, size=32), 'size must be 64 to 1024 pixels, got 32'),
        (dict(split='train', index=0, max_objects=0), 'max_objects must be at least 1'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_scene(**arguments)


def test_promised_statistics():
    figures = Figures()
    for split, count in (('train', 500), ('val', 200)):
        for index in range(count):
            figures.add(split, make_scene(split, index))
    summary = figures.summary()
    for split in shapes.SPLITS:
        part = summary[split]
        assert part['objects_per_scene']['min'] == 1
        assert 8 <= part['objects_per_scene']['max'] <= 12
        assert 0.3 <= part['small_share'] <= 0.8
        assert part['hidden']['mean'] > 0.1
        assert 0.5 < part['hidden']['max'] <= 0.6
        per_class = part['instances_per_class'].values()
        assert min(per_class) > 0.8 * max(per_class)
    assert summary['train']['objects_per_scene']['max'] > 10
    assert 0.2 < summary['colour_only']['miou'] < 0.45
    assert f'mIoU {summary["colour_only"]["miou"]:.3f}' in describe(summary)


def test_colour_baseline_against_pixels_counted_by_hand():
    red, blue = np.uint8([220, 10, 10]), np.uint8([10, 10, 220])
    baseline = ColourBaseline()
    baseline.fit(np.stack([[red, red, red, blue]]), np.uint8([[1, 1, 0, 0]]))  # red means 1, blue 0
    baseline.score(np.stack([[red, red, blue, blue]]), np.uint8([[1, 0, 0, 2]]))
    # 0: one hit, and one each missed and false; 1: one hit, one false; 2: missed; 3, 4: absent
    np.testing.assert_allclose(baseline.iou(), [1 / 3, 1 / 2, 0, np.nan, np.nan])
