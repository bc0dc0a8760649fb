"""Guards: a diverged training stops and saves nothing; a killed one leaves a checkpoint that loads."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from tiny_data import toy_config

from mmmsvmamba.engine import guards
from mmmsvmamba.engine.guards import DurableCheckpointHook, TrainingDiverged, add_guards


def guarded(**options) -> Runner:
    runner = Runner(**toy_config(**options))
    add_guards(runner)
    return runner


def checkpoints(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob('*.pth'))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_stops_at_the_first_bad_loss(tmp_path, bad):
    runner = guarded(work_dir=tmp_path, values=[1.0, 1.0, 1.0, bad, 1.0, 1.0, 1.0, 1.0])
    with pytest.raises(TrainingDiverged, match=f'iteration 4: .*loss_toy = {bad}.*lower learning rate'):
        runner.train()
    assert checkpoints(tmp_path) == ['iter_2.pth']


def test_does_not_save_weights_that_broke_under_a_good_loss(tmp_path):
    # The first step makes the weight infinite, and the loss of the second, 1 / inf, looks fine.
    runner = guarded(work_dir=tmp_path, values=[3e38, 1.0, 1.0, 1.0], lr=1e3)
    with pytest.raises(TrainingDiverged, match=r'weights are no longer finite at iteration 2 \(weight\)'):
        runner.train()
    assert checkpoints(tmp_path) == []


def test_healthy_training_saves_as_mmengine_does(tmp_path):
    plain = Runner(**toy_config(tmp_path / 'plain', max_keep_ckpts=2))
    plain.train()
    guarded(work_dir=tmp_path / 'guarded', max_keep_ckpts=2).train()
    assert checkpoints(tmp_path / 'guarded') == checkpoints(tmp_path / 'plain') == ['iter_6.pth', 'iter_8.pth']
    assert (tmp_path / 'guarded/last_checkpoint').read_text() == str(tmp_path / 'guarded/iter_8.pth')


@pytest.mark.parametrize('step', ['write', 'fsync', 'replace'])
def test_killed_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch, step):
    """Whatever moment the process dies at, `last_checkpoint` names a whole file, also if only one is kept."""

    class Killed(BaseException):
        pass

    def killed(*args):
        raise Killed

    def truncated(checkpoint, file):
        file.write(b'the first bytes')
        raise Killed

    runner = guarded(work_dir=tmp_path, max_keep_ckpts=1)
    save = runner.save_checkpoint

    def save_until_killed(folder, filename, *args, **kwargs):
        if filename == 'iter_4.pth':
            place, name, action = {
                'write': (torch, 'save', truncated),
                'fsync': (os, 'fsync', killed),
                'replace': (Path, 'replace', killed),
            }[step]
            monkeypatch.setattr(place, name, action)
        save(folder, filename, *args, **kwargs)

    monkeypatch.setattr(runner, 'save_checkpoint', save_until_killed)
    with pytest.raises(Killed):
        runner.train()
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'iter_2.pth')
    assert torch.load(last, weights_only=False)['meta']['iter'] == 2
    assert checkpoints(tmp_path) == ['iter_2.pth']


def test_resumes_with_the_number_of_checkpoints_asked_for(tmp_path):
    guarded(work_dir=tmp_path, max_keep_ckpts=1).train()
    assert checkpoints(tmp_path) == ['iter_8.pth']
    config = toy_config(tmp_path, max_keep_ckpts=1) | dict(resume=True, experiment_name='resumed')
    config['train_cfg']['max_iters'] = 12
    runner = Runner(**config)
    add_guards(runner)
    runner.train()
    assert checkpoints(tmp_path) == ['iter_12.pth']


def test_leaves_a_users_own_checkpoint_hook_alone(tmp_path):
    class Own(DurableCheckpointHook):
        pass

    config = toy_config(tmp_path)
    own = Own(by_epoch=False, interval=2)
    config['default_hooks']['checkpoint'] = own
    runner = Runner(**config)
    add_guards(runner)
    assert type(own) is Own
    assert not [hook for hook in runner.hooks if type(hook) is DurableCheckpointHook]


def test_reads_all_losses_at_once(monkeypatch):
    """Each reading waits for the device."""
    readings = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, 'tolist', lambda self: readings.append(1) or tolist(self))
    monkeypatch.setattr(torch.Tensor, 'item', lambda self: pytest.fail('one reading for each loss'))
    losses = {'a': torch.tensor([1.0], requires_grad=True), 'b': torch.tensor(2.5, dtype=torch.float16), 'c': 3.0}
    found = guards._numbers({key: torch.as_tensor(value) for key, value in losses.items()})
    assert found == {'a': 1.0, 'b': 2.5, 'c': 3.0} and len(readings) == 1
    assert guards._numbers({}) == {}
