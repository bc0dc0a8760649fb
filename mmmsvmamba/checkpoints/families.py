"""Families of published weights, and the marks that tell them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmmsvmamba.loading import CheckpointError

from .report import some

_PATCH_STEM = {'0': 'conv', '2': 'norm'}
_CONV_STEM = {'0': 'conv1', '2': 'norm1', '5': 'conv2', '7': 'norm2'}


@dataclass(frozen=True)
class Family:
    """What sets the files of a family apart.

    Attributes:
        backbone: The class of this package that has their architectures.
        wrapper: Key of the weights that the authors report, in the dict of a file.
        scans: Branches of a mixer, and how many sets of S6 parameters of each, in the order of the stacked tensors;
            none where they are not stacked.
        stem: Number of a stem's layer -> our name.
    """

    backbone: str
    wrapper: str
    scans: tuple[tuple[str, int], ...] = ()
    stem: Mapping[str, str] | None = None

    @property
    def sets(self) -> int:
        """Sets of S6 parameters in a mixer."""
        return sum(count for _, count in self.scans)


FAMILIES = {
    # the two MSVMamba families stack full and half resolution in opposite order
    'v1': Family('MSVMamba', 'model', (('half_res', 1), ('full_res', 1)), _PATCH_STEM),
    'v3': Family('MSVMamba', 'model_ema', (('full_res', 1), ('half_res', 1)), _CONV_STEM),
    'vmamba-v0': Family('VMamba', 'model', (('full_res', 4),), _PATCH_STEM),
    'vmamba-v2': Family('VMamba', 'model', (('full_res', 4),), _CONV_STEM),
    'vim': Family('Vim', 'model'),
}


def recognise_family(weights: Mapping) -> str:
    """Names the family of a published state dict without prefixes.

    Returns:
        'v1' or 'v3' (MSVMamba of the arXiv and of the NeurIPS release), 'vmamba-v0' or 'vmamba-v2' (VMamba's first
        models with 16 states, and the later ones with one), or 'vim'.

    Raises:
        CheckpointError: It is none of them.
    """
    if is_vim(weights):
        return 'vim'
    scans = any(key.endswith('.op.x_proj_weight') for key in weights)
    two_resolutions = any(key.endswith('.op.conv2d_b1.weight') for key in weights)
    if scans and 'patch_embed.7.weight' in weights:
        return 'v3' if two_resolutions else 'vmamba-v2'
    if scans and 'patch_embed.2.weight' in weights:
        return 'v1' if two_resolutions else 'vmamba-v0'
    raise CheckpointError(
        f'these are not the weights of a published MSVMamba, VMamba or Vim model; the file has {some(weights)}'
    )


def is_vim(weights: Mapping) -> bool:
    """Whether these are the published names of a Vim, without prefixes."""
    return any(re.fullmatch(r'layers\.\d+\.mixer\.A_b_log', str(key)) for key in weights)
