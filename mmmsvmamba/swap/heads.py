"""Fits what reads the maps of the backbone: necks, detection and segmentation heads, classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmmsvmamba.engine.class_name import class_name
from mmmsvmamba.engine.errors import UserError

from .changes import ConfigEditor
from .fitting import Reading, fit_part
from .outputs import Outputs
from .probe import FeatureMap, check_builds, neck_maps

#: Parts that only work on the backbone that they were written for, and why.
BOUND_PARTS = {
    'RFP': 'the recursive feature pyramid feeds its maps back into stages of a ResNet; use FPN instead',
    'TridentRoIHead': 'it reads the three branches of a TridentResNet; use StandardRoIHead in a FasterRCNN instead',
    'PIDHead': 'it supervises the three branches of a PIDNet, which other backbones do not have; use FCNHead instead',
    'DDRHead': 'it supervises the two branches of a DDRNet, which other backbones do not have; use FCNHead instead',
}
#: Heads of classifiers that read more than one vector, tokens, or logits of the backbone, and what takes their place.
BOUND_HEADS = {
    'VisionTransformerClsHead': 'LinearClsHead',
    'DeiTClsHead': 'LinearClsHead',
    'ConformerHead': 'LinearClsHead',
    'LeViTClsHead': 'LinearClsHead',
    'EfficientFormerClsHead': 'LinearClsHead',
    'VigClsHead': 'LinearClsHead',
    'ClsHead': 'LinearClsHead',
    'MultiLabelClsHead': 'MultiLabelLinearClsHead',
}
#: Options of these heads that the new ones have too.
KEPT_OPTIONS = ('num_classes', 'loss', 'topk', 'cal_acc', 'thr')
#: Heads that find corners in a single fine map.
CORNER_HEADS = ('CornerHead', 'CentripetalHead')
#: Options of a head whose values are heads that read the same maps.
INNER_HEADS = ('kernel_generate_head',)
#: Keys of a model whose values are no readers of maps, although they may have a type.
NO_READERS = ('backbone', 'neck', 'data_preprocessor', 'init_cfg', 'train_cfg', 'test_cfg')
PYRAMID_CHANNELS = 256


def type_name(part: object) -> str:
    """Name of the class of a part, without scope or module."""
    return class_name(part.get('type')) if isinstance(part, dict) else ''


def refuse_bound_parts(editor: ConfigEditor, owner: str) -> None:
    """Refuses parts that no other backbone can serve.

    Raises:
        UserError: naming the part and the reason.
    """
    for path, part in _readers(editor, owner, with_neck=True):
        name = type_name(part)
        if name in BOUND_PARTS:
            raise UserError(f'{path} is a {name}, which no other backbone can serve: {BOUND_PARTS[name]}.')


def fit_readers(
    editor: ConfigEditor,
    owner: str,
    old: Sequence[FeatureMap],
    new: Sequence[FeatureMap],
    outputs: Outputs,
    scope: str,
) -> None:
    """Fits everything that reads the maps of a detector's or segmentor's backbone.

    Args:
        editor: Of the config, in which the backbone is still the old one.
        owner: Path of the model that has the backbone.
        old: Maps of the old backbone.
        new: Maps of the new one.
        outputs: How these take the place of the old ones.
        scope: Of the registry that builds the parts.

    Raises:
        UserError: A part cannot be fitted; it is named.
    """
    if outputs.pyramid:
        new = _add_pyramid(editor, owner, new, outputs.why)
        if new is None:
            return
        reading = Reading(old, new, outputs.levels, 'neck')
    else:
        reading = Reading(old, new, outputs.levels, 'backbone')
        if editor.get(f'{owner}.neck'):
            reading = _fit_neck(editor, owner, reading, scope)
        elif _wants_fixed_channels(editor, owner):
            _keep_channels(editor, owner, old, new)
            return
    if reading is None:
        return
    for path, _ in _readers(editor, owner):
        fit_part(editor, path, reading, scope)


def fit_classifier(
    editor: ConfigEditor, owner: str, old: Sequence[FeatureMap], new: Sequence[FeatureMap], outputs: Outputs, scope: str
) -> None:
    """Fits neck and head of a classifier; arguments and errors as for `fit_readers`.

    Where the old backbone gave a vector, its maps are averaged; a head that reads tokens becomes a linear one.
    """
    head = editor.get(f'{owner}.head')
    reading: Reading | None = Reading(old, new, outputs.levels, 'backbone')
    if editor.get(f'{owner}.neck'):
        reading = _fit_neck(editor, owner, reading, scope)
    elif type_name(head) != 'CSRAClsHead':
        editor.set(
            f'{owner}.neck', dict(type='GlobalAveragePooling'), 'the head reads a vector; the new backbone gives a map'
        )
    if type_name(editor.get(f'{owner}.neck')) == 'GlobalAveragePooling' and editor.get(f'{owner}.neck.dim', 2) != 2:
        editor.set(f'{owner}.neck.dim', 2, 'the old backbone gave tokens, the new one gives a map')
    if type_name(head) in BOUND_HEADS:
        kept = {key: head[key] for key in KEPT_OPTIONS if key in head}
        kept.setdefault('num_classes', old[-1].channels)  # without the option it is the backbone that has the classes
        editor.set(
            f'{owner}.head',
            dict(type=BOUND_HEADS[type_name(head)], in_channels=new[-1].channels, **kept),
            f'{type_name(head)} reads tokens or logits of the old backbone',
        )
    elif reading is not None and head:
        fit_part(editor, f'{owner}.head', reading, scope)


def _readers(editor: ConfigEditor, owner: str, with_neck: bool = False) -> Iterator[tuple[str, dict]]:
    """Paths and configs of the parts that may read maps: those with a type, also in lists."""
    for key, value in editor.get(owner).items():
        if key in NO_READERS and not (with_neck and key == 'neck'):
            continue
        parts = {f'{key}.{i}': v for i, v in enumerate(value)} if isinstance(value, list | tuple) else {key: value}
        for name, part in parts.items():
            if type_name(part):
                yield f'{owner}.{name}', part
                for option in INNER_HEADS:
                    if type_name(part.get(option)):
                        yield f'{owner}.{name}.{option}', part[option]


def _fit_neck(editor: ConfigEditor, owner: str, reading: Reading, scope: str) -> Reading | None:
    """Fits the neck; what the heads read then, or None where that does not depend on the backbone."""
    path = f'{owner}.neck'
    first = f'{path}.0' if isinstance(editor.get(path), list | tuple) else path
    old_necks = _necks(editor, path)
    if type_name(old_necks[0]) == 'SSDNeck':
        return _fit_ssd_neck(editor, first, reading, scope)
    fit_part(editor, first, reading, scope)
    if all(type_name(part) == 'GlobalAveragePooling' for part in old_necks):
        return Reading(reading.old, reading.new, reading.position, 'backbone')
    new_necks = _necks(editor, path)
    if any('out_channels' in part for part in old_necks):
        check_builds(new_necks[0], scope, first)
        return None
    old = neck_maps(old_necks, reading.old, scope, path)
    new = neck_maps(new_necks, reading.new, scope, path)
    if len(old) != len(new):
        raise UserError(f'{path} ({old_necks[0]["type"]}) gives {len(old)} maps, and with the new backbone {len(new)}.')
    return Reading(old, new, tuple(range(len(old))), 'neck')


def _necks(editor: ConfigEditor, path: str) -> list[dict]:
    """Copies of the necks, of which there may be one or a list."""
    given = editor.get(path)
    return [dict(part) for part in (given if isinstance(given, list | tuple) else [given])]


def _fit_ssd_neck(editor: ConfigEditor, path: str, reading: Reading, scope: str) -> Reading:
    """An SSD's neck passes the maps of the backbone on and adds coarser ones of its own."""
    given = list(editor.get(path)['out_channels'])
    count = len(reading.new)
    fit_part(editor, path, reading, scope)
    channels = [m.channels for m in reading.new] + given[count:]
    editor.set(f'{path}.out_channels', tuple(channels), 'an SSD neck passes the maps of the backbone on')
    old, new = ([FeatureMap(c, None) for c in values] for values in (given, channels))
    return Reading(old, new, tuple(range(len(old))), 'neck')


