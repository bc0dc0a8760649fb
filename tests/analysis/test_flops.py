"""Counted operations against hand counts of single layers and against another counter."""

import os
import subprocess
import sys
from pathlib import Path

import mmpretrain.models  # noqa: F401 (registers the backbones that are compared)
import pytest
import torch
import torch.nn.functional as F
from mmengine.analysis import FlopAnalyzer
from mmengine.registry import MODELS
from torch import nn

from mmmsvmamba import MSVMamba
from mmmsvmamba.analysis import count_flops
from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.kernels import scan2d, selective_scan

REPOSITORY = Path(__file__).parents[2]


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    'layer, shape, expected',
    [
        (nn.Linear(7, 5), (2, 3, 7), {'matmul': 2 * 3 * 7 * 5}),
        (nn.Linear(7, 5, bias=False), (2, 3, 4, 7), {'matmul': 2 * 3 * 4 * 7 * 5}),
        (Lambda(lambda x: x @ x.mT), (4, 6, 5), {'matmul': 4 * 6 * 5 * 6}),
        (Lambda(lambda x: torch.baddbmm(x, x, x)), (4, 6, 6), {'matmul': 4 * 6 * 6 * 6}),
        (Lambda(lambda x: torch.einsum('bld,bmd->blm', x, x)), (4, 6, 5), {'matmul': 4 * 6 * 6 * 5}),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 8), {'conv': 2 * (5 * 4) * 6 * 4 * 9}),
        (nn.Conv2d(6, 6, 7, padding=3, groups=6), (1, 6, 9, 8), {'conv': (9 * 8) * 6 * 49}),
        (nn.Conv1d(4, 6, 3), (2, 4, 9), {'conv': 2 * 7 * 6 * 4 * 3}),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 3), {'conv': (5 * 3) * 4 * 6 * 4}),
        (nn.LayerNorm(7), (2, 3, 7), {'layer_norm': 5 * 2 * 3 * 7}),
        (nn.LayerNorm(7, elementwise_affine=False), (2, 3, 7), {'layer_norm': 4 * 2 * 3 * 7}),
        (nn.GroupNorm(2, 4), (2, 4, 3, 3), {'group_norm': 5 * 2 * 4 * 9}),
        (nn.BatchNorm2d(4), (2, 4, 3, 3), {'batch_norm': 2 * 2 * 4 * 9}),
        (nn.BatchNorm2d(4, affine=False), (2, 4, 3, 3), {'batch_norm': 2 * 4 * 9}),
        (nn.InstanceNorm2d(4, affine=True), (2, 4, 3, 3), {'batch_norm': 5 * 2 * 4 * 9}),
        (nn.Upsample((5, 7), mode='bilinear'), (2, 3, 2, 2), {'bilinear': 4 * 2 * 3 * 5 * 7}),
        (nn.Upsample((5, 7), mode='nearest'), (2, 3, 2, 2), {'nearest': 2 * 3 * 5 * 7}),
        (nn.AdaptiveAvgPool2d(1), (2, 3, 4, 5), {'avg_pool': 2 * 3 * 4 * 5}),
        (nn.AdaptiveAvgPool2d(2), (2, 3, 4, 5), {'avg_pool': 2 * 3 * 4 * 5}),
        (nn.AvgPool2d(2), (2, 3, 4, 5), {'avg_pool': 2 * 3 * 4 * 5}),
        (Lambda(lambda x: x.mean((1, 2))), (2, 3, 4, 5), {'avg_pool': 2 * 3 * 4 * 5}),
        (Lambda(lambda x: F.gelu(x + x * x.exp()).sum()), (2, 3), {}),
    ],
)
def test_one_layer_is_counted_as_by_hand(layer, shape, expected):
    count = count_flops(layer, shape)
    assert count.by_operator == expected
    assert count.total == sum(expected.values())
    assert count.parameters == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize('skip', [True, False])
@pytest.mark.parametrize('groups', [None, 3])
def test_a_scan_of_sequences(skip, groups):
    batch, dim, length, states = 2, 6, 11, 4
    projection = (batch, states, length) if groups is None else (batch, groups, states, length)

    def scan(u):
        B = u.new_empty(projection)
        return selective_scan(u, u, u.new_empty(dim, states), B, B, u.new_empty(dim) if skip else None)

    skipped = batch * dim * length if skip else 0
    assert count_flops(Lambda(scan), (batch, dim, length)).by_operator == {
        'scan': 9 * batch * length * dim * states + skipped
    }


