"""Several processes: on a machine without a GPU, where mmengine does not start them, and their common end."""

import gc

import torch
import torch.distributed
from mmengine.config import Config

from .errors import UserError


def prepare_cpu_processes(cfg: Config) -> None:
    """Joins the processes of a launcher over gloo where there is no GPU; otherwise leaves it to mmengine.

    mmengine calls `torch.cuda.set_device` when it starts a process group and gives DDP a device id: both fail without
    CUDA. Call this before the Runner is built.

    Args:
        cfg: the config, of which `launcher` is read and, on a CPU, `model_wrapper_cfg` is completed.

    Raises:
        UserError: for a launcher other than `pytorch` on a machine without a GPU.
    """
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'--launcher {cfg.launcher} needs a GPU and torch sees none. On CPUs use tools/dist_train.sh, '
            'which starts the processes with --launcher pytorch.'
        )
    torch.distributed.init_process_group('gloo')
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = wrapper | (cfg.get('model_wrapper_cfg') or {}) | dict(device_ids=None)


def leave_processes() -> None:
    """Ends the process group of a run that is through, if it has one. Nothing may hold the run's Runner any more.

    mmengine leaves it to the end of the interpreter. A thread of the group that is still at work then can abort the
    process, and its launcher reports a failed training though every file is written.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # a Runner is full of cycles, and its wrapped model keeps the group alive
        torch.distributed.destroy_process_group()
