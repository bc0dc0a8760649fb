"""Layer-wise learning rates for every library: smaller ones for earlier layers of the backbone."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from .errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneLayerDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with layer-wise decay of the learning rate (Bao et al., arXiv:2106.08254, B.1).

    A parameter of layer k of n has the factor `layer_decay_rate` ** (n - 1 - k) on top of everything else; the backbone
    says which layer it is in (`get_layer_depth`), heads are the last. mmpretrain has this for its classifiers alone,
    mmseg and mmdet for backbones that they know by name.

    Args:
        optim_wrapper_cfg: As for mmengine's `DefaultOptimWrapperConstructor`.
        paramwise_cfg: Likewise, with `layer_decay_rate`, a number in (0, 1].

    Raises:
        UserError: No `layer_decay_rate`, or one out of range; no learning rate; a model whose `backbone` does not know
            its layers.

    Example:
        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=1e-4),
            constructor='BackboneLayerDecayConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.92),
        )
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.layer_decay_rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(self.layer_decay_rate, (int, float)) or not 0 < self.layer_decay_rate <= 1:
            raise UserError(
                f'optim_wrapper.paramwise_cfg.layer_decay_rate must be a number in (0, 1], such as 0.9, got '
                f'{self.layer_decay_rate!r}'
            )

        if self.base_lr is None:
            raise UserError('optim_wrapper.optimizer.lr must be given: the rates of the layers are fractions of it')

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: int | float | None = None
    ) -> None:
        """Adds one group for each parameter of a module to `params`; called by mmengine, with each of its children."""
        super().add_params(params, module, prefix=prefix, is_dcn_module=is_dcn_module)
        if prefix:
            return
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise UserError(
                f'layer-wise learning rates need a model with a `backbone` that has `get_layer_depth`; '
                f'{type(module).__name__} has {type(backbone).__name__}'
            )
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for group in params:
            [parameter] = group['params']
            layer, count = backbone.get_layer_depth(names[id(parameter)], prefix='backbone.')
            group['lr'] = group.get('lr', self.base_lr) * self.layer_decay_rate ** (count - 1 - layer)
