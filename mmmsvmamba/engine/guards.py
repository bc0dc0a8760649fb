"""Guards of a running training: weights that have become useless are not saved, a killed run leaves no broken file."""

import math
import os
from collections import deque
from pathlib import Path

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .errors import UserError

DURABLE_BACKEND = 'durable-local'


class TrainingDiverged(UserError):
    """A loss or a weight is no longer a finite number: going on would only save broken weights."""


@HOOKS.register_module()
class FiniteGuardHook(Hook):
    """Stops a training in which a loss or a weight has become NaN or infinite, before a checkpoint is written.

    A loss tells on the iteration after the weights broke at the latest; a checkpoint due just before that is caught by
    looking at the weights themselves.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        losses = {key: torch.as_tensor(value) for key, value in (outputs or {}).items() if 'loss' in key}
        broken = [f'{key} = {value}' for key, value in _numbers(losses).items() if not math.isfinite(value)]
        if broken:
            raise TrainingDiverged(
                f'The loss is no longer finite at iteration {runner.iter + 1}: {", ".join(broken)}. {_advice(runner)}'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        broken = [
            key
            for key, value in checkpoint['state_dict'].items()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if broken:
            raise TrainingDiverged(
                f'{len(broken)} weights are no longer finite at iteration {runner.iter + 1} '
                f'({", ".join(broken[:3])}{", …" if len(broken) > 3 else ""}); this checkpoint was '
                f'not written. {_advice(runner)}'
            )


def _numbers(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    """Reads scalars from their device with one synchronisation for all."""
    if not losses:
        return {}
    device = next((value.device for value in losses.values() if value.device.type != 'cpu'), 'cpu')
    values = torch.stack([value.detach().float().reshape(()).to(device) for value in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


def _advice(runner: Runner) -> str:
    return (
        f'Checkpoints written before are in {runner.work_dir}. Usual ways on: a lower learning rate '
        '(--cfg-options optim_wrapper.optimizer.lr=…), gradient clipping '
        '(optim_wrapper.clip_grad.max_norm=…), training without --amp.'
    )


class DurableLocalBackend(LocalBackend):
    """Local files that appear whole or not at all: written beside their place, then renamed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        target = Path(filepath)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f'.{target.name}.unfinished')
        with unfinished.open('wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)


register_backend(DURABLE_BACKEND, DurableLocalBackend, force=True)


class DurableCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook for runs that may be killed at any moment.

    mmengine writes a checkpoint in place and, with `max_keep_ckpts`, removes the oldest before it writes the newest: a
    run killed in between leaves `last_checkpoint` naming a file that is gone, and a truncated one beside it.
    """

    def before_train(self, runner: Runner) -> None:
        if self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend=DURABLE_BACKEND)
        super().before_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts <= 0:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        # Let mmengine keep one more while it saves, then drop what is too much.
        keep = self.max_keep_ckpts
        self.max_keep_ckpts = keep + 1
        self.keep_ckpt_ids = deque(self.keep_ckpt_ids, keep + 1)
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = keep
        while len(self.keep_ckpt_ids) > keep:
            outdated = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            )
            if runner.rank == 0 and self.file_backend.isfile(outdated):
                self.file_backend.remove(outdated)


def add_guards(runner: Runner) -> None:
    """Guards a runner that is about to train. The config it dumps stays one that stock tools can read."""
    runner.register_hook(FiniteGuardHook())
    for hook in runner.hooks:
        if type(hook) is CheckpointHook:  # a user's own subclass is left alone
            hook.__class__ = DurableCheckpointHook
