"""Published weights -> our state dicts: pure functions, and the check that what is loaded fits.

The published names live here and nowhere else.
"""

from mmmsvmamba.loading import CheckpointError

from .convert import convert_official, in_model_form
from .families import recognise_family
from .fitting import fit_backbone_weights
from .vim_fitting import fit_vim_weights

__all__ = [
    'CheckpointError',
    'convert_official',
    'fit_backbone_weights',
    'fit_vim_weights',
    'in_model_form',
    'recognise_family',
]
