"""What becomes of rivals and packages that do not run on the machine of the GPU check: ours go on without them."""

import sys

import gpu_backbones
import pytest
import torch
from torch import nn
from worker import Settings, Skip, need_packages

CPU = Settings(torch.device('cpu'), tiny=True)


class Small(nn.Module):
    """In place of a backbone: what the steps do around one is looked at here."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.modes = []

    def forward(self, x):
        self.modes.append((x.dtype, torch.is_autocast_enabled('cpu'), torch.is_grad_enabled(), self.training))
        return (self.conv(x),)


@pytest.fixture
def made(monkeypatch):
    """Small models by the names under which the steps ask for them."""
    models = {}
    monkeypatch.setattr(gpu_backbones, 'need_gpu', lambda settings: None)
    monkeypatch.setattr(gpu_backbones, 'need_models', lambda *names: None)
    monkeypatch.setattr(gpu_backbones, 'make', lambda name: models.setdefault(name, Small()))
    return models


def side_by_side(rivals='timm', train=True, alone=True):
    options = dict(rivals=rivals, train=train, alone=alone, size=32, batch=2, budget=0.0, min_turns=2)
    return gpu_backbones.side_by_side(CPU, **options)


def broken(monkeypatch, name, error):
    make = gpu_backbones.make

    def other(model):
        if model == name:
            raise error
        return make(model)

    monkeypatch.setattr(gpu_backbones, 'make', other)


def test_a_rival_that_fails_is_left_out_with_its_reason(made, monkeypatch):
    broken(monkeypatch, 'timm-swin-t', ValueError('no such option'))
    found = side_by_side()
    assert found['left_out'] == {'timm-swin-t': 'ValueError: no such option'}
    assert found['images_per_second'].keys() == {*gpu_backbones.OURS, 'timm-convnext-t'}
    assert found['msvmamba-t_over_faster'] == found['times_as_fast_as']['msvmamba-t']['timm-convnext-t']


def test_a_failure_of_ours_is_one(made, monkeypatch):
    broken(monkeypatch, 'msvmamba-t-v3', ValueError('no such architecture'))
    with pytest.raises(ValueError, match='no such architecture'):
        side_by_side()


def test_without_any_rival_ours_are_timed_alone_where_that_is_wanted(made, monkeypatch):
    def need_models(*names):
        if set(names) & {*gpu_backbones.RIVALS['timm'], *gpu_backbones.RIVALS['mmpretrain']}:
            raise Skip('it is not installed')

    monkeypatch.setattr(gpu_backbones, 'need_models', need_models)
    found = side_by_side()
    assert found['images_per_second'].keys() == set(gpu_backbones.OURS)
    assert found['left_out'] == dict.fromkeys(gpu_backbones.RIVALS['timm'], 'it is not installed')
    assert not any(name.endswith('_over_faster') for name in found)
    with pytest.raises(Skip, match='it is not installed'):
        side_by_side(rivals='mmpretrain', alone=False)
    found = gpu_backbones.cpu_time(CPU, autocast=True, size=32, turns=1)
    assert found['left_out'] == {'timm-swin-t': 'it is not installed'} and 'msvmamba-t_over_swin' not in found


@pytest.mark.parametrize('train', [False, True], ids=['infer', 'train'])
def test_all_run_in_the_same_mode(train, made):
    found = side_by_side(train=train)
    assert made.keys() == {*gpu_backbones.OURS, *gpu_backbones.RIVALS['timm']} and found['left_out'] == {}
    for model in made.values():
        assert set(model.modes) == {(torch.float32, True, train, train)}
        # gradients do not count for the memory of the next
        assert model.conv.weight.grad is None


@pytest.mark.parametrize('autocast', [False, True])
def test_time_of_the_cpu_is_taken_without_waiting_inside(autocast, made):
    found = gpu_backbones.cpu_time(CPU, autocast, size=32, turns=4)
    names = {*gpu_backbones.OURS, 'timm-swin-t'}
    assert found['median_ms'].keys() == found['least_ms'].keys() == made.keys() == names
    for name, model in made.items():
        # each pass enters autocast anew, as a user's does
        assert model.modes == (3 + 4 * gpu_backbones.REPEATS) * [(torch.float32, autocast, False, False)]
        assert 0 < found['least_ms'][name] <= found['median_ms'][name]
    for name in gpu_backbones.OURS:
        ratio = found['median_ms'][name] / found['median_ms']['timm-swin-t']
        assert found[f'{name}_over_swin'] == pytest.approx(ratio)


# ---- packages ----


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose import does what a text says."""

    def write(text):
        monkeypatch.setitem(sys.modules, 'a_package', None)
        monkeypatch.delitem(sys.modules, 'a_package')
        (tmp_path / 'a_package').mkdir()
        (tmp_path / 'a_package' / '__init__.py').write_text(text)

    monkeypatch.syspath_prepend(tmp_path)
    return write


@pytest.mark.parametrize('of_others', [False, True])
@pytest.mark.parametrize('name', ['no_such_package', 'no_such_package.part', 'a_package.part'])
def test_a_missing_package_is_a_reason_to_skip(name, of_others, package):
    package('')
    missing = name if name == 'a_package.part' else 'no_such_package'
    with pytest.raises(Skip, match=f'^{missing} is not installed$'):
        need_packages('torch', name, of_others=of_others)


@pytest.mark.parametrize(
    'text, error',
    [
        ('import no_such_need', ModuleNotFoundError),
        ('raise ImportError("undefined symbol")', ImportError),
        ('raise OSError("no such library")', OSError),
        ('assert False, "mmcv is too new"', AssertionError),
    ],
    ids=['need', 'symbol', 'library', 'version'],
)
def test_a_broken_package_fails_ours_and_skips_rivals(text, error, package):
    package(text)
    with pytest.raises(error):
        need_packages('a_package')
    with pytest.raises(Skip, match='^a_package cannot be loaded: .*(no_such_need|symbol|library|new)'):
        need_packages('a_package', of_others=True)


def test_models_need_their_packages(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_backbones, 'need_packages', lambda *names, **options: asked.append((names, options)))
    gpu_backbones.need_models('msvmamba-t', 'timm-swin-t', 'convnext-t')
    of_others = dict(of_others=True)
    assert asked == [(('mmengine', 'mmcv'), {}), (('timm',), of_others), (('mmpretrain',), of_others)]
