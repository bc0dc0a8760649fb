"""Training, resuming, testing and drawing by the command lines, as a user types them in another folder."""

import pickle
import re
import socket
import subprocess
import sys

import cv2
import pytest
import torch
from tiny_data import COCO_CONFIG, COCO_MINI, ENVIRONMENT, REPOSITORY, SHAPES_CONFIG, run_tool

from mmmsvmamba.engine import cli

TRAIN = REPOSITORY / 'tools/train.py'
TEST = REPOSITORY / 'tools/test.py'

# The recipe's heads look at 512 regions of 800-pixel images: too much for a test.
SMALL_HEADS = [
    'model.train_cfg.rpn_proposal.max_per_img=30',
    'model.train_cfg.rcnn.sampler.num=16',
    'model.test_cfg.rpn.max_per_img=10',
    'model.roi_head.mask_head.num_convs=1',
    'model.roi_head.bbox_head.fc_out_channels=32',
]
SMALL_IMAGES = [
    f'{loader}_dataloader.dataset.pipeline.{step}.scale=(96,96)'
    for loader, step in (('train', 2), ('val', 1), ('test', 1))
]
NO_WORKERS = [
    f'{loader}_dataloader.{key}={value}'
    for loader in ('train', 'val', 'test')
    for key, value in (('num_workers', 0), ('persistent_workers', False))
]
SHORT = ['train_cfg.max_iters=2', 'train_cfg.val_interval=10', 'default_hooks.logger.interval=1']


def succeed(*arguments, cwd, **options) -> str:
    run = run_tool(*arguments, cwd=cwd, **options)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run.stdout


def losses(output: str) -> list[float]:
    return [float(value) for value in re.findall(r'(?:Iter|Epoch)\(train\).*? loss: ([\d.]+)', output)]


def test_shapes_train_resume_test_draw(tmp_path, shapes):
    """From a folder that is not the repository, with the config named relative to the repository."""
    config = 'configs/mask_rcnn_msvmamba_n_shapes.py'
    data = ['--data-root', shapes]
    output = succeed(TRAIN, config, *data, '--cfg-options', *SHORT, 'train_cfg.max_iters=3', cwd=tmp_path)
    assert len(losses(output)) == 3
    runs = tmp_path / 'work_dirs/mask_rcnn_msvmamba_n_shapes'
    assert (runs / 'last_checkpoint').read_text() == str(runs / 'iter_3.pth')
    # plain lines where the output is no terminal
    assert '\x1b' not in output

    output = succeed(TRAIN, config, *data, '--resume', '--cfg-options', *SHORT, 'train_cfg.max_iters=4', cwd=tmp_path)
    assert 'Iter(train) [4/4]' in output and 'Iter(train) [3/4]' not in output
    assert (runs / 'iter_4.pth').is_file()

    drawing = ['--show-dir', 'pictures', '--out', 'found.pkl']
    any_score = ['default_hooks.visualization.score_thr=0.0', 'model.test_cfg.rcnn.max_per_img=3']
    output = succeed(TEST, config, runs / 'iter_4.pth', *data, *drawing, '--cfg-options', *any_score, cwd=tmp_path)
    assert 'coco/segm_mAP_50' in output and 'coco/bbox_mAP_s' in output
    pictures = sorted((tmp_path / 'pictures').iterdir())
    assert [picture.name for picture in pictures] == sorted(file.name for file in (shapes / 'val2017').iterdir())
    height, width = cv2.imread(str(pictures[0])).shape[:2]
    assert width == 2 * height  # ground truth beside prediction
    with open(tmp_path / 'found.pkl', 'rb') as file:
        assert len(pickle.load(file)) == 4


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f'{COCO_MINI} is not there')
def test_coco_photographs_train_and_test(tmp_path, monkeypatch, capsys):
    """The recipe's config on real COCO images with 80 classes, small enough for a test."""
    small = [*SMALL_HEADS, *SMALL_IMAGES, *NO_WORKERS]
    short = ['train_cfg.max_epochs=1', 'default_hooks.logger.interval=1']
    few = [f'{loader}_dataloader.dataset.indices={count}' for loader, count in (('train', 6), ('val', 1), ('test', 2))]
    monkeypatch.chdir(tmp_path)
    common = [COCO_CONFIG, '--data-root', str(COCO_MINI), '--work-dir', 'run', '--cfg-options', *small, *few]
    assert cli.train([*common, *short, '--from-scratch']) == 0
    found = losses(capsys.readouterr().out)
    assert len(found) == 3 and all(0 < loss < 20 for loss in found)
    assert cli.test([COCO_CONFIG, 'run/epoch_1.pth', *common[1:], '--show-dir', 'pictures']) == 0
    assert 'Evaluating bbox' in capsys.readouterr().out
    assert len(list((tmp_path / 'pictures').iterdir())) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo is for machines without a GPU')
def test_two_processes_train_on_cpus(tmp_path, shapes):
    """tools/dist_train.sh with gloo."""
    with_port = ENVIRONMENT | {'PYTHON': sys.executable, 'PORT': str(free_port())}
    options = ['train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    run = subprocess.run(
        [REPOSITORY / 'tools/dist_train.sh', SHAPES_CONFIG, '2', '--data-root', shapes, '--work-dir', 'run',
         '--cfg-options', *options, 'default_hooks.logger.interval=1'],
        cwd=tmp_path, env=with_port, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert 'Distributed launcher: pytorch' in run.stdout and 'GPU number: 2' in run.stdout
    assert len(losses(run.stdout)) == 2
    assert 'coco/segm_mAP' in run.stdout  # both halves of the results were put together
    assert (tmp_path / 'run/iter_2.pth').is_file()


def test_scripts_say_how_they_are_used(tmp_path):
    for script in ('dist_train', 'dist_test', 'slurm_train', 'slurm_test'):
        run = subprocess.run([REPOSITORY / f'tools/{script}.sh'], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 2 and f'usage: {REPOSITORY}/tools/{script}.sh' in run.stderr


def test_slurm_scripts_start_one_task_per_gpu(tmp_path):
    srun = tmp_path / 'bin/srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    env = ENVIRONMENT | {'PATH': f'{srun.parent}:{ENVIRONMENT["PATH"]}', 'GPUS': '16', 'PYTHON': 'python3'}
    run = subprocess.run(
        [REPOSITORY / 'tools/slurm_train.sh', 'gpu', 'name', 'config.py', '--amp'],
        env=env,
        capture_output=True,
        text=True,
    )
    assert '--ntasks=16 --ntasks-per-node=8' in run.stdout
    assert run.stdout.endswith(f'python3 -u {REPOSITORY}/tools/train.py config.py --launcher slurm --amp\n')


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]
