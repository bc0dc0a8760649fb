"""Puts a backbone into a config of any OpenMMLab library."""

from .changes import Change
from .swapping import swap_backbone, swap_with_changes

__all__ = ['Change', 'swap_backbone', 'swap_with_changes']
