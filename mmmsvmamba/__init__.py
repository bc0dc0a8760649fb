"""MSVMamba for OpenMMLab. Importing this package registers everything it brings.

Where mmengine is not installed only `mmmsvmamba.kernels` is of use, and nothing is registered.
"""

import importlib.util

from . import environment
from .version import __version__

__all__ = ['__version__']

environment.check_versions()

if importlib.util.find_spec('mmengine') is not None:
    environment.prepare()

    from .backbones import MSVMamba, Vim, VMamba
    from .engine import layer_decay, segmentation_tta  # noqa: F401  register an optimizer constructor and a model
    from .engine.checkpoint_loader import install_safe_loader
    from .swap import swap_backbone

    install_safe_loader()
    __all__ += ['MSVMamba', 'VMamba', 'Vim', 'swap_backbone']
else:

    def __getattr__(name: str):
        if name in ('MSVMamba', 'VMamba', 'Vim', 'swap_backbone'):
            raise ImportError(f'{name} needs mmengine and mmcv; without them only mmmsvmamba.kernels is there')
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
