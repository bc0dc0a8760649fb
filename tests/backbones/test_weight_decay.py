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
NAMES = {
    'nano': 'msvmamba_n',
    'micro': 'msvmamba_m',
    'tiny': 'msvmamba_t',
    'tiny-v3': 'msvmamba_t_v3',
    'small-v3': 'msvmamba_s_v3',
    'base-v3': 'msvmamba_b_v3',
    'tiny-v0': 'vmamba_t_v0',
    'small-v0': 'vmamba_s_v0',
    'base-v0': 'vmamba_b_v0',
    'tiny-s2l5': 'vmamba_t_s2l5',
    'small-s2l15': 'vmamba_s_s2l15',
    'base-s2l15': 'vmamba_b_s2l15',
    'tiny-s1l8': 'vmamba_t_s1l8',
}
#: Name of a config without the backbone's -> how it decays what is not spared.
RECIPES = {'mask_rcnn_{}_1x': 0.05, 'mask_rcnn_{}_3x': 0.05, 'upernet_{}_160k_ade20k': 0.01}


def origins(arch: str) -> dict[str, set[str]]:
    """Our name of a parameter -> the published names whose memory it takes."""
    given = {key: torch.empty(shape) for key, shape in published.shapes(arch, 'backbone').items()}
    owner = {value.untyped_storage().data_ptr(): key for key, value in given.items()}
    return {key: {owner[value.untyped_storage().data_ptr()]} for key, value in convert_official(given).items()}


@published.needs_reference
@pytest.mark.parametrize(
    'arch, recipe',
    [
        (arch, recipe)
        for arch, name in NAMES.items()
        for recipe in RECIPES
        if (CONFIGS / f'{recipe.format(name)}.py').is_file()
    ],
)
def test_norms_that_are_named_so_upstream_are_spared(arch, recipe, bases_found_once):
    cfg = Config.fromfile(CONFIGS / f'{recipe.format(NAMES[arch])}.py')
    backbone = dict(cfg.model.backbone, init_cfg=None)
    with torch.device('meta'):
        model = nn.ModuleDict(dict(backbone=MODELS.build(backbone)))
    assert backbone['arch'] == arch

    settings = cfg.optim_wrapper.copy()
    paramwise = settings.pop('paramwise_cfg')
    groups = DefaultOptimWrapperConstructor(settings, paramwise)(model).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    assert set(decay.values()) == {0.0, RECIPES[recipe]}
    for name, sources in origins(arch).items():
        parameter = model['backbone'].get_parameter(name)
        spared = {'norm' in source for source in sources}
        assert {decay[id(parameter)] == 0} == spared, f'{name}, published as {sources}'
    assert len(decay) == len(origins(arch))


@pytest.mark.parametrize(
    'name', ['msvmamba_n', 'vmamba_t_v0', 'ablation_scan_cascade', 'ablation_full2_half2', 'vim_t']
)
def test_skip_weights_are_spared_wherever_their_scan_is(name, bases_found_once):
    """A cascade has its scans one level deeper than other mixers."""
    cfg = Config.fromfile(CONFIGS / f'{name}_in1k.py')
    with torch.device('meta'):
        model = nn.ModuleDict(dict(backbone=MODELS.build(cfg.model.backbone)))
    settings = cfg.optim_wrapper.copy()
    paramwise = settings.pop('paramwise_cfg')
    groups = DefaultOptimWrapperConstructor(settings, paramwise)(model).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    scanned = {key: decay[id(p)] for key, p in model.named_parameters() if key.endswith(('.D', '.A_log'))}
    assert {key.rpartition('.')[2] for key in scanned} == {'D', 'A_log'}
    assert all((value == 0) == key.endswith('.D') for key, value in scanned.items()), scanned
