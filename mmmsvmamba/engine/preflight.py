"""Looks for what a run needs before anything is built or written, and says how to get what is missing.

Of the data only local paths are looked at; storage back ends (`s3://…`) are left to the libraries. Weights behind URLs
are downloaded.
"""

import importlib
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from .building import build_own_backbone
from .class_labels import check_class_labels
from .coco_file import check_coco_dataset
from .errors import UserError
from .image_folders import check_classification_folders, check_segmentation_folders
from .leaf_datasets import leaf_datasets
from .options import pretrained_files
from .scopes import Scope
from .weights_fit import check_model_fits, check_resumable, check_start_fits, read_checkpoint

SHAPES_CONFIGS = {
    'mmdet': 'configs/mask_rcnn_msvmamba_n_shapes.py',
    'mmseg': 'configs/upernet_msvmamba_n_shapes.py',
    'mmpretrain': 'configs/msvmamba_n_shapes.py',
}
SHAPES_COMMAND = 'python tools/make_shapes.py'
SOURCES = {
    'CocoDataset': 'COCO 2017 (images and instance annotations): https://cocodataset.org/#download',
    'ADE20KDataset': 'ADE20K: http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
    'ImageNet': 'ImageNet-1k: https://www.image-net.org/download.php',
}


def check_training(cfg: Config, scope: Scope) -> None:
    """Checks the data of training and validation, the class counts, the backbone and the weights to start from.

    Raises:
        UserError: naming everything that is missing or does not fit, where to get it, and the ways on.
        CheckpointError: if a file of weights cannot be read or does not fit.
    """
    _check_operators(scope)
    if not _is_first_process():
        return
    datasets = leaf_datasets(cfg, 'train_dataloader') + leaf_datasets(cfg, 'val_dataloader')
    _report(cfg, _data_problems(cfg, scope, datasets, 'val_evaluator'), _pretrained_problems(cfg))
    if scope.name == 'mmpretrain':
        check_class_labels(cfg, scope, datasets)
    resumed = cfg.load_from if cfg.get('resume') and cfg.get('load_from') else None
    checkpoint = read_checkpoint(resumed) if resumed else None
    if resumed:
        check_resumable(resumed, checkpoint)
    backbone = build_own_backbone(cfg, scope)
    if backbone is not None:
        _check_neck(cfg.model, backbone)
    check_start_fits(cfg, backbone)
    if resumed:
        check_model_fits(cfg, scope, resumed, checkpoint)


def check_testing(cfg: Config, scope: Scope) -> None:
    """Checks the data of the test, the class counts, the backbone and the checkpoint.

    Raises:
        UserError, CheckpointError: as `check_training`.
    """
    _check_operators(scope)
    if not _is_first_process():
        return
    if _is_local(cfg.load_from) and not Path(cfg.load_from).is_file():
        source = cfg.get('published_source') if cfg.load_from == cfg.get('published') else None
        raise UserError(
            f'There is no checkpoint {cfg.load_from} ({Path(cfg.load_from).absolute()}).'
            + (f" The authors' file: {source}" if source else '')
        )
    checkpoint = read_checkpoint(cfg.load_from)
    datasets = leaf_datasets(cfg, 'test_dataloader')
    _report(cfg, _data_problems(cfg, scope, datasets, 'test_evaluator'), [])
    if scope.name == 'mmpretrain':
        check_class_labels(cfg, scope, datasets)
    backbone = build_own_backbone(cfg, scope)
    if backbone is not None:
        _check_neck(cfg.model, backbone)
    check_model_fits(cfg, scope, cfg.load_from, checkpoint)


def _check_operators(scope: Scope) -> None:
    """mmdet and mmseg import mmcv's compiled operators, which a plain `pip install mmcv` may have left out."""
    if scope.name == 'mmpretrain':
        return
    try:
        importlib.import_module('mmcv.ops')
    except ImportError as error:
        raise UserError(
            f'{scope.name} needs the compiled operators of mmcv, which do not load ({error}). '
            '`python tools/check_env.py` names the command that builds them.'
        ) from error


