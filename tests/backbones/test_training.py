"""What training asks of a backbone: checkpointing, frozen stages, stochastic depth, averages, layer-wise rates."""

import copy
import re

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.registry import MODELS as PRETRAIN_MODELS
from torch import nn

from mmmsvmamba import MSVMamba

FAMILIES = ('nano', 'tiny-v3', 'base-v3')


def small(base='nano', seed=0, depths=(1, 2, 1, 1), **kwargs) -> MSVMamba:
    torch.manual_seed(seed)
    return MSVMamba(dict(base=base, depths=list(depths), dims=16), **kwargs)


def image(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def loss(outs) -> torch.Tensor:
    return sum((out * image(*out.shape)).sum() for out in outs)


# ---- activation checkpointing ----


def bytes_kept(model: MSVMamba, x: torch.Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass; storages are counted once, parameters not at all."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # holds the memory, so that no other tensor gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outs = model(x)
    assert outs[0].requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize('arch', ['nano', 'tiny-v3'])
def test_checkpointing_halves_what_is_kept_for_the_backward_pass(arch):
    x = image(1, 3, 64, 64)
    model = MSVMamba(arch)
    without = bytes_kept(model, x)
    model.with_cp = True
    assert bytes_kept(model, x) <= 0.5 * without


# ---- frozen stages ----


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages(frozen_stages):
    model = small(frozen_stages=frozen_stages, drop_path_rate=0.3)
    assert model.train() is model
    frozen = [] if frozen_stages < 0 else [model.stem, *model.stages[:frozen_stages]]
    frozen += [getattr(model, f'norm{i}') for i in range(frozen_stages)]
    names = {id(p) for module in frozen for p in module.parameters()}
    for name, p in model.named_parameters():
        assert p.requires_grad == (id(p) not in names), name
    still = {id(module) for part in frozen for module in part.modules()}
    for name, module in model.named_modules():
        assert module.training == (id(module) not in still), name


#: Tensors of a block of the arXiv family: two S6, two convolutions, five linear layers, ConvFFN, three norms.
BLOCK = 2 * 5 + 2 * 2 + 5 + 6 + 3 * 2
#: Those of a step to the next stage and of an output's norm.
STEP, NORM = 3, 2


@pytest.mark.parametrize(
    'frozen_stages, expected',
    [(-1, 0), (0, 4), (1, 4 + BLOCK + STEP + NORM), (4, 4 + 5 * BLOCK + 3 * STEP + 4 * NORM)],
)
def test_number_of_frozen_tensors(frozen_stages, expected):
    model = small(frozen_stages=frozen_stages)
    assert sum(not p.requires_grad for p in model.parameters()) == expected


# ---- stochastic depth ----


@pytest.mark.parametrize('arch, last', [('nano', 0.2), ('tiny-v3', 0.3)])
def test_drop_path_rises_linearly_over_the_blocks(arch, last):
    with torch.device('meta'):
        model = MSVMamba(arch, drop_path_rate=last)
        part = MSVMamba(arch, drop_path_rate=last, out_indices=(0, 1))
    blocks = [block for stage in model.stages for block in stage.blocks]
    rates = [block.drop_path.drop_prob for block in blocks]
    assert rates == pytest.approx([last * i / (len(blocks) - 1) for i in range(len(blocks))])
    first = [block.drop_path.drop_prob for stage in part.stages for block in stage.blocks]
    assert first == rates[: len(first)]


def test_a_dropped_path_leaves_the_identity():
    block = small(drop_path_rate=0.5).stages[3].blocks[0].train()
    x = image(64, 4, 4, 128)
    torch.manual_seed(0)
    y = block(x)
    untouched = sum(torch.equal(a, b) for a, b in zip(x, y, strict=True))
    assert 6 <= untouched <= 27  # both paths dropped: 64/4 expected
    assert not torch.equal(block.eval()(x), x)


# ---- copies, files, averages ----


def test_a_copy_checks_weights_with_its_own_hook():
    model = small()
    other = copy.deepcopy(model)
    other.norm0 = nn.LayerNorm(24)
    weights = other.state_dict()
    other.load_state_dict(weights)
    with pytest.raises(ValueError, match='norm0.weight'):
        model.load_state_dict(weights)


def test_an_exponential_moving_average_saves_and_loads():
    model = nn.ModuleDict(dict(backbone=small()))
    average = ExponentialMovingAverage(model, momentum=0.5)
    average.update_parameters(model)
    with torch.no_grad():
        model['backbone'].norm0.weight.add_(1)
    average.update_parameters(model)
    state = average.state_dict()
    assert torch.equal(state['module.backbone.norm0.weight'], torch.full((16,), 1.5))
    other = ExponentialMovingAverage(nn.ModuleDict(dict(backbone=small(seed=1))))
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name]), name


# ---- layer-wise learning rates ----


@pytest.mark.parametrize('arch, blocks', [('nano', 10), ('tiny-v3', 15)])
def test_layer_depth_of_every_parameter(arch, blocks):
    with torch.device('meta'):
        model = MSVMamba(arch)
    depths = model.arch.depths
    for name, _ in model.named_parameters():
        if name.startswith('stem.'):
            expected = 0
        elif match := re.match(r'stages\.(\d)\.blocks\.(\d+)\.', name):
            expected = 1 + sum(depths[: int(match[1])]) + int(match[2])
        elif match := re.match(r'stages\.(\d)\.downsample\.', name):
            expected = sum(depths[: int(match[1]) + 1])
        else:
            assert re.match(r'norm\d\.', name)
            expected = blocks + 1
        assert model.get_layer_depth(f'backbone.{name}') == (expected, blocks + 2), name
        assert model.get_layer_depth(f'a.b.{name}', prefix='a.b.') == (expected, blocks + 2), name
    assert model.get_layer_depth('head.fc.weight') == (blocks + 1, blocks + 2)


def test_layer_decay_of_mmpretrain():
    classifier = PRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='MSVMamba', arch=dict(base='nano', depths=[1, 2, 1, 1], dims=16), out_indices=(3,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=128),
        )
    )
    constructor = LearningRateDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)), dict(layer_decay_rate=0.5)
    )
    groups = constructor(classifier).optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in groups}
    assert set(rates) == {name for name, _ in classifier.named_parameters()}
    assert rates['backbone.stem.conv.weight'] == 0.5**6
    assert rates['backbone.stages.1.blocks.1.norm1.weight'] == 0.5**3
    assert rates['backbone.stages.1.downsample.reduction.weight'] == 0.5**3
    assert rates['backbone.norm3.weight'] == rates['head.fc.weight'] == 1.0
