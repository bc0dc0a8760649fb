"""How mmengine opens checkpoint files once this package is imported: safely, and so that whole models load them.

Serves every path that mmengine has: init_cfg, load_from, resume, `tools/test.py CONFIG FILE`, inferencers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    """Opens a file; see `load_file` for what it refuses.

    Raises:
        CheckpointError: also if the file holds something else than weights by name.
    """
    checkpoint = load_file(filename, map_location)
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{filename} holds a {type(checkpoint).__name__}, not weights by name')
    weights = checkpoint.get('state_dict', {})
    if not isinstance(weights, Mapping):
        raise CheckpointError(f'the state_dict in {filename} is a {type(weights).__name__}, not weights by name')
    return in_model_form(checkpoint)


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
    """Downloads a URL once into torch's hub folder, one process of a machine for all, and opens it.

    Raises:
        CheckpointError: if it cannot be downloaded, or the file is none that `load_from_local_safely` opens.
    """
    target = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(filename).path).name
    if get_local_rank() == 0 and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # writes to a temporary file and renames it
            torch.hub.download_url_to_file(filename, str(target), progress=os.isatty(1))
        except OSError as error:  # URLError and HTTPError are among them
            raise CheckpointError(
                f'{filename} cannot be downloaded ({error}). Download it elsewhere; a training takes the file with '
                '--pretrained PATH, or starts from random weights with --from-scratch.'
            ) from error
    if is_distributed():
        barrier()
    return load_from_local_safely(str(target), map_location)
