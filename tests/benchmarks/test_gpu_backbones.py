"""The steps of the GPU check that take whole backbones, on a CPU and at small sizes."""

import time
from functools import partial

import breakdown
import figures
import gpu_backbones
import pytest
import torch
from registry import Work
from worker import Settings, Skip

CPU = Settings(torch.device('cpu'), tiny=True)
STEPS = {step.name: step for step in gpu_backbones.TIMINGS}


@pytest.fixture
def anywhere(monkeypatch):
    monkeypatch.setattr(gpu_backbones, 'need_gpu', lambda settings: None)


def test_growth_is_measured_in_both_modes_from_224_to_1536():
    for name in gpu_backbones.MODELS:
        for mode in ('forward', 'train'):
            sides = [int(step.rpartition('/')[2]) for step in STEPS if step.startswith(f'time/growth/{name}/{mode}/')]
            assert (min(sides), max(sides), len(sides)) == (224, 1536, 4)


@pytest.mark.parametrize('mode', ['forward', 'train'])
def test_points_of_growth_become_a_figure(mode, anywhere):
    found = {}
    for side, size in ((224, 32), (512, 64)):
        step = STEPS[f'time/growth/msvmamba-t-v3/{mode}/{side}']
        assert step.run.keywords['size'] == side and step.run.keywords['train'] == (mode == 'train')
        run = partial(step.run, size=size, batch=2, budget=0.0, min_turns=1)
        found[step.name] = {'result': 'passed', 'figures': run(CPU)}
        assert found[step.name]['figures']['pixels'] == 2 * size * size
    (figure,) = figures.figures({'timings': found})
    assert figure.name == f'growth-{mode}'
    assert [side for side, _ in figure.panels[0].series['msvmamba-t-v3']] == [224, 512]


def test_operators_of_a_block(anywhere):
    names = [name for name in STEPS if name.startswith('time/breakdown/')]
    assert {name.removeprefix('time/breakdown/') for name in names} <= set(breakdown.CASES) and len(names) == 4
    run = STEPS['time/breakdown/block/tiny-v3/full'].run
    assert 'batch' not in run.keywords  # as large as the timings of backbones
    found = run(CPU, size=32, batch=1)
    assert 'mmmsvmamba::scan2d_backward' in found['operators']


class Pass:
    """Work whose time is known: it takes so much longer than the others."""

    def __init__(self, seconds):
        self.seconds, self.calls = seconds, 0

    def __call__(self):
        self.calls += 1
        time.sleep(self.seconds)


def test_turns_compare_with_the_faster_rival():
    passes = {'ours': Pass(0.01), 'slow': Pass(0.06), 'fast': Pass(0.03)}
    works = {name: Work(run, images=4, pixels=1) for name, run in passes.items()}
    found = gpu_backbones.in_turns(works, CPU.device, ['ours'], budget=0.0, min_turns=2)
    assert found['turns'] == 2 and found['times_as_fast_as']['ours'].keys() == {'slow', 'fast'}
    assert found['ours_over_faster'] == min(found['times_as_fast_as']['ours'].values())
    assert found['ours_over_faster'] == found['times_as_fast_as']['ours']['fast'] > 1.5
    for name, rate in found['images_per_second'].items():
        assert rate == pytest.approx(4 / found['seconds'][name]) and rate >= found['median_images_per_second'][name]
        assert rate <= 4 / passes[name].seconds
    assert found['growth_mb'].keys() == works.keys()


def test_a_turn_is_several_passes_of_what_is_short():
    passes = {'ours': Pass(0.001), 'other': Pass(0.08)}
    works = {name: Work(run, images=1, pixels=1) for name, run in passes.items()}
    gpu_backbones.in_turns(works, CPU.device, ['ours'], budget=0.1, min_turns=1)
    # three to begin with, one for the peak, the rest in turns
    assert passes['ours'].calls - 4 >= 10 * (passes['other'].calls - 4) > 0


@pytest.mark.parametrize('train', [False, True])
def test_ours_and_rivals_take_turns(train, anywhere):
    pytest.importorskip('timm')
    mode = 'train' if train else 'infer'
    step = STEPS[f'time/backbones/{mode}/224/timm']
    assert 'batch' not in step.run.keywords and gpu_backbones.BATCH == 128
    found = step.run(CPU, size=32, batch=1, budget=0.0, min_turns=1)
    names = {'msvmamba-t', 'msvmamba-t-v3', 'timm-swin-t', 'timm-convnext-t'}
    assert found['images_per_second'].keys() == found['growth_mb'].keys() == names
    for name in gpu_backbones.OURS:
        assert found[f'{name}_over_faster'] == min(found['times_as_fast_as'][name].values())
    (figure,) = figures.figures({'timings': {step.name: {'result': 'passed', 'figures': found}}})
    assert figure.name == 'ratios-backbones' and len(figure.panels[0].rows) == 4


def test_time_of_the_cpu(anywhere):
    pytest.importorskip('timm')
    for kind in ('bfloat16', 'float32'):
        found = STEPS[f'time/cpu/infer/batch1/{kind}'].run(CPU, size=32, turns=1)
        assert found['median_ms'].keys() == {*gpu_backbones.OURS, 'timm-swin-t'}
        assert found['msvmamba-t_over_swin'] > 0


def test_without_a_gpu_they_are_skipped():
    names = ['time/growth/msvmamba-t/train/224', 'time/breakdown/block/tiny/full', 'time/cpu/infer/batch1/float32']
    for name in [*names, 'time/backbones/infer/224/timm', 'time/backbones/train/224/mmpretrain']:
        with pytest.raises(Skip, match='times are taken on a GPU'):
            STEPS[name].run(CPU)
