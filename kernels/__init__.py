"""Selective scans of sequences and maps, on torch alone; uses Triton where it is there."""

if __name__ != 'mmmsvmamba.kernels':
    # under a second name a second copy would take over the operators of the first
    raise ImportError(f'import this package as mmmsvmamba.kernels, not as {__name__!r}')

from . import backend
from .merge import merge_nearest_norm, merge_norm_bilinear
from .ops import scan2d, selective_scan
from .routes import Route, RouteGroup, decode_groups, encode_groups

__all__ = [
    'Route',
    'RouteGroup',
    'backend',
    'decode_groups',
    'encode_groups',
    'merge_nearest_norm',
    'merge_norm_bilinear',
    'scan2d',
    'selective_scan',
]
