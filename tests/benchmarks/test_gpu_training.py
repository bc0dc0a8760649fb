"""Training steps of a whole detector and segmentor in the GPU check, at a small size on a CPU."""

import sys

import gpu_backbones
import gpu_training
import pytest
import torch
from worker import Settings, Skip

CPU = Settings(torch.device('cpu'), tiny=True)


@pytest.fixture(params=list(gpu_training.TASKS))
def task(request):
    pytest.importorskip({'detection': 'mmdet', 'segmentation': 'mmseg'}[request.param])
    return request.param


def test_a_step_is_compared_with_that_of_torch(task, monkeypatch):
    ours, calls, wrong = gpu_training.step, [], []

    def step(model, data, dtype, device):
        found = ours(model, data, dtype, device)
        calls.append((dtype, found))
        if len(calls) % 4 == 0:  # the one that is judged in half precision
            for name in wrong:
                found[name] = 1.5 * found[name]
        return found

    monkeypatch.setattr(gpu_training, 'step', step)
    figures = gpu_training.against_torch(CPU, task, ours='torch')
    assert [dtype for dtype, _ in calls] == 2 * [None, torch.bfloat16]
    assert figures['loss'] > 0
    exactly, theirs, single, found = (found for _, found in calls)
    # the same weights, inputs, proposals and draws: the same bits
    assert all(torch.equal(found[name], value) for name, value in theirs.items())
    assert all(torch.equal(single[name], value) for name, value in exactly.items())
    assert figures['largest_error_in_float32'] == 0
    assert sum(name.startswith('gradient of backbone.') for name in exactly) > 50
    assert sum('loss' in name for name in exactly) >= (5 if task == 'detection' else 2)
    # a detector has objects to learn from, and autocast is on
    assert all(value != 0 for name, value in exactly.items() if name.endswith('loss_mask') or name == 'loss_bbox')
    assert figures['largest_error_of_torch'] > 0

    wrong += ['loss', 'gradient of backbone.stages.0.blocks.0.mixer.in_proj.weight']
    wrong[1:] = [name for name in exactly if name.startswith('gradient of backbone.stages.0')][:1]
    with pytest.raises(AssertionError) as error:
        gpu_training.against_torch(CPU, task, ours='torch')
    assert all(f'{name} is off by' in str(error.value) for name in wrong)


def test_a_step_is_timed_beside_swin(task, monkeypatch):
    monkeypatch.setattr(gpu_backbones, 'need_gpu', lambda settings: None)
    figures = gpu_training.beside_swin(CPU, task, budget=0.0, min_turns=1)
    assert figures['images_per_second'].keys() == figures['growth_mb'].keys() == {'msvmamba-t', 'swin-t'}
    assert figures['msvmamba-t_over_faster'] == figures['times_as_fast_as']['msvmamba-t']['swin-t'] > 0
    assert figures['left_out'] == {}


def test_both_backbones_are_of_one_size(task):
    ours, swin = (gpu_training.model_of(task, CPU.device, tiny=False, swin=swin).backbone for swin in (False, True))
    assert type(swin).__name__ == 'SwinTransformer'
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, swin)]
    assert 0.8 < sizes[0] / sizes[1] < 1.3
    assert all(layer.training for layer in ours.modules())


def test_operators_of_mmcv():
    pytest.importorskip('mmcv')
    extension = pytest.importorskip('torchvision.extension')
    if not extension._has_ops():
        pytest.skip("torchvision's compiled operators are for another torch")
    assert gpu_training.operators_of_mmcv(CPU)['largest_error'] < 1e-4


@pytest.mark.parametrize('task, package', [('detection', 'mmdet'), ('segmentation', 'mmseg'), ('detection', 'mmcv')])
def test_without_its_package_a_task_is_skipped(task, package, monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Skip, match=f'{package} is not installed|mmcv.ops is not installed'):
        gpu_training.model_of(task, CPU.device, tiny=True)


def test_times_are_taken_on_a_gpu_only():
    for step in gpu_training.TIMINGS:
        with pytest.raises(Skip, match='times are taken on a GPU'):
            step.run(CPU)


def test_a_hundredth_in_float32_is_too_much(monkeypatch):
    pytest.importorskip('mmseg')
    ours, calls = gpu_training.step, []

    def step(model, data, dtype, device):
        found = ours(model, data, dtype, device)
        calls.append(dtype)
        if len(calls) == 3:  # that in float32 that is judged
            found['loss'] = 1.01 * found['loss']
        return found

    monkeypatch.setattr(gpu_training, 'step', step)
    with pytest.raises(AssertionError, match='^float32: loss is off by 1.00e-02, more than 1e-03$'):
        gpu_training.against_torch(CPU, 'segmentation', ours='torch')
