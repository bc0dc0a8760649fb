"""The parts of the backbones; all maps are channels-last, (B, H, W, C)."""

from .block import ScanBlock
from .cascade import CascadeScan
from .downsample import DOWNSAMPLES, ConvDownsample, PatchMerging
from .ffn import FFNS, MLP, ConvFFN
from .mixer import MERGES, ScanMixer
from .squeeze_excite import SqueezeExcite
from .ssm import SSM_INITS, RouteScan
from .stem import STEMS, ConvStem, PatchStem

__all__ = [
    'DOWNSAMPLES',
    'FFNS',
    'MERGES',
    'MLP',
    'SSM_INITS',
    'STEMS',
    'CascadeScan',
    'ConvDownsample',
    'ConvFFN',
    'ConvStem',
    'PatchMerging',
    'PatchStem',
    'RouteScan',
    'ScanBlock',
    'ScanMixer',
    'SqueezeExcite',
]
