"""How mmengine opens checkpoint files once this package is imported: safely, and so that whole models load them.

Serves every path that mmengine has: init_cfg, load_from, resume, `tools/test.py CONFIG FILE`, inferencers.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank, is_distributed
from mmengine.runner import checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmmsvmamba.checkpoints import in_model_form
from mmmsvmamba.loading import CheckpointError, load_file


def install_safe_loader() -> None:
    """Replaces mmengine's loaders for files and URLs, whose fallback would run whatever code a file brings."""
    # what torchvision://, modelzoo:// and mmcls:// call
    checkpoint.load_from_http = load_from_http_safely
    CheckpointLoader.register_scheme(['open-mmlab://', 'openmmlab://'], load_from_openmmlab_safely, force=True)
    CheckpointLoader.register_scheme(['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'], refuse, force=True)
    CheckpointLoader.register_scheme('', load_from_local_safely, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http_safely, force=True)


def load_from_local_safely(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Opens a file; see `load_file` for what it refuses."""
    return in_model_form(load_file(filename, map_location))


def load_from_openmmlab_safely(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Opens a file that OpenMMLab's model zoo names."""
    target = checkpoint.get_external_models()[filename.split('://')[1]]
    if target.startswith(('http://', 'https://')):
        return load_from_http_safely(target, map_location)
    return load_from_local_safely(os.path.join(checkpoint._get_mmengine_home(), target), map_location)


def refuse(filename: str, map_location: str | torch.device | None = None) -> dict:
    """For stores whose files mmengine would unpickle without a check."""
    raise CheckpointError(f'{filename}: checkpoints are read from files and http(s) addresses; download it first')


def load_from_http_safely(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Downloads a URL once into torch's hub folder, one process of a machine for all, and opens it."""
    target = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(filename).path).name
    if get_local_rank() == 0 and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # writes to a temporary file and renames it
        torch.hub.download_url_to_file(filename, str(target), progress=os.isatty(1))
    if is_distributed():
        barrier()
    return load_from_local_safely(str(target), map_location)
