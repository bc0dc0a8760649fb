"""Backbones, registered in mmengine's root registry."""

from .msvmamba import MSVMamba
from .vim import Vim
from .vmamba import VMamba

__all__ = ['MSVMamba', 'VMamba', 'Vim']