def _wants_fixed_channels(editor: ConfigEditor, owner: str) -> bool:
    """Whether heads share a stage of a ResNet, as C4 detectors do: its input has the channels of that ResNet."""
    return bool(editor.get(f'{owner}.rpn_head') or editor.get(f'{owner}.roi_head')) or (
        type_name(editor.get(owner)) == 'RPN'
    )


def _keep_channels(editor: ConfigEditor, owner: str, old: Sequence[FeatureMap], new: Sequence[FeatureMap]) -> None:
    channels = {m.channels for m in old}
    if len(channels) > 1:
        raise UserError(
            f'{owner} reads maps of {sorted(channels)} channels without a neck, which no other backbone has. '
            'Add a neck, such as FPN.'
        )
    (out_channels,) = channels
    editor.set(
        f'{owner}.neck',
        dict(
            type='ChannelMapper',
            in_channels=[m.channels for m in new],
            out_channels=out_channels,
            kernel_size=1,
            act_cfg=None,
            num_outs=len(new),
        ),
        f'the heads take {out_channels} channels, some because they are a stage of a ResNet',
    )


def _add_pyramid(editor: ConfigEditor, owner: str, new: Sequence[FeatureMap], why: str) -> list[FeatureMap] | None:
    """Puts a neck between backbone and heads that merges deep features into fine maps; its maps, or None if fitted."""
    if editor.get(f'{owner}.neck'):
        neck = editor.get(f'{owner}.neck')
        raise UserError(
            f'{owner}.neck ({neck["type"]}) reads maps of a backbone that has a decoder of its own, which one of four '
            'stages has not. Remove the neck first.'
        )
    corner = [(path, part) for path, part in _readers(editor, owner) if type_name(part) in CORNER_HEADS]
    if corner:
        ((path, part),) = corner
        channels = part['in_channels']
        editor.set(
            f'{owner}.neck',
            dict(
                type='CTResNetNeck',
                in_channels=new[-1].channels,
                num_deconv_filters=(channels,) * 3,
                num_deconv_kernels=(4, 4, 4),
                use_dcn=False,
            ),
            'the head reads one deep map at stride 4, which an Hourglass gives by itself',
        )
        editor.set(f'{path}.num_feat_levels', 1, 'the old backbone had several Hourglasses, the new one gives one map')
        return None
    editor.set(
        f'{owner}.neck',
        dict(
            type='FPN',
            in_channels=[m.channels for m in new],
            out_channels=PYRAMID_CHANNELS,
            num_outs=len(new),
        ),
        why,
    )
    return [FeatureMap(PYRAMID_CHANNELS, m.stride) for m in new]
