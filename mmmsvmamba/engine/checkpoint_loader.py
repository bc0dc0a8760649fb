"""How mmengine opens checkpoint files once this package is imported: safely, and so that whole models load them.

Serves every path that mmengine has: init_cfg, load_from, resume, `tools/test.py CONFIG FILE`, inferencers.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank, is_distributed
from mmengine.runner.checkpoint import CheckpointLoader

from mmmsvmamba.checkpoints import in_model_form
from mmmsvmamba.loading import load_file


def install_safe_loader() -> None:
    """Replaces mmengine's loaders for files and URLs, whose fallback would run whatever code a file brings."""
    CheckpointLoader.register_scheme('', load_from_local_safely, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http_safely, force=True)


def load_from_local_safely(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Opens a file; see `load_file` for what it refuses."""
    return in_model_form(load_file(filename, map_location))


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
