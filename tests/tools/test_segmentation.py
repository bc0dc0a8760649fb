"""UperNet through `tools/train.py` and `tools/test.py`: resuming, one and many scales, whole and slide mode."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_data import ADE_MINI, REPOSITORY

from mmmsvmamba.engine import cli

pytest.importorskip('mmseg')
CONFIG = str(REPOSITORY / 'configs/upernet_msvmamba_n_shapes.py')
ADE_CONFIG = str(REPOSITORY / 'configs/upernet_msvmamba_n_160k_ade20k.py')
# mmengine keeps visualizers by name for the life of a process
TEST_VISUALIZER = ('--cfg-options', 'visualizer.name=test')
SLIDE = ('model.test_cfg.mode=slide', 'model.test_cfg.crop_size=(48,48)', 'model.test_cfg.stride=(32,32)')


@pytest.fixture(scope='module')
def odd_shapes(ade_shapes, tmp_path_factory) -> Path:
    """The shapes, with test pictures of odd and non-square sizes, some narrower than a window of slide mode."""
    root = tmp_path_factory.mktemp('odd')
    for kind in ('images', 'annotations'):
        for split in ('training', 'validation'):
            (root / kind / split).mkdir(parents=True)
        for file in (ade_shapes / kind / 'training').iterdir():
            (root / kind / 'training' / file.name).write_bytes(file.read_bytes())
        sizes = [(64, 64), (61, 53), (64, 33), (37, 64)]
        for file, (height, width) in zip(sorted((ade_shapes / kind / 'validation').iterdir()), sizes, strict=True):
            picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[:height, :width]
            cv2.imwrite(str(root / kind / 'validation' / file.name), picture)
    return root


@pytest.fixture(scope='module')
def trained(odd_shapes, tmp_path_factory) -> Path:
    """A work folder after two iterations of two images."""
    folder = tmp_path_factory.mktemp('trained')
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    short += ['default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1', 'visualizer.name=trained']
    assert cli.train([CONFIG, '--data-root', str(odd_shapes), '--work-dir', str(folder), '--cfg-options', *short]) == 0
    return folder


def miou(text: str) -> float:
    return float(re.findall(r'mIoU: ([\d.]+)', text)[-1])


def test_training_evaluates_and_resumes(trained, odd_shapes, tmp_path, capsys):
    short = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'train_dataloader.batch_size=2']
    short += ['default_hooks.checkpoint.interval=1', 'default_hooks.logger.interval=1', 'visualizer.name=resumed']
    common = ['--data-root', str(odd_shapes), '--work-dir', str(tmp_path)]
    assert cli.train([CONFIG, *common, '--resume', str(trained / 'iter_2.pth'), '--cfg-options', *short]) == 0
    output = capsys.readouterr().out
    assert 'Iter(train) [3/3]' in output and 'Iter(train) [2/3]' not in output
    assert 'background' in output and 'triangle' in output and 0 <= miou(output) <= 100
    assert (tmp_path / 'iter_3.pth').is_file()


@pytest.mark.parametrize('options', [(), SLIDE], ids=['whole', 'slide'])
@pytest.mark.parametrize('scales', [(), ('--tta',)], ids=['one scale', 'many scales'])
def test_testing(trained, odd_shapes, tmp_path, capsys, options, scales):
    command = [CONFIG, str(trained / 'iter_2.pth'), '--data-root', str(odd_shapes), '--work-dir', str(tmp_path)]
    out = ['--out', str(tmp_path / 'maps'), '--show-dir', str(tmp_path / 'pictures')]
    assert cli.test([*command, *scales, *out, *TEST_VISUALIZER, *options]) == 0, capsys.readouterr().err
    assert 0 <= miou(capsys.readouterr().out) <= 100
    for truth in (odd_shapes / 'annotations/validation').iterdir():
        expected = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED)
        found = cv2.imread(str(tmp_path / 'maps' / truth.name), cv2.IMREAD_UNCHANGED)
        assert found.shape == expected.shape and found.min() >= 1 and found.max() <= 5  # as stored: 1 is the background
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == 4


def test_evaluation_equals_a_confusion_matrix(trained, odd_shapes, tmp_path, capsys):
    """The printed mIoU is that of the maps which `--out` keeps, computed here from its definition."""
    command = [CONFIG, str(trained / 'iter_2.pth'), '--data-root', str(odd_shapes), '--work-dir', str(tmp_path)]
    assert cli.test([*command, '--out', str(tmp_path / 'maps')]) == 0
    printed = miou(capsys.readouterr().out)
    pairs = np.zeros((5, 5), int)
    for truth in (odd_shapes / 'annotations/validation').iterdir():
        labels = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED).astype(int) - 1
        found = cv2.imread(str(tmp_path / 'maps' / truth.name), cv2.IMREAD_UNCHANGED).astype(int) - 1
        np.add.at(pairs, (labels, found), 1)
    both = np.diag(pairs)
    iou = both / (pairs.sum(0) + pairs.sum(1) - both)
    assert printed == pytest.approx(100 * np.nanmean(iou), abs=0.011)


@pytest.mark.skipif(not ADE_MINI.is_dir(), reason=f'needs the photographs in {ADE_MINI}')
def test_photographs(tmp_path, capsys):
    """The full recipe on a few real images, at a size that a test can afford."""
    small = ['model.data_preprocessor.size=(64,64)', 'train_dataloader.dataset.pipeline.3.crop_size=(64,64)']
    small += ['train_dataloader.dataset.pipeline.2.scale=(256,64)', 'test_dataloader.dataset.pipeline.1.scale=(256,64)']
    small += ['val_dataloader.dataset.pipeline.1.scale=(256,64)', 'val_dataloader.dataset.indices=1']
    small += [f'{loader}_dataloader.num_workers=0' for loader in ('train', 'val', 'test')]
    small += ['model.decode_head.channels=32', 'model.auxiliary_head.channels=32', 'test_dataloader.dataset.indices=1']
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
    common = ['--data-root', str(ADE_MINI), '--work-dir', str(tmp_path / 'run')]
    assert cli.train([ADE_CONFIG, *common, '--from-scratch', '--cfg-options', *small, *short]) == 0
    assert miou(capsys.readouterr().out) >= 0
    show = ['--show-dir', str(tmp_path / 'pictures')]
    checkpoint = str(tmp_path / 'run/iter_2.pth')
    assert cli.test([ADE_CONFIG, checkpoint, *common, *show, *TEST_VISUALIZER, *small]) == 0
    output = capsys.readouterr().out
    assert miou(output) >= 0 and 'building' in output
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == 1
