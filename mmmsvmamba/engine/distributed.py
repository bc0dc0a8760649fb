"""Several processes on a machine without a GPU, which mmengine does not start by itself."""

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
