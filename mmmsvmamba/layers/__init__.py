"""The parts of the backbones; all maps are channels-last, (B, H, W, C)."""

from .block import ScanBlock
from .downsample import DOWNSAMPLES, ConvDownsample, PatchMerging
from .ffn import ConvFFN
from .mixer import MERGES, ScanMixer
from .squeeze_excite import SqueezeExcite
from .ssm import RouteScan
from .stem import STEMS, ConvStem, PatchStem

__all__ = [
    'DOWNSAMPLES',
    'MERGES',
    'STEMS',
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
