"""Folders of images are looked at as the libraries will read them; what has a layout of its own is left to them."""

from pathlib import Path

import pytest

from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.engine.image_folders import check_classification_folders, check_segmentation_folders
from mmmsvmamba.engine.scopes import SCOPES

MASKS = [dict(type='LoadImageFromFile'), dict(type='RandomApply', transforms=[dict(type='mmseg.LoadAnnotations')])]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def check_masks(kind: str = 'BaseSegDataset', pipeline=MASKS, **options) -> None:
    datasets = pytest.importorskip('mmseg.datasets')
    prefix = dict(img_path='img', seg_map_path='ann')
    config = dict(type=kind, data_root='d', data_prefix=prefix, pipeline=pipeline) | options
    check_segmentation_folders(getattr(datasets, kind), config, SCOPES['mmseg'])


def test_masks_below_subfolders_with_the_endings_of_the_class(root):
    touch('d/img/x/a_leftImg8bit.png', 'd/img/y/b_leftImg8bit.png')
    touch('d/ann/x/a_gtFine_labelTrainIds.png', 'd/ann/x/b_gtFine_labelTrainIds.png')
    with pytest.raises(UserError, match=r'^1 of 2 images in d/img have no mask in d/ann: missing are d/ann/y/b_gtFine'):
        check_masks('CityscapesDataset')
    touch('d/ann/y/b_gtFine_labelTrainIds.png')
    check_masks('CityscapesDataset')


def test_masks_that_are_not_loaded_need_not_be_there(root):
    touch('d/img/a.jpg')
    check_masks(pipeline=MASKS[:1])
    with pytest.raises(UserError, match='have no mask in d/ann: missing are d/ann/a.png; there are no files'):
        check_masks()


def test_only_what_is_used_must_be_there(root):
    touch('d/img/a.jpg', 'd/img/b.jpg', 'd/img/c.jpg', 'd/ann/a.png', 'd/ann/c.png')
    Path('d/list.txt').write_text('a\nc\n')
    check_masks(ann_file='list.txt')
    check_masks(indices=1)
    with pytest.raises(UserError, match='1 of 3 images'):
        check_masks()


def test_datasets_with_a_layout_of_their_own_are_left_alone(root):
    datasets = pytest.importorskip('mmseg.datasets')

    class OwnFiles(datasets.BaseSegDataset):
        def load_data_list(self):
            raise AssertionError('read')

    class OwnOptions(datasets.BaseSegDataset):
        def __init__(self, data_root):
            raise AssertionError('built')

    for kind in (OwnFiles, OwnOptions):
        check_segmentation_folders(kind, dict(type=kind, data_root='d'), SCOPES['mmseg'])

    class OwnFolders(pytest.importorskip('mmpretrain.datasets').CustomDataset):
        def _find_samples(self):
            raise AssertionError('read')

    assert check_classification_folders(OwnFolders, dict(type=OwnFolders, data_root='d'), SCOPES['mmpretrain']) is None


def check_classes(kind: str = 'CustomDataset', **options) -> tuple[str, ...] | None:
    datasets = pytest.importorskip('mmpretrain.datasets')
    config = dict(type=kind, data_root='d', pipeline=[]) | options
    return check_classification_folders(getattr(datasets, kind), config, SCOPES['mmpretrain'])


def test_class_folders_are_those_of_the_library(root):
    touch('d/train/cat/deep/1.JPEG', 'd/train/.cache/x', 'd/train/notes.txt')
    datasets = pytest.importorskip('mmpretrain.datasets')
    library = datasets.CustomDataset(data_root='d', data_prefix='train')
    assert check_classes(data_prefix='train') == library.CLASSES == ('.cache', 'cat')


def test_imagenet_finds_its_folders_by_the_split(root):
    touch('d/val/n01440764/1.JPEG')
    with pytest.raises(UserError, match=r'd/val has 1 folders \(n01440764\), but the dataset has 1000 classes \(tench'):
        check_classes('ImageNet', split='val')
    with pytest.raises(UserError, match='The folder of images d/train does not exist'):
        check_classes('ImageNet', split='train')
    touch('d/meta/val.txt')
    with pytest.raises(UserError, match='d/meta/val.txt is empty'):
        check_classes('ImageNet', split='val')
    Path('d/meta/val.txt').write_text('n01440764/1.JPEG 0\n')
    assert check_classes('ImageNet', split='val') is None


def test_images_without_labels(root):
    touch('d/any/1.png')
    assert check_classes(data_prefix='any', with_label=False) is None
    with pytest.raises(
        UserError, match='There are no images in d/any: none of its files ends with .gif; there are 1 .p'
    ):
        check_classes(data_prefix='any', with_label=False, extensions=('.gif',))
