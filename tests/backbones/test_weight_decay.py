"""The training configs spare the parameters from weight decay that the published runs spared."""

from pathlib import Path

import published
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS
from torch import nn

from mmmsvmamba.checkpoints import convert_official

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NAMES = {'nano': 'n', 'micro': 'm', 'tiny': 't', 'tiny-v3': 't_v3', 'small-v3': 's_v3', 'base-v3': 'b_v3'}


def origins(arch: str) -> dict[str, set[str]]:
    """Our name of a parameter -> the published names whose memory it takes."""
    given = {key: torch.empty(shape) for key, shape in published.shapes(arch, 'backbone').items()}
    owner = {value.untyped_storage().data_ptr(): key for key, value in given.items()}
    return {key: {owner[value.untyped_storage().data_ptr()]} for key, value in convert_official(given).items()}


@published.needs_reference
@pytest.mark.parametrize('schedule', ['1x', '3x'])
@pytest.mark.parametrize('arch', NAMES)
def test_norms_that_are_named_so_upstream_are_spared(arch, schedule):
    cfg = Config.fromfile(CONFIGS / f'mask_rcnn_msvmamba_{NAMES[arch]}_{schedule}.py')
    backbone = dict(cfg.model.backbone, init_cfg=None)
    with torch.device('meta'):
        model = nn.ModuleDict(dict(backbone=MODELS.build(backbone)))
    assert backbone['arch'] == arch

    settings = cfg.optim_wrapper.copy()
    paramwise = settings.pop('paramwise_cfg')
    groups = DefaultOptimWrapperConstructor(settings, paramwise)(model).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    assert set(decay.values()) == {0.0, 0.05}
    for name, sources in origins(arch).items():
        parameter = model['backbone'].get_parameter(name)
        spared = {'norm' in source for source in sources}
        assert {decay[id(parameter)] == 0} == spared, f'{name}, published as {sources}'
    assert len(decay) == len(origins(arch))
