"""The written data set: layouts that the libraries read, equal to one another, all or nothing."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmmsvmamba.datasets.shapes import CLASSES, SEG_CLASSES, make_class_picture, make_scene
from mmmsvmamba.datasets.shapes_export import ShapesSpec, export_shapes

SPEC = ShapesSpec(train=6, val=3, size=96)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'shapes'
    export_shapes(out, SPEC)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read_rgb(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def test_same_parameters_same_bytes(root, tmp_path):
    export_shapes(tmp_path / 'again', SPEC)
    assert contents(root) == contents(tmp_path / 'again')
    # two copies of each scene and a mask; and two pictures of a class
    assert sum(name.endswith('.png') for name in contents(root)) == 3 * (6 + 3) + 2 * (6 + 3)


def test_another_seed_another_data_set(root, tmp_path):
    export_shapes(tmp_path / 'other', ShapesSpec(train=6, val=3, size=96, seed=1))
    ours, other = contents(root), contents(tmp_path / 'other')
    pictures = [name for name in ours if name.startswith('coco') and name.endswith('.png')]
    assert pictures
    assert not any(ours[name] == other[name] for name in pictures)


@pytest.mark.parametrize(('split', 'folder'), [('train', 'training'), ('val', 'validation')])
def test_coco_and_ade_hold_the_drawn_scenes(root, split, folder):
    coco = COCO(root / f'coco/annotations/instances_{split}2017.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.imgs) == getattr(SPEC, split)
    for index, (image_id, image) in enumerate(sorted(coco.imgs.items())):
        scene = make_scene(split, index, SPEC.seed, SPEC.size)
        ade = root / 'ADEChallengeData2016'
        for picture in (
            root / f'coco/{split}2017' / image['file_name'],
            ade / f'images/{folder}' / image['file_name'],
        ):
            np.testing.assert_array_equal(read_rgb(picture), scene.image)

        semantic = np.full((SPEC.size, SPEC.size), 1)  # background; shapes follow from 2
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(scene.instances)
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert (semantic[mask] == 1).all()  # visible parts do not overlap
            semantic[mask] = annotation['category_id'] + 1
            y, x = np.nonzero(mask)
            assert annotation['bbox'] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert annotation['area'] == mask.sum()
            assert annotation['iscrowd'] == 0
        stored = cv2.imread(str(ade / f'annotations/{folder}' / image['file_name']), -1)
        np.testing.assert_array_equal(stored, semantic)


def test_class_folders(root):
    for split, count in (('train', 6), ('val', 6)):
        for index in range(count):
            image, label = make_class_picture(split, index, SPEC.seed, 72)
            path = root / f'imagenet/{split}/{CLASSES[label]}/{split}_{index:06d}.png'
            np.testing.assert_array_equal(read_rgb(path), image)


def test_mmdet_reads_it(root):
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations

    dataset = CocoDataset(
        data_root=str(root / 'coco'),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[],
    )
    assert len(dataset) == SPEC.train
    load = LoadAnnotations(with_bbox=True, with_mask=True)
    for index in range(len(dataset)):
        info = load(dataset.get_data_info(index) | dict(ori_shape=(SPEC.size, SPEC.size)))
        scene = make_scene('train', index, SPEC.seed, SPEC.size)
        np.testing.assert_array_equal(info['gt_masks'].masks, [i.mask for i in scene.instances])
        np.testing.assert_array_equal(info['gt_bboxes_labels'], [i.label for i in scene.instances])


def test_mmseg_reads_it(root):
    from mmseg.datasets import BaseSegDataset, LoadAnnotations

    dataset = BaseSegDataset(
        data_root=str(root / 'ADEChallengeData2016'),
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        img_suffix='.png',
        metainfo=dict(classes=SEG_CLASSES),
        reduce_zero_label=True,
        pipeline=[LoadAnnotations()],
    )
    assert len(dataset) == SPEC.val
    for index in range(len(dataset)):
        expected = make_scene('val', index, SPEC.seed, SPEC.size).semantic_map()
        np.testing.assert_array_equal(dataset[index]['gt_seg_map'], expected)


def test_mmpretrain_numbers_the_classes_as_we_do(root):
    from mmpretrain.datasets import CustomDataset

    dataset = CustomDataset(data_root=str(root / 'imagenet'), data_prefix='val', pipeline=[])
    assert tuple(dataset.CLASSES) == CLASSES
    assert len(dataset) == 2 * SPEC.val
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        assert CLASSES[info['gt_label']] == Path(info['img_path']).parent.name


def test_reused_when_it_serves(tmp_path):
    out = tmp_path / 'shapes'
    figures, reused = export_shapes(out, ShapesSpec(1, 1, layouts=('coco', 'ade')))
    assert not reused
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert export_shapes(out, ShapesSpec(1, 1, layouts=('ade',))) == (figures, True)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert not (out / 'imagenet').exists()


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (ShapesSpec(2, 1, layouts=('coco',)), 'train is 1, wanted 2'),
        (ShapesSpec(1, 1, seed=5, layouts=('coco',)), 'seed is 0, wanted 5'),
        (ShapesSpec(1, 1, layouts=('coco', 'ade')), 'missing layout: ade'),
    ],
)
def test_another_data_set_is_replaced_only_by_force(tmp_path, spec, message):
    out = tmp_path / 'shapes'
    export_shapes(out, ShapesSpec(1, 1, layouts=('coco',)))
    before = contents(out)
    with pytest.raises(FileExistsError, match=f'{out}.*{message}.*--force'):
        export_shapes(out, spec)
    assert contents(out) == before
    export_shapes(out, spec, force=True)
    assert contents(out) != before
    assert export_shapes(out, spec)[1]
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']


def test_foreign_files_are_never_deleted(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(FileExistsError, match=r'thesis.tex.*--out'):
        export_shapes(tmp_path, SPEC, force=True)
    (tmp_path / 'shapes.json').write_text('{}')
    with pytest.raises(FileExistsError, match=r'thesis.tex.*--out'):
        export_shapes(tmp_path, SPEC, force=True)
    with pytest.raises(FileExistsError, match=r'is a file.*--out'):
        export_shapes(tmp_path / 'thesis.tex', SPEC, force=True)
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


@pytest.mark.parametrize('text', ['{"figures": ', '{}', '[]'])
def test_unreadable_record(tmp_path, text):
    (tmp_path / 'shapes.json').write_text(text)
    with pytest.raises(FileExistsError, match=r'shapes.json cannot be read.*--force'):
        export_shapes(tmp_path, SPEC)


def test_deleted_layout_is_noticed(tmp_path):
    out = tmp_path / 'shapes'
    spec = ShapesSpec(1, 1, layouts=('imagenet',))
    export_shapes(out, spec)
    (out / 'imagenet').rename(tmp_path / 'elsewhere')
    with pytest.raises(FileExistsError, match='missing layout: imagenet'):
        export_shapes(out, spec)


@pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()])
@pytest.mark.parametrize('stage', ['train scenes', 'val class pictures'])
def test_an_interrupted_run_leaves_nothing(tmp_path, stage, error):
    def break_off(numbers, title):
        for number in numbers:
            if title == stage and number == 1:
                raise error
            yield number

    out = tmp_path / 'shapes'
    with pytest.raises(type(error)):
        export_shapes(out, SPEC, track=break_off)
    assert list(tmp_path.iterdir()) == []

    export_shapes(out, ShapesSpec(1, 1, layouts=('ade',)))
    before = contents(out)
    with pytest.raises(type(error)):
        export_shapes(out, SPEC, force=True, track=break_off)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']


def test_record_holds_parameters_and_figures(root):
    record = json.loads((root / 'shapes.json').read_text())
    assert record['classes'] == list(CLASSES)
    assert (record['train'], record['val'], record['size'], record['seed']) == (6, 3, 96, 0)
    for split in ('train', 'val'):
        annotations = COCO(root / f'coco/annotations/instances_{split}2017.json').anns
        assert record['figures'][split]['instances'] == len(annotations)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(train=0), 'must be at least 1, got 0 and 200'),
        (dict(layouts=('voc',)), 'unknown layout voc, known are coco, ade, imagenet'),
    ],
)
def test_bad_spec(arguments, message):
    with pytest.raises(ValueError, match=message):
        ShapesSpec(**arguments)


def test_bad_size_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match='size must be 64 to 1024 pixels, got 8'):
        export_shapes(tmp_path / 'shapes', ShapesSpec(1, 1, size=8))
    assert list(tmp_path.iterdir()) == []
