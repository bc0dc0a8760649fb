"""Fits what a config says outside the network: normalisation of the input, weights to start from, the optimizer."""

from __future__ import annotations

from mmmsvmamba.engine.class_name import class_name

from .changes import ConfigEditor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
#: Constructors of optimizers that know the layers of a few backbones by name.
BOUND_CONSTRUCTORS = ('LearningRateDecayOptimizerConstructor', 'LayerDecayOptimizerConstructor')
#: Learning rate, weight decay and batch size of the published recipes, by what is trained.
RECIPES = {'mmdet': (1e-4, 0.05, 16), 'mmseg': (6e-5, 0.01, 16), 'mmpretrain': (1e-3, 0.05, 1024)}


def fit_normalisation(editor: ConfigEditor, owner: str) -> None:
    """Lets images come in RGB with ImageNet's mean and deviation, which the published weights were trained with."""
    why = "the published weights were trained on RGB with ImageNet's mean and deviation"
    for path in _preprocessors(editor, owner):
        editor.set(f'{path}.mean', MEAN, why)
        editor.set(f'{path}.std', STD, why)
        given = editor.get(path)
        detects = class_name(given.get('type')) in ('DetDataPreprocessor', 'TrackDataPreprocessor')
        classifies = 'to_rgb' in given or editor.get('default_scope') == 'mmpretrain'
        editor.set(f'{path}.to_rgb' if classifies and not detects else f'{path}.bgr_to_rgb', True, why)
        if given.get('rgb_to_bgr'):
            editor.delete(f'{path}.rgb_to_bgr', why)


def _preprocessors(editor: ConfigEditor, owner: str) -> list[str]:
    """Paths of all that normalise the input; that of semi-supervised training wraps one."""
    places = dict.fromkeys([f'{owner}.data_preprocessor', 'model.data_preprocessor', 'data_preprocessor'])
    found = [path for path in places if isinstance(editor.get(path), dict)]
    if not found:
        editor.set('data_preprocessor', {}, 'the config left the input as it is')
        return ['data_preprocessor']
    return [_innermost(editor, path) for path in found]


def _innermost(editor: ConfigEditor, path: str) -> str:
    inner = f'{path}.data_preprocessor'
    return _innermost(editor, inner) if isinstance(editor.get(inner), dict) else path


def drop_old_weights(editor: ConfigEditor, owner: str) -> None:
    """Removes the weights of the old backbone and of models that were trained with it."""
    if editor.get('load_from'):
        editor.set('load_from', None, 'weights of a model with the old backbone')
    for path in dict.fromkeys([owner, 'model']):
        node = editor.get(path)
        if isinstance(node.get('pretrained'), str):
            editor.delete(f'{path}.pretrained', 'weights of the old backbone')
        given = node.get('init_cfg')
        if isinstance(given, dict) and given.get('type') == 'Pretrained':
            editor.delete(f'{path}.init_cfg', 'weights of a model with the old backbone')


def fit_optimizer(editor: ConfigEditor, recipe: bool) -> None:
    """Replaces an optimizer that knows the layers of the old backbone, or any if the published recipe is wanted."""
    wrapper = editor.get('optim_wrapper')
    if not isinstance(wrapper, dict):
        return
    if recipe:
        scope = editor.get('default_scope')
        lr, weight_decay, batch = RECIPES.get(scope, RECIPES['mmdet'])
        why = 'the published recipe'
        editor.set(
            'optim_wrapper.optimizer', dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay), why
        )
        editor.delete('optim_wrapper.constructor', why)
        no_decay = {'norm': dict(decay_mult=0.0), 'backbone.stem': dict(decay_mult=1.0)}
        editor.set('optim_wrapper.paramwise_cfg', dict(custom_keys=no_decay), why)
        editor.set('auto_scale_lr', dict(enable=False, base_batch_size=batch), f'{why}: the batch of its learning rate')
        return
    constructor = class_name(wrapper.get('constructor'))
    if constructor in BOUND_CONSTRUCTORS:
        why = f'{constructor} knows the layers of other backbones only'
        editor.delete('optim_wrapper.constructor', why)
        kept = {
            k: v for k, v in (wrapper.get('paramwise_cfg') or {}).items() if k in ('custom_keys', 'norm_decay_mult')
        }
        if 'paramwise_cfg' in wrapper:
            editor.set('optim_wrapper.paramwise_cfg', kept, why)
