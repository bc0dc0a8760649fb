"""The steps of the GPU check that take whole backbones, on a CPU and at small sizes."""

from functools import partial

import breakdown
import figures
import gpu_backbones
import pytest
import torch
from worker import Settings, Skip

CPU = Settings(torch.device('cpu'), tiny=True)
STEPS = {step.name: step for step in gpu_backbones.TIMINGS}


@pytest.fixture
def anywhere(monkeypatch):
    monkeypatch.setattr(gpu_backbones, 'need', lambda settings, packages: None)


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


def test_without_a_gpu_they_are_skipped():
    for name in ('time/growth/msvmamba-t/train/224', 'time/breakdown/block/tiny/full'):
        with pytest.raises(Skip, match='times are taken on a GPU'):
            STEPS[name].run(CPU)
