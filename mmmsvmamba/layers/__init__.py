"""The parts of the backbones; all maps are channels-last, (B, H, W, C), but those of the pyramid."""

from .bidirectional import BidirectionalBlock, BidirectionalMixer
from .block import ScanBlock
from .cascade import CascadeScan
from .class_tokens import ClassTokens, resize_positions
from .downsample import DOWNSAMPLES, ConvDownsample, PatchMerging
from .ffn import FFNS, MLP, ConvFFN
from .mixer import MERGES, ScanMixer
from .pyramid import SimplePyramid
from .rms_norm import RMSNorm
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
    'BidirectionalBlock',
    'BidirectionalMixer',
    'CascadeScan',
    'ClassTokens',
    'ConvDownsample',
    'ConvFFN',
    'ConvStem',
    'PatchMerging',
    'PatchStem',
    'RMSNorm',
    'RouteScan',
    'ScanBlock',
    'ScanMixer',
    'SimplePyramid',
    'SqueezeExcite',
    'resize_positions',
]