def _is_first_process() -> bool:
    """One process reads the (large) annotation files; if it stops, the launcher stops the others."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def _is_local(path: str | None) -> bool:
    return bool(path) and '://' not in path


def _data_problems(cfg: Config, scope: Scope, datasets: list[dict], evaluator: str) -> list[str]:
    problems = []
    for dataset in datasets:
        root = dataset.get('data_root')
        if _is_local(root) and Path(root).is_file():
            problems.append(f'the data root {root} is not a folder ({Path(root).absolute()})')
        elif _is_local(root) and not Path(root).is_dir():
            problems.append(f'the data root {root} does not exist ({Path(root).absolute()})')
        elif _is_local(root) and not any(Path(root).iterdir()):
            problems.append(f'the data root {root} is empty ({Path(root).absolute()})')
        else:
            problems += _dataset_problems(cfg, scope, dataset)
    metrics = cfg.get(evaluator) or []
    for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
        file = metric.get('ann_file')
        if not problems and _is_local(file) and not Path(file).is_file():
            problems.append(f'the annotation file {file} of {evaluator} does not exist')
    return list(dict.fromkeys(problems))


def _dataset_problems(cfg: Config, scope: Scope, dataset: dict) -> list[str]:
    with DATASETS.switch_scope_and_registry(scope.name) as registry:
        kind = registry.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']
    if kind is None:
        raise UserError(f'The config has a dataset of type {dataset["type"]}, which {scope.name} does not know.')
    problems = []
    for name, folder in _prefixes(dataset).items():
        path = _below_root(dataset, folder)
        if _is_local(path) and not (Path(path).is_dir() and any(Path(path).iterdir())):
            problems.append(f'the folder {path} ({name}) does not exist or is empty')
    annotations = _below_root(dataset, dataset.get('ann_file') or '')
    if dataset.get('ann_file') and _is_local(annotations) and not Path(annotations).is_file():
        problems.append(f'the annotation file {annotations} does not exist')
    if problems:
        return problems
    classes = _classes(kind, dataset)
    if classes:
        _check_class_count(cfg.model, classes, scope)
    if scope.name == 'mmdet' and _is_local(annotations):
        from mmdet.datasets import CocoDataset

        if issubclass(kind, CocoDataset):
            check_coco_dataset(Path(annotations), _below_root(dataset, _prefixes(dataset).get('img', '')), classes)
    elif scope.name == 'mmseg':
        check_segmentation_folders(kind, dataset, scope)
    elif scope.name == 'mmpretrain':
        folders = check_classification_folders(kind, dataset, scope)
        if folders and not classes:
            _check_class_count(cfg.model, folders, scope)
    return []


def _prefixes(dataset: dict) -> dict[str, str]:
    prefix = dataset.get('data_prefix') or {}
    return {key: value for key, value in ({'img_path': prefix} if isinstance(prefix, str) else prefix).items() if value}


def _below_root(dataset: dict, path: str) -> str:
    if os.path.isabs(path) or '://' in path:
        return path
    return os.path.join(dataset.get('data_root') or '', path)


def _classes(kind: type, dataset: dict) -> tuple[str, ...] | None:
    """The class names of a dataset, or None if only the built dataset would tell."""
    given = (dataset.get('metainfo') or {}).get('classes', dataset.get('classes'))
    if given is None:
        given = getattr(kind, 'METAINFO', {}).get('classes')
    return tuple(given) if isinstance(given, list | tuple) else None


def _check_class_count(model: dict, classes: tuple[str, ...], scope: Scope) -> None:
    heads = {
        'mmdet': ('bbox_head', 'mask_head'),
        'mmseg': ('decode_head', 'auxiliary_head'),
        'mmpretrain': ('head',),
    }[scope.name]
    wrong = [
        f'{path}.num_classes = {head["num_classes"]}'
        for path, head in _heads(model, heads)
        if head['num_classes'] != len(classes) and not (len(classes) == 2 and _is_binary(head))
    ]
    if wrong:
        shown = ', '.join(classes[:4]) + (', …' if len(classes) > 4 else '')
        raise UserError(
            f'The dataset has {len(classes)} classes ({shown}), but the model has {", ".join(wrong)}. Make them equal: '
            f'set each num_classes to {len(classes)}, or the classes of every dataset with metainfo=dict(classes=(…,)).'
        )


def _heads(node: dict, heads: tuple[str, ...], path: str = 'model') -> list[tuple[str, dict]]:
    """The heads in a model config that say how many classes they have, and where they are."""
    found = []
    for key, value in node.items():
        for i, part in enumerate(value if isinstance(value, list | tuple) else [value]):
            if not isinstance(part, dict):
                continue
            where = f'{path}.{key}' + (f'[{i}]' if isinstance(value, list | tuple) else '')
            if key in heads and isinstance(part.get('num_classes'), int):
                found.append((where, part))
            found += _heads(part, heads, where)
    return found


def _is_binary(head: dict) -> bool:
    """Whether the only channel of a head of mmseg tells two classes apart, which takes a sigmoid."""
    losses = head.get('loss_decode') or dict(type='CrossEntropyLoss')
    softmax = [
        loss
        for loss in (losses if isinstance(losses, list | tuple) else [losses])
        if loss.get('type') == 'CrossEntropyLoss' and not loss.get('use_sigmoid')
    ]
    return head['num_classes'] == 1 and not softmax


def _pretrained_problems(cfg: Config) -> list[str]:
    return [
        f'the pretrained weights {file} do not exist ({Path(file).absolute()})'
        for file in pretrained_files(cfg)
        if _is_local(file) and not Path(file).is_file()
    ]


def _report(cfg: Config, data: list[str], weights: list[str]) -> None:
    """Raises one error for everything that is missing, with the ways on."""
    if not data and not weights:
        return
    lines = [f'{Path(cfg.filename).name} cannot start:', *(f'  - {problem}' for problem in data + weights)]
    if data:
        source = cfg.get('data_source') or next(iter(_known_sources(cfg)), None)
        lines += [f'Get the data: {source}'] if source else []
        lines += ['  --data-root DIR     if it is in another folder']
    if weights:
        lines += [f'Get the weights: {cfg.get("pretrained_source", "the page of the model names them")}']
        lines += [
            '  --pretrained PATH   if they are in another place',
            '  --from-scratch      to start from random weights',
        ]
    if '_shapes' not in Path(cfg.filename).name:
        config = SHAPES_CONFIGS[cfg.default_scope]
        lines += [f'{config} needs neither: `{SHAPES_COMMAND}` draws its data in a minute.']
    raise UserError('\n'.join(lines))


def _known_sources(cfg: Config) -> list[str]:
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    types = [dataset['type'] for loader in loaders for dataset in leaf_datasets(cfg, loader)]
    return [SOURCES[kind] for kind in types if kind in SOURCES]


def _check_neck(model: dict, backbone: nn.Module) -> None:
    """Compares the channels that the neck expects with those of the backbone's maps."""
    neck = model.get('neck')
    neck = neck[0] if isinstance(neck, list | tuple) and neck else neck
    expected = neck.get('in_channels') if isinstance(neck, dict) else None
    given = [feature['num_chs'] for feature in backbone.feature_info]
    # the neck of YOLOv3 names the deepest first
    if isinstance(expected, list | tuple) and list(expected) not in (given, given[::-1]):
        raise UserError(
            f'model.neck.in_channels = {list(expected)}, but the maps of model.backbone ({type(backbone).__name__}) '
            f'have {given} channels. Make them equal.'
        )
