"""The benchmark of the tasks: what a fresh process measures, how failures are told, what the cases are."""

import json
import time
from functools import partial

import fresh_process
import known_work
import pytest
import task_speed
import tasks
import torch
from machine import usable_device
from registry import WORKLOADS, workload

CPU = torch.device('cpu')


def test_results_of_known_work_in_fresh_processes(tmp_path, monkeypatch, capsys):
    cases = {
        'growth/known/forward/1': partial(known_work.allocating, megabytes=200),
        'fails': known_work.failing,
        'dies': known_work.dying,
        'not/asked/for': known_work.failing,
    }
    monkeypatch.setattr(tasks, 'WORKLOADS', cases)
    out = tmp_path / 'tasks.json'
    hidden = torch.ones(500 * 10**6, dtype=torch.uint8)  # of this process, and none of the other's business
    arguments = ['--cases', '[!n]*', '--seconds', '0', '--threads', '1', '--note', 'a test', '--out', str(out)]
    with pytest.raises(SystemExit, match='2 of 3 cases failed: fails, dies'):
        tasks.main(arguments)
    del hidden

    results = json.loads(out.read_text())
    assert results['note'] == 'a test'
    assert {'cpu', 'device', 'threads', 'torch', 'scan'} <= results['machine'].keys()
    assert results['machine']['threads'] == 1
    known, failed, died = results['cases'].values()
    assert known['turns'] == 2 and known['images'] == 4 and known['about'] == {'gflops': 0.0}
    assert 0.05 <= known['seconds'] < 1
    assert known['images_per_second'] == pytest.approx(4 / known['seconds'])
    assert known['seconds_per_megapixel'] == pytest.approx(known['seconds'] / 2)
    memory = known['memory_mb']
    assert known['growth_mb'] == pytest.approx(200, abs=20)
    assert known['growth_mb'] == pytest.approx(memory['rss_peak'] - memory['rss_before'], abs=0.2)
    assert known['growth_mb_per_megapixel'] == pytest.approx(known['growth_mb'] / 2, abs=0.1)
    assert memory['rss_before'] < 700  # what Python, torch and mmengine take
    assert failed == {'error': 'RuntimeError: no work for cpu'}
    assert list(died) == ['error'] and 'was killed' in died['error']

    printed = capsys.readouterr().out
    assert 'fails: FAILED: RuntimeError: no work for cpu' in printed
    assert 'growth/known/forward/1: ' in printed and 'rss peak' in printed


def test_what_takes_too_long_is_killed():
    start = time.perf_counter()
    with pytest.raises(fresh_process.Failed, match='more than 0.5 s'):
        fresh_process.in_fresh_process(time.sleep, 60, timeout=0.5)
    assert time.perf_counter() - start < 30


def test_growth_of_a_quadratic_model():
    def result(side):
        pixels = side * side
        return {
            'pixels': pixels,
            'seconds': 3e-12 * pixels**2,
            'growth_mb': 5e-6 * pixels,
            'seconds_per_megapixel': 3e-6 * pixels,
            'growth_mb_per_megapixel': 5.0,
        }

    cases = {f'growth/toy/train/{side}': result(side) for side in (1536, 224, 1024)}
    cases |= {'growth/toy/train/512': {'error': 'gone'}, 'growth/alone/train/224': result(224), 'toy/224': result(224)}
    table = tasks.growth(cases)
    assert list(table) == ['toy/train']
    toy = table['toy/train']
    assert toy['sides'] == [224, 1024, 1536]
    assert toy['seconds_exponent'] == pytest.approx(2)
    assert toy['growth_mb_exponent'] == pytest.approx(1)
    assert toy['growth_mb_per_megapixel'] == [5.0] * 3


def test_cases():
    for task in task_speed.CONFIGS:
        assert any(name.startswith(f'{task}/predict/') for name in WORKLOADS)
    for part in ('backbone', 'classifier'):
        for mode, count in (('forward', 6), ('train', 4)):
            assert sum(name.startswith(f'growth/{part}/{mode}/') for name in WORKLOADS) == count
    with pytest.raises(ValueError, match="two workloads named 'growth/backbone/forward/224'"):
        workload('growth/backbone/forward/224')(known_work.failing)


@pytest.mark.parametrize(
    'build',
    [
        partial(task_speed.backbone, side=96, train=False),
        partial(task_speed.backbone, side=96, train=True),
        partial(task_speed.classifier, side=96, train=True),
    ],
    ids=['backbone', 'backbone-train', 'classifier-train'],
)
def test_work_of_small_images(build):
    result = fresh_process.measure(build, CPU, threads=None, budget=0, min_turns=1)
    assert result['seconds'] > 0 and result['turns'] == 1
    assert result['pixels'] == 96 * 96


def test_predictions_are_made():
    work = task_speed.predict(CPU, task='classification', size=(64, 96), batch=2)
    assert work.images == 2 and work.pixels == 2 * 64 * 96
    results = work.run()
    assert [result.pred_score.shape for result in results] == [(1000,)] * 2
    (result,) = task_speed.predict(CPU, task='segmentation', size=(64, 96), batch=1).run()
    assert result.seg_logits.data.shape == (150, 64, 96)
    (result,) = task_speed.predict(CPU, task='detection', size=(64, 96), batch=1).run()
    assert len(result.pred_instances) == 100  # so the mask head has work
    assert result.pred_instances.masks.shape == (100, 64, 96)


@pytest.mark.parametrize(
    'args, message',
    [
        (['--cases', 'growth/*/1'], "no case matches 'growth/*/1'; the cases are classification/predict/"),
        (['--out', 'no/such/folder/x.json'], 'there is no folder no/such/folder'),
        (['--threads', '0'], '--threads must be at least 1, got 0'),
        (['--device', 'gpu'], "'gpu' is no device; give cpu, cuda or cuda:N"),
        (['--device', 'meta'], 'not on meta'),
    ],
    ids=['cases', 'out', 'threads', 'unknown', 'meta'],
)
def test_bad_arguments(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        tasks.main(args)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    assert usable_device('cuda') == torch.device('cuda')
    with pytest.raises(Exception, match='sees 1 GPUs, and cuda:1 is none of them'):
        usable_device('cuda:1')


def test_list_of_cases(capsys):
    tasks.main(['--list', '--cases', 'growth/backbone/train/*'])
    assert capsys.readouterr().out.split() == [f'growth/backbone/train/{side}' for side in task_speed.TRAIN_SIDES]
