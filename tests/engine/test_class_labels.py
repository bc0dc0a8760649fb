"""Labels that a classifier does not have, or that mean something else in every split, are told before a run starts."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

from mmmsvmamba.engine.class_labels import check_class_labels
from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.engine.scopes import SCOPES


@pytest.fixture
def root(tmp_path) -> Path:
    """Four classes, two splits."""
    for split in ('train', 'val'):
        for name in ('ant', 'bee', 'cat', 'dog'):
            picture = tmp_path / split / name / 'x.png'
            picture.parent.mkdir(parents=True)
            picture.touch()
    return tmp_path


def check(root: Path, num_classes: int | None = 4, splits=('train', 'val'), **dataset) -> None:
    head = dict(type='LinearClsHead') | ({} if num_classes is None else dict(num_classes=num_classes))
    folders = [dict(type='CustomDataset', data_root=str(root), data_prefix=split) | dataset for split in splits]
    check_class_labels(Config(dict(model=dict(head=head))), SCOPES['mmpretrain'], Config(dict(all=folders)).all)


def write_list(root: Path, *lines: str) -> dict:
    (root / 'list.txt').write_text('\n'.join(lines))
    return dict(ann_file='list.txt', splits=('train',))


def test_what_fits_passes(root):
    check(root)
    check(root, num_classes=None)
    check(root, **write_list(root, 'a b.png 0', 'c.png 3'))
    check(root, num_classes=None, **write_list(root, 'c.png 3'))
    check(root, num_classes=1, with_label=False, **write_list(root, 'no labels.png'))
    check(root, type='CIFAR10')


def test_splits_with_different_folders(root):
    """As many, but a label would mean another class."""
    (root / 'val/bee').rename(root / 'val/wasp')
    with pytest.raises(UserError, match=r'train and .*val have different class folders \(bee, wasp\)'):
        check(root)
    check(root, splits=('val',))
    classes = [CustomDataset(data_root=str(root), data_prefix=split).CLASSES for split in ('train', 'val')]
    assert classes == [('ant', 'bee', 'cat', 'dog'), ('ant', 'cat', 'dog', 'wasp')]  # that is why


def test_folders_of_imagenet_may_differ_but_must_be_classes(root):
    for wnid in ('train/n01440764', 'train/n15075141', 'val/n15075141'):
        (root / 'cut' / wnid).mkdir(parents=True)
        (root / 'cut' / wnid / 'x.JPEG').touch()
    check(root / 'cut', 1000, type='ImageNetFolders')
    with pytest.raises(UserError, match='4 of 4 folders that are no classes of ImageNet-1k: ant, bee, cat, dog'):
        check(root, 1000, type='ImageNetFolders')


@pytest.mark.parametrize(
    'lines, said',
    [
        (['a.png 0', 'b.png 4'], 'list.txt, line 2: the label 4, .*num_classes = 4, hence labels 0 to 3'),
        (['a.png -1'], "line 1: 'a.png -1'; expected a file name, a blank and a label from 0"),
        (['a.png cat'], "line 1: 'a.png cat'; expected"),
        (['a.png 0', '', 'b.png 1'], "line 2: ''; expected"),
        (['a.png'], "line 1: 'a.png'; expected"),
    ],
)
def test_lists(root, lines, said):
    with pytest.raises(UserError, match=said):
        check(root, **write_list(root, *lines))


def test_lists_that_imagenet_finds_by_itself(root):
    (root / 'meta').mkdir()
    (root / 'meta/val.txt').write_text('a.JPEG 1000\n')
    with pytest.raises(UserError, match=r'meta/val.txt, line 1: the label 1000'):
        check(root, 1000, type='ImageNetFolders', split='val', splits=('',))
