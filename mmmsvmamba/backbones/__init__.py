"""Backbones, registered in mmengine's root registry."""

from .msvmamba import MSVMamba

__all__ = ['MSVMamba']
