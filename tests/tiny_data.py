"""Small data and small runs for the tests of the engine, the tools and the configs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel

from mmmsvmamba.datasets.shapes_export import ShapesSpec, export_shapes

REPOSITORY = Path(__file__).parents[1]
SHAPES_CONFIG = str(REPOSITORY / 'configs/mask_rcnn_msvmamba_n_shapes.py')
COCO_CONFIG = str(REPOSITORY / 'configs/mask_rcnn_msvmamba_n_1x.py')
COCO_MINI = REPOSITORY.parent / 'shared/data/coco_mini'
ADE_MINI = REPOSITORY.parent / 'shared/data/ade_mini/ADEChallengeData2016'

# One core for each process: the machine that runs the tests may have two.
ENVIRONMENT = os.environ | {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}


def run_tool(*arguments: str | Path, cwd: Path, timeout: int = 120) -> subprocess.CompletedProcess:
    """Runs `python ARGUMENTS` as a user in the folder `cwd` would."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A data root with 8 training and 4 unseen scenes of 64 pixels in COCO layout. Tests must not change it."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    export_shapes(folder, ShapesSpec(train=8, val=4, size=64, layouts=('coco',)))
    return folder / 'coco'


@pytest.fixture(scope='session')
def ade_shapes(tmp_path_factory) -> Path:
    """As `shapes`, in ADE20K layout."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    export_shapes(folder, ShapesSpec(train=8, val=4, size=64, layouts=('ade',)))
    return folder / 'ADEChallengeData2016'


class ToyModel(BaseModel):
    """One weight whose loss is `value / weight`; a weight of 0 makes it infinite."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, value, mode='tensor'):
        loss = (torch.as_tensor(value) / self.weight).mean()
        return dict(loss_toy=loss) if mode == 'loss' else [loss.detach()]


class ToyData(torch.utils.data.Dataset):
    """The numbers 1, 2, 3 …, or those given."""

    def __init__(self, values: list[float] | None = None):
        self.values = values or [float(i) for i in range(1, 9)]

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return dict(value=torch.tensor(self.values[index]))


class ToyMetric(BaseMetric):
    """Counts what it is given."""

    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return dict(size=sum(results))


def toy_config(work_dir: Path, values: list[float] | None = None, lr: float = 0.0, **hook) -> dict:
    """A training of 8 iterations that saves every 2; `hook` changes its checkpoint hook."""
    loader = dict(dataset=ToyData(values), batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    return dict(
        model=ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=8, val_interval=4),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=Evaluator(ToyMetric()),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, **hook)),
        default_scope='mmengine',
        experiment_name=work_dir.name,
        log_level='ERROR',
    )