@pytest.mark.parametrize(
    'group_sizes', [[1], [3], [1, 1, 1, 1], [2, 1]], ids=['one route', 'joined', 'four groups', 'joined and alone']
)
@pytest.mark.parametrize('rank', [None, 2])
@pytest.mark.parametrize('summed', [True, False])
def test_a_scan_of_a_map_is_one_sequence_per_group(group_sizes, rank, summed):
    batch, height, width, dim, states, groups = 2, 3, 5, 4, 3, len(group_sizes)

    def scan(u):
        dt = u.new_empty(batch, height, width, groups, rank or dim)
        dt_weight = None if rank is None else u.new_empty(groups, dim, rank)
        B = u.new_empty(batch, height, width, groups, states)
        vector = u.new_empty(groups, dim)
        A = u.new_empty(groups, dim, states)
        return scan2d(u, dt, dt_weight, vector, B, B, A, vector, range(sum(group_sizes)), group_sizes, summed)

    sequences = projections = 0
    for routes in group_sizes:
        length = routes * height * width
        sequences += 9 * batch * length * dim * states + batch * dim * length
        projections += batch * length * (rank or 0) * dim
    counted = count_flops(Lambda(scan), (batch, height, width, dim)).by_operator
    assert counted == {'scan': sequences, 'matmul': projections}


@pytest.mark.parametrize(
    'config',
    [
        dict(type='mmpretrain.ResNet', depth=18),
        dict(type='mmpretrain.SwinTransformer', arch='tiny', pad_small_map=True),
        dict(type='mmpretrain.HRNet', arch='w18'),
    ],
    ids=lambda config: config['type'],
)
def test_other_backbones_count_as_mmengine_counts_them(config):
    model = MODELS.build(config)
    model.eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = FlopAnalyzer(model, image).unsupported_ops_warnings(False).total()
    assert count_flops(model, image.shape).total == expected


def test_the_model_is_left_as_it_was():
    model = MSVMamba('nano', out_indices=(0,)).double()
    model.train()
    model.stages[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    on_cpu = count_flops(model, (1, 3, 32, 32))
    assert [module.training for module in model.modules()] == modes
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)
    assert on_cpu == count_flops(model.to('meta'), (1, 3, 32, 32))


def test_tensors_that_are_no_parameters_take_part():
    table = torch.rand(5, 7)
    assert count_flops(Lambda(lambda x: x @ table), (3, 5)).by_operator == {'matmul': 3 * 5 * 7}


def test_a_shared_parameter_is_one():
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.weight = first.weight
    count = count_flops(nn.Sequential(first, second), (1, 5))
    assert (count.parameters, count.total) == (25 + 5 + 5, 2 * 25)


def test_operations_grow_with_the_batch():
    with torch.device('meta'):
        model = MSVMamba('tiny-v3', out_indices=(1,))
    assert count_flops(model, (3, 3, 50, 70)).total == 3 * count_flops(model, (1, 3, 50, 70)).total


def test_scans_are_seen_without_custom_operators():
    """torch below 2.4 has no `torch.library.custom_op`; what imports it by itself is imported before it goes."""
    script = (
        'import torch, torch._dynamo, mmengine.model, mmcv.cnn\n'
        'vars(torch.library).pop("custom_op", None)\n'
        'from mmmsvmamba import MSVMamba\n'
        'from mmmsvmamba.analysis import count_flops\n'
        'print(count_flops(MSVMamba("nano", out_indices=(1,)), (1, 3, 32, 48)).total)\n'
    )
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY)}
    run = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == count_flops(MSVMamba('nano', out_indices=(1,)), (1, 3, 32, 48)).total


@pytest.mark.parametrize('shape', [(), 224, 'square', (1, 3, 0, 5), (1, 3, -2, 5), (1, 3, 2.0, 5), (1, None)])
def test_a_shape_that_is_none(shape):
    with pytest.raises(UserError, match=r'input_shape must be positive integers such as \(1, 3, 224, 224\), got'):
        count_flops(nn.ReLU(), shape)


@pytest.mark.parametrize(
    'model, shape, reason',
    [
        (nn.Conv2d(3, 4, 3), (1, 4, 8, 8), r'Conv2d does not run .*\(1, 4, 8, 8\).*hannel'),
        (nn.Linear(3, 4), (1, 4), r'Linear does not run .*\(1, 4\)'),
        (Lambda(lambda x: x[x > 0]), (4,), 'Lambda does not run on a dataless input'),
        (Lambda(lambda x: x * x.sum().item()), (4,), 'Lambda does not run on a dataless input .*[Mm]eta'),
        (nn.Bilinear(4, 4, 3), (1, 4), 'Bilinear does not run .*input2'),
    ],
    ids=['channels', 'features', 'chosen by value', 'a value', 'two inputs'],
)
def test_a_model_that_cannot_be_counted(model, shape, reason):
    model.train()
    with pytest.raises(UserError, match=reason) as error:
        count_flops(model, shape)
    assert '\n' not in str(error.value)
    assert model.training


def test_the_backbone_names_the_channels_it_wants():
    with pytest.raises(UserError, match=r'MSVMamba does not run .*\(B, 3, H, W\)'):
        count_flops(MSVMamba('nano', out_indices=(0,)), (1, 4, 32, 32))
