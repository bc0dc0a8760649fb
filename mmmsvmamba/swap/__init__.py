"""Puts a backbone into a config of any OpenMMLab library."""

from .changes import Change
from .swapping import BACKBONES, backbone_class, swap_backbone, swap_with_changes

__all__ = ['BACKBONES', 'Change', 'backbone_class', 'swap_backbone', 'swap_with_changes']
