"""Puts one of our backbones into a config of any OpenMMLab library."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.config import Config

from mmmsvmamba.backbones import MSVMamba, VMamba
from mmmsvmamba.backbones.arch import hint
from mmmsvmamba.backbones.hierarchical import HierarchicalBackbone
from mmmsvmamba.engine.errors import UserError

from .changes import Change, ConfigEditor
from .heads import fit_classifier, fit_readers, refuse_bound_parts, type_name
from .outputs import Outputs, choose_outputs
from .probe import FeatureMap, backbone_maps
from .published import PUBLISHED
from .training import drop_old_weights, fit_normalisation, fit_optimizer

#: What can take the place of another backbone; no two have an architecture of the same name.
BACKBONES = (MSVMamba, VMamba)
#: Where models keep another model that has the backbone: trackers, semi-supervised training.
INNER_MODELS = ('detector',)
#: Libraries whose classifiers have a `head` on a vector.
_CLASSIFIERS = ('ImageClassifier', 'BaseReID', 'TimmClassifier', 'HuggingFaceClassifier')


def swap_backbone(
    cfg: Config,
    arch: str | Mapping,
    pretrained: str | None = 'published',
    drop_path_rate: float | None = None,
    recipe: bool = False,
) -> Config:
    """Puts MSVMamba or VMamba in the place of the backbone of a config.

    Args:
        cfg: Of a detector, segmentor or classifier of mmdet, mmseg, mmpretrain or a library with the same registry.
            It stays as it is.
        arch: As for `MSVMamba` or `VMamba`; the name, or the `base` of a dict, says which.
        pretrained: Weights to start from: 'published' for the authors' ImageNet weights, a file or address, or None for
            random ones.
        drop_path_rate: None for that of the published detectors.
        recipe: Whether to take the optimizer of the published recipe as well; the schedule stays.

    Returns:
        A new config, which stands alone. Necks and heads fit the channels and strides of the new backbone, images are
        normalised as its weights want, and weights of models with the old backbone are not loaded.

    Raises:
        UserError: The config has no backbone, its library is not installed, the arch is unknown, or a part cannot be
            fitted; it is named.
    """
    return swap_with_changes(cfg, arch, pretrained, drop_path_rate, recipe)[0]


def swap_with_changes(
    cfg: Config,
    arch: str | Mapping,
    pretrained: str | None = 'published',
    drop_path_rate: float | None = None,
    recipe: bool = False,
    probe: Callable[[dict, str, str], list[FeatureMap]] = backbone_maps,
) -> tuple[Config, list[Change]]:
    """As `swap_backbone`, with what was changed and why.

    Args:
        probe: Finds the maps of the old backbone; who swaps many may remember them.
    """
    editor = ConfigEditor(cfg)
    scope = _scope(editor)
    owner = find_owner(editor.cfg)
    refuse_bound_parts(editor, owner)
    path = f'{owner}.backbone'
    given = editor.get(path)
    if type_name(given) in [kind.__name__ for kind in BACKBONES]:
        raise UserError(f'{path} is {type_name(given)} already; set its type and arch in the config.')
    backbone = _new_backbone(arch, pretrained, drop_path_rate)
    classifies = type_name(editor.get(owner)) in _CLASSIFIERS or _has_plain_head(editor, owner)

    old = probe(given, scope, path)
    outputs = choose_outputs(old, _dilated(given), bool(editor.get(f'{owner}.neck')), classifies)
    backbone['out_indices'] = outputs.out_indices
    if outputs.out_strides is not None:
        backbone['out_strides'] = outputs.out_strides
    new = _maps(backbone)

    (fit_classifier if classifies else fit_readers)(editor, owner, old, new, outputs, scope)
    if given.get('with_cp'):
        backbone['with_cp'] = True
    editor.set(path, backbone, _why_outputs(old, outputs))
    drop_old_weights(editor, owner)
    fit_normalisation(editor, owner)
    fit_optimizer(editor, recipe)
    _import_package(editor)
    _name_weights(editor, arch, pretrained)
    return editor.cfg, editor.changes


def _scope(editor: ConfigEditor) -> str:
    scope = editor.get('default_scope')
    if not isinstance(scope, str):
        raise UserError("The config names no library: add default_scope = 'mmdet', 'mmseg', 'mmpretrain' or another.")
    if importlib.util.find_spec(scope) is None:
        raise UserError(
            f'The config needs {scope}, which is not installed here. `python tools/check_env.py` names the command.'
        )
    return scope


def find_owner(cfg: Config) -> str:
    """Path of the model that has the backbone.

    Raises:
        UserError: There is none.
    """
    model = cfg.get('model')
    if not isinstance(model, dict):
        raise UserError('The config has no model; give one that describes a whole detector, segmentor or classifier.')
    if isinstance(model.get('backbone'), dict):
        return 'model'
    for name in INNER_MODELS:
        if isinstance((model.get(name) or {}).get('backbone'), dict):
            return f'model.{name}'
    inner = ' nor '.join(f'model.{name}.backbone' for name in INNER_MODELS)
    raise UserError(
        f'The config has no backbone: neither model.backbone nor {inner} is there; model ({type_name(model)}) has '
        f'{", ".join(model)}.'
    )


def _has_plain_head(editor: ConfigEditor, owner: str) -> bool:
    """Whether a model has one `head` and none that is for boxes, masks or pixels."""
    keys = [key for key in editor.get(owner) if key.endswith('head')]
    return keys == ['head']


def _dilated(backbone: dict) -> bool:
    dilations = backbone.get('dilations') or (backbone.get('backbone_cfg') or {}).get('dilations') or ()
    return any(d > 1 for d in dilations)


def _new_backbone(arch: str | Mapping, pretrained: str | None, drop_path_rate: float | None) -> dict[str, Any]:
    published = PUBLISHED.get(arch) if isinstance(arch, str) else None
    backbone: dict[str, Any] = dict(type=backbone_class(arch).__name__, arch=arch)
    if drop_path_rate is None:
        drop_path_rate = published.drop_path_rate if published else 0.0
    backbone['drop_path_rate'] = drop_path_rate
    try:
        _maps(backbone)
    except ValueError as error:
        raise UserError(str(error)) from error
    if pretrained == 'published':
        if published is None:
            raise UserError(
                f'There are no published weights for arch {arch!r}: name a file, or start from random ones.'
            )
        pretrained = published.checkpoint
    if pretrained is not None:
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
    return backbone


def backbone_class(arch: str | Mapping) -> type[HierarchicalBackbone]:
    """The class that has an architecture.

    Raises:
        UserError: None has it; lists the known ones.
    """
    name = arch.get('base') if isinstance(arch, Mapping) else arch
    kind = next((kind for kind in BACKBONES if name in kind.arch_settings), None)
    if kind is None and name is not None:
        known = '; '.join(f'{kind.__name__}: {", ".join(kind.arch_settings)}' for kind in BACKBONES)
        close = hint(str(name), [name for kind in BACKBONES for name in kind.arch_settings])
        raise UserError(f'unknown arch {name!r}{close}; known are {known}')
    return kind or MSVMamba


def _maps(backbone: dict) -> list[FeatureMap]:
    options = {key: value for key, value in backbone.items() if key not in ('type', 'init_cfg')}
    with torch.device('meta'):
        info = backbone_class(backbone['arch'])(**options).feature_info
    return [FeatureMap(i['num_chs'], i['reduction']) for i in info]


def _why_outputs(old: list[FeatureMap], outputs: Outputs) -> str:
    read = ', '.join(f'{m.channels} channels at stride {m.stride}' if m.stride else f'{m.channels} values' for m in old)
    return f'the new backbone; the old one gave {read}' + (f'; {outputs.why}' if outputs.why else '')


def _import_package(editor: ConfigEditor) -> None:
    given = editor.get('custom_imports') or {}
    imports = given.get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    if 'mmmsvmamba' not in imports:
        value = dict(imports=[*imports, 'mmmsvmamba'], allow_failed_imports=False)
        editor.set('custom_imports', value, 'registers the new backbone')


def _name_weights(editor: ConfigEditor, arch: str | Mapping, pretrained: str | None) -> None:
    source = PUBLISHED[arch].source if pretrained == 'published' else None
    if source is not None:
        editor.set('pretrained_source', source, 'where the weights are to be had')
