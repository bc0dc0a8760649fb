"""Puts a backbone into a config of any OpenMMLab library."""

from .changes import Change
from .swapping import BACKBONES, swap_backbone, swap_with_changes

__all__ = ['BACKBONES', 'Change', 'swap_backbone', 'swap_with_changes']
