"""ImageNet in class folders: the labels of a cut are those of the whole set."""

import re

import pytest
from mmengine.logging import MMLogger
from mmpretrain.datasets import ImageNet
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import DATASETS
from tiny_data import REPOSITORY

from mmmsvmamba.datasets.imagenet import WNIDS, ImageNetFolders
from mmmsvmamba.engine.errors import UserError

IMAGENET_MINI = REPOSITORY.parent / 'shared/data/imagenet_mini'
#: Published labels, and a word of the class.
KNOWN = {
    'n01440764': (0, 'tench'),
    'n01443537': (1, 'goldfish'),
    'n02123045': (281, 'tabby'),
    'n02504458': (386, 'African elephant'),
    'n03000684': (491, 'chain saw'),
    'n03417042': (569, 'garbage truck'),
    'n03888257': (701, 'parachute'),
    'n07753592': (954, 'banana'),
    'n15075141': (999, 'toilet tissue'),
}


def make(root, files):
    """Empty files: a dataset lists pictures without opening them."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def samples(dataset) -> list[tuple[str, int]]:
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(sample['img_path'], sample['gt_label']) for sample in found]


def test_the_ids_are_the_classes_of_mmpretrain():
    assert len(WNIDS) == len(set(WNIDS)) == len(IMAGENET_CATEGORIES) == 1000
    assert list(WNIDS) == sorted(WNIDS) and all(re.fullmatch(r'n\d{8}', wnid) for wnid in WNIDS)
    for wnid, (label, word) in KNOWN.items():
        assert WNIDS.index(wnid) == label
        assert word in IMAGENET_CATEGORIES[label]


def test_a_whole_set_is_that_of_mmpretrain(tmp_path):
    make(tmp_path, [f'val/{wnid}/{wnid}_{i}.JPEG' for wnid in WNIDS for i in range(2)])
    ours, theirs = (kind(data_root=str(tmp_path), split='val') for kind in (ImageNetFolders, ImageNet))
    assert samples(ours) == samples(theirs) and len(ours) == 2000
    assert ours.metainfo == theirs.metainfo and ours.folder_to_idx == theirs.folder_to_idx


@pytest.mark.parametrize('options', [dict(split='train'), dict(data_prefix='pictures', ann_file='list.txt')])
def test_annotation_files_are_read_as_mmpretrain_does(tmp_path, options):
    """Also where the folders are no classes: the file alone gives the labels."""
    (tmp_path / 'meta').mkdir()
    for file in ('meta/train.txt', 'list.txt'):
        (tmp_path / file).write_text('anywhere/b.JPEG 7\na.JPEG 993\n')
    ours, theirs = (kind(data_root=str(tmp_path), **options) for kind in (ImageNetFolders, ImageNet))
    assert samples(ours) == samples(theirs)
    assert [label for _, label in samples(ours)] == [7, 993]


def test_pictures_without_labels_are_read_as_mmpretrain_does(tmp_path):
    make(tmp_path, ['test/b.JPEG', 'test/a.JPEG'])
    ours, theirs = (kind(data_root=str(tmp_path), split='test') for kind in (ImageNetFolders, ImageNet))
    assert [ours[i]['img_path'] for i in range(2)] == [theirs[i]['img_path'] for i in range(2)]
    assert 'gt_label' not in ours.get_data_info(0)


def test_a_cut_keeps_its_labels(tmp_path):
    make(tmp_path, [f'train/{wnid}/x.JPEG' for wnid in KNOWN])
    with pytest.raises(AssertionError, match=re.escape('subfolders (9)')):
        ImageNet(data_root=str(tmp_path), split='train')
    dataset = DATASETS.build(dict(type='ImageNetFolders', data_root=str(tmp_path), data_prefix='train'))
    assert [label for _, label in samples(dataset)] == [label for label, _ in KNOWN.values()]
    assert list(dataset.CLASSES) == list(IMAGENET_CATEGORIES)


@pytest.mark.skipif(not IMAGENET_MINI.is_dir(), reason=f'{IMAGENET_MINI} is not there')
@pytest.mark.parametrize('split', ['train', 'val'])
def test_photographs_have_the_labels_that_their_names_say(split):
    """Most file names end with the name of the class, blanks as underscores."""
    dataset = ImageNetFolders(data_root=str(IMAGENET_MINI), split=split)
    found = [(re.search(r'n\d{8}_(?:\d+_)?(\D+)\.JPEG', path), label) for path, label in samples(dataset)]
    named = [(match[1].replace('_', ' ').lower(), label) for match, label in found if match]
    assert len(found) == 40 and len(named) > 20
    for name, label in named:
        assert name in IMAGENET_CATEGORIES[label].lower()


def test_folders_that_are_no_classes_are_named(tmp_path):
    make(tmp_path, ['val/n01440764/x.JPEG', *(f'val/{name}/x.JPEG' for name in 'edcba')])
    with pytest.raises(UserError, match=r'val.* 5 of 6 folders .*: a, b, c, d, …\. Expected .*n01440764 to n15075141'):
        ImageNetFolders(data_root=str(tmp_path), split='val')


def test_pictures_in_one_folder(tmp_path):
    """As the validation set comes from its publisher."""
    make(tmp_path, ['val/ILSVRC2012_val_00000001.JPEG'])
    with pytest.raises(UserError, match='val has no class folders.*meta/val.txt'):
        ImageNetFolders(data_root=str(tmp_path), split='val')


def test_folders_without_pictures(tmp_path):
    make(tmp_path, ['val/n01440764/notes.txt', 'val/n15075141/.hidden.JPEG'])
    with pytest.raises(UserError, match='2 class folders and no picture in any of them .*jpeg'):
        ImageNetFolders(data_root=str(tmp_path), split='val')


def test_an_empty_class_is_a_warning(tmp_path, monkeypatch):
    make(tmp_path, ['val/n01440764/x.JPEG', 'val/n15075141/notes.txt'])
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: warnings.append(message))
    assert samples(ImageNetFolders(data_root=str(tmp_path), split='val')) == [
        (str(tmp_path / 'val/n01440764/x.JPEG'), 0)
    ]
    assert len(warnings) == 1 and 'n15075141' in warnings[0]
