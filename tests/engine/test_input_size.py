"""`--input-size` changes the two sizes of a test pipeline, and nothing else."""

from copy import deepcopy

import pytest
from mmengine.config import Config
from tiny_data import REPOSITORY

from mmmsvmamba.engine import testing
from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.engine.input_size import set_input_size
from mmmsvmamba.engine.scopes import SCOPES

CLASSIFICATION = SCOPES['mmpretrain']


@pytest.fixture(scope='module')
def recipe() -> Config:
    return Config.fromfile(str(REPOSITORY / 'configs/msvmamba_n_in1k.py'))


@pytest.fixture
def cfg(recipe) -> Config:
    return deepcopy(recipe)


@pytest.mark.parametrize('size, short_side', [(1, 1), (96, 110), (224, 256), (288, 329), (384, 439), (768, 878)])
def test_imagenet(cfg, size, short_side):
    """The short side is the size times 256 / 224, to the nearest pixel."""
    before = deepcopy(cfg)
    set_input_size(cfg, CLASSIFICATION, size)
    load, resize, crop, pack = cfg.test_dataloader.dataset.pipeline
    assert resize == dict(type='ResizeEdge', scale=short_side, edge='short', backend='pillow', interpolation='bicubic')
    assert crop == dict(type='CenterCrop', crop_size=size)

    expected = before.test_dataloader.dataset.pipeline
    expected[1].scale, expected[2].crop_size = short_side, size
    assert cfg.to_dict() == before.to_dict()


def test_other_ratio_of_the_two_sides(cfg):
    """A config that keeps the whole short side goes on doing so."""
    cfg.test_dataloader.dataset.pipeline[1].scale = 384
    cfg.test_dataloader.dataset.pipeline[2].crop_size = (384, 384)
    set_input_size(cfg, CLASSIFICATION, 512)
    _, resize, crop, _ = cfg.test_dataloader.dataset.pipeline
    assert (resize.scale, crop.crop_size) == (512, 512)


def test_wrapped_dataset_and_test_time_augmentation(cfg):
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=cfg.test_dataloader.dataset)
    testing.set_tta(cfg, CLASSIFICATION)
    flips = cfg.test_dataloader.dataset.dataset.pipeline.pop()
    *front, crop = cfg.test_dataloader.dataset.dataset.pipeline
    flips.transforms.insert(0, [crop])  # a crop inside, as in configs that take five of them
    cfg.test_dataloader.dataset.dataset.pipeline = [*front, flips]
    set_input_size(cfg, CLASSIFICATION, 448)
    pipeline = cfg.test_dataloader.dataset.dataset.pipeline
    assert pipeline[1].scale == 512 and pipeline[2].transforms[0][0].crop_size == 448


@pytest.mark.parametrize('size', [0, -224, 224.0, '224', True, None])
def test_sizes_that_are_none(cfg, size):
    with pytest.raises(UserError, match=f'--input-size {size}: a whole number of pixels from 1'):
        set_input_size(cfg, CLASSIFICATION, size)


@pytest.mark.parametrize('scope, task', [('mmdet', 'detection'), ('mmseg', 'segmentation')])
def test_other_libraries(cfg, scope, task):
    with pytest.raises(UserError, match=f'for {task}: .*test_dataloader.dataset.pipeline'):
        set_input_size(cfg, SCOPES[scope], 384)


@pytest.mark.parametrize('steps', [[], ['LoadImageFromFile', 'Resize', 'PackInputs'], ['ResizeEdge', 'PackInputs']])
def test_pipelines_without_the_two_steps(cfg, steps):
    cfg.test_dataloader.dataset.pipeline = [dict(type=f'mmpretrain.{step}', scale=256) for step in steps]
    found = ', '.join(steps) or 'no steps'
    with pytest.raises(UserError, match=f'test_dataloader has {found}. Set the sizes there'):
        set_input_size(cfg, CLASSIFICATION, 384)
