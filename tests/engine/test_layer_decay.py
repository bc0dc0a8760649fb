"""Layer-wise learning rates in models of any library."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmsvmamba import MSVMamba, Vim
from mmmsvmamba.engine.errors import UserError


class Model(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(4, 2)


def groups(model: nn.Module, **paramwise) -> dict[str, dict]:
    """Name of a parameter -> its group."""
    settings = dict(
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        constructor='BackboneLayerDecayConstructor',
        paramwise_cfg=paramwise,
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    built = build_optim_wrapper(model, settings).optimizer.param_groups
    return {names[id(parameter)]: group for group in built for parameter in group['params']}


@pytest.fixture
def vim() -> Model:
    with torch.device('meta'):
        return Model(Vim(dict(base='tiny', depth=4)))


def test_rates_fall_towards_the_first_layer(vim):
    found = groups(vim, layer_decay_rate=0.5)
    assert found.keys() == dict(vim.named_parameters()).keys()
    assert found['head.weight']['lr'] == found['backbone.norm3.weight']['lr'] == 1
    assert [found[f'backbone.blocks.{i}.norm.weight']['lr'] for i in range(4)] == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert found['backbone.patch_embed.bias']['lr'] == found['backbone.cls_token']['lr'] == 1 / 32


def test_other_rules_of_mmengine_stay(vim):
    options = dict(layer_decay_rate=0.5, flat_decay_mult=0.0, custom_keys={'blocks.3': dict(lr_mult=0.1)})
    found = groups(vim, **options)
    assert found['head.bias']['weight_decay'] == found['backbone.norm1.weight']['weight_decay'] == 0
    assert found['head.weight']['weight_decay'] == 0.1
    assert found['backbone.blocks.3.mixer.in_proj.weight']['lr'] == pytest.approx(0.1 / 2)


def test_any_backbone_that_knows_its_layers():
    with torch.device('meta'):
        model = Model(MSVMamba(dict(base='nano', depths=[1, 1, 1, 1])))
    found = groups(model, layer_decay_rate=0.5)
    assert found['backbone.stem.conv.weight']['lr'] == 0.5**5 and found['backbone.norm0.weight']['lr'] == 1


def test_frozen_parameters_are_left_out():
    with torch.device('meta'):
        model = Model(Vim(dict(base='tiny', depth=4), frozen_stages=1))
    found = groups(model, layer_decay_rate=0.5)
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize('rate', [None, 0, 1.5, '0.9'])
def test_a_rate_that_is_none(vim, rate):
    with pytest.raises(UserError, match=rf'layer_decay_rate must be a number in .0, 1.*got {rate!r}'):
        groups(vim, layer_decay_rate=rate)


def test_a_model_without_layers():
    with pytest.raises(UserError, match='`get_layer_depth`; Model has Identity'):
        groups(Model(nn.Identity()), layer_decay_rate=0.5)


def test_an_optimizer_without_a_learning_rate(vim):
    settings = dict(
        optimizer=dict(type='AdamW'),
        constructor='BackboneLayerDecayConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    with pytest.raises(UserError, match='optimizer.lr must be given'):
        build_optim_wrapper(vim, settings)
