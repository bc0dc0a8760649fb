"""The cases that compare models: scan patterns, all families, Vim and DeiT; at small sizes."""

from functools import partial

import families
import fresh_process
import pytest
import scan_patterns
import torch
import turns
import vim_deit
from registry import CASES, WORKLOADS, Case

from mmmsvmamba import MSVMamba, Vim, VMamba
from mmmsvmamba.engine.options import read_config

CPU = torch.device('cpu')


@pytest.fixture
def one_turn(monkeypatch):
    monkeypatch.setattr(turns, 'MIN_TURNS', 1)


@pytest.mark.parametrize('mode', ['forward', 'train'])
def test_every_scan_pattern_is_compared_with_cross_scan(mode, one_turn, monkeypatch):
    monkeypatch.setattr(scan_patterns, 'SIDE', 32)
    backwards = []
    backward = torch.autograd.backward
    monkeypatch.setattr(torch.autograd, 'backward', lambda *args: (backwards.append(args), backward(*args)))
    found = turns.measure(CASES[f'scan-patterns/{mode}/224'], CPU, budget=0)

    assert len(backwards) == (2 * 8 if mode == 'train' else 0)  # the first turn warms up
    assert {ours: list(others) for ours, others in found['times_as_fast_as'].items()} == {
        name: ['cross'] for name in scan_patterns.PATTERNS if name != 'cross'
    }
    for name, speed in found['images_per_second'].items():
        assert speed == pytest.approx(scan_patterns.BATCH / found['seconds'][name])
    # four sets of S6 parameters in each: only the convolution makes a difference
    parameters = {name: about['parameters'] for name, about in found['about'].items()}
    assert len(set(parameters.values())) == 2
    assert all(parameters[name] > parameters[f'{name}, no dwconv'] for name in ('cross', 'uni', 'bi', 'cascade'))


def test_scan_patterns_are_those_of_the_configs():
    names = read_config(scan_patterns.ABLATIONS, None).ablations
    assert set(scan_patterns.PATTERNS.values()) == {'vmamba_n', *(name for name in names if name.startswith('scan_'))}


def test_families(one_turn, monkeypatch):
    monkeypatch.setattr(families, 'SIDE', 64)
    for family in (MSVMamba, VMamba, Vim):
        name, fields = next(iter(family.arch_settings.items()))
        monkeypatch.setattr(family, 'arch_settings', {name: fields})
    found = turns.measure(CASES['families/forward/224'], CPU, budget=0)
    names = ['MSVMamba nano', 'VMamba tiny-v0', 'Vim tiny']
    assert {name: list(others) for name, others in found['times_as_fast_as'].items()} == {
        name: [families.YARDSTICK] for name in names
    }
    assert found['images_per_second'].keys() == {*names, families.YARDSTICK}
    # the published classifier less its head
    assert found['about']['Vim tiny']['parameters'] == 7_148_008 - 193 * 1000
    # 4.5 GFLOPs at 224², as its paper says
    assert found['about'][families.YARDSTICK]['gflops'] == pytest.approx(4.5 * (64 / 224) ** 2, rel=0.01)


def test_both_deits_are_one_model():
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 96)
    outputs, operators = [], []
    for build in (vim_deit.deit, vim_deit.deit_with_scores):
        torch.manual_seed(0)
        model = build(64)
        model.eval()
        with torch.no_grad(), torch.profiler.profile() as profile:
            (output,) = model(image)
        outputs.append(output)
        operators.append({event.key for event in profile.key_averages()})
    torch.testing.assert_close(*outputs)
    assert outputs[0].shape == (1, 192) and outputs[0].std() > 0.1
    assert ['aten::scaled_dot_product_attention' in names for names in operators] == [True, False]


@pytest.mark.parametrize('name', vim_deit.MODELS)
def test_work_of_vim_and_deit(name, monkeypatch):
    monkeypatch.setitem(vim_deit.BATCH, 'cpu', 2)
    build = partial(vim_deit.infer, name=name, side=64)
    found = fresh_process.measure(build, CPU, threads=None, budget=0, min_turns=1)
    assert (found['images'], found['pixels'], found['turns']) == (2, 2 * 64 * 64, 1)
    if name != 'vim-tiny':
        # 12 blocks of q, k, v, the projection and the FFN, and of two products with the scores
        tokens = 4 * 4 + 1
        blocks = 12 * (12 * tokens * 192**2 + 2 * tokens**2 * 192)
        assert found['about']['gflops'] == pytest.approx((blocks + 16 * 16**2 * 3 * 192) / 1e9, rel=0.01)


def test_vim_and_deit_take_turns(one_turn, monkeypatch):
    monkeypatch.setitem(vim_deit.BATCH, 'cpu', 2)
    assert {f'vim-deit/forward/{side}' for side in vim_deit.SIDES} <= set(CASES)
    case = Case('tiny', partial(vim_deit.build, side=64), targets={})
    found = turns.measure(case, CPU, budget=0)
    assert found['times_as_fast_as'].keys() == {'vim-tiny'}
    assert found['about'].keys() == found['images_per_second'].keys() == vim_deit.MODELS.keys()
    assert found['images_per_second']['vim-tiny'] == pytest.approx(2 / found['seconds']['vim-tiny'])


def test_contenders_of_one_size_follow_each_other():
    names = [name for name in WORKLOADS if 'tiny' in name]
    assert names == [
        f'growth/{name}/forward/{side}'
        for side in (512, 768, 1248)
        for name in ('vim-tiny', 'deit-tiny', 'deit-tiny-scores')
    ]
