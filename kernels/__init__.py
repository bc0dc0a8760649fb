"""Selective scans of sequences and maps, on torch alone; uses Triton where it is there."""

if __name__ != 'mmmsvmamba.kernels':
    # under a second name a second copy would take over the operators of the first
    raise ImportError(f'import this package as mmmsvmamba.kernels, not as {__name__!r}')

from . import backend
from .depthwise import depthwise_residual_gelu, depthwise_silu, depthwise_silu_pair
from .gate import scale_and_gate
from .merge import merge_nearest_norm, merge_norm_bilinear
from .ops import scan2d, selective_scan
from .routes import Route, RouteGroup, decode_groups, encode_groups

__all__ = [
    'Route',
    'RouteGroup',
    'backend',
    'decode_groups',
    'depthwise_residual_gelu',
    'depthwise_silu',
    'depthwise_silu_pair',
    'encode_groups',
    'merge_nearest_norm',
    'merge_norm_bilinear',
    'scale_and_gate',
    'scan2d',
    'selective_scan',
]
