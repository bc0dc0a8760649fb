"""Puts our backbone into every config that mmdet, mmseg and mmpretrain ship, and tries each model that comes out.

    python tools/dev/sweep_zoo.py                 sweeps, resumes, writes docs/compatibility.md
    python tools/dev/sweep_zoo.py --only mmdet 'mmseg/deeplab*' --report /tmp/table.md

Configs whose backbone is not in `BACKBONES` are left out, as are those whose model is the same as one seen: it is tried
once. What was found is kept in a file, so that the sweep goes on where it was stopped; a model that changed is tried
again. A refusal counts as a failure.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import importlib
import importlib.util
import json
import os
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from zoo_table import page
from zoo_trial import Trial, try_model

from mmmsvmamba.engine.errors import UserError
from mmmsvmamba.swap.heads import type_name
from mmmsvmamba.swap.probe import FeatureMap, backbone_maps, without_weights
from mmmsvmamba.swap.swapping import find_owner, swap_with_changes

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / 'docs' / 'compatibility.md'
#: The maps of the backbones that were looked at.
PROBES = REPOSITORY / 'build' / 'sweep_zoo_probes'
#: Bytes that a process may take.
MEMORY = 9 * 2**30
LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
ARCH = 'nano'

#: Backbones for images with convolutional or hierarchical features. Plain transformers (one resolution, tokens) and
#: those that are trained on masked images are others.
BACKBONES = frozenset(
    [
        'BiSeNetV1',
        'BiSeNetV2',
        'CGNet',
        'CSPDarkNet',
        'CSPDarknet',
        'CSPNeXt',
        'CSPResNeXt',
        'CSPResNet',
        'ConvMixer',
        'ConvNeXt',
        'Conformer',
        'DDRNet',
        'DaViT',
        'Darknet',
        'DenseNet',
        'DetectoRS_ResNet',
        'DetectoRS_ResNeXt',
        'ERFNet',
        'EdgeNeXt',
        'EfficientFormer',
        'EfficientNet',
        'EfficientNetV2',
        'FastSCNN',
        'HRNet',
        'HorNet',
        'HourglassNet',
        'HiViT',
        'ICNet',
        'InceptionV3',
        'LeNet5',
        'LeViT',
        'MSCAN',
        'MixMIMTransformer',
        'MViT',
        'MixVisionTransformer',
        'MobileNetV2',
        'MobileNetV3',
        'MobileOne',
        'MobileViT',
        'PCPVT',
        'PIDNet',
        'PoolFormer',
        'PyramidVig',
        'PyramidVisionTransformer',
        'PyramidVisionTransformerV2',
        'RIFormer',
        'RegNet',
        'RepLKNet',
        'RepMLPNet',
        'RepVGG',
        'Res2Net',
        'ResNeSt',
        'ResNeXt',
        'ResNet',
        'ResNetV1c',
        'ResNetV1d',
        'ResNet_CIFAR',
        'SEResNeXt',
        'SEResNet',
        'SSDVGG',
        'STDCContextPathNet',
        'SVT',
        'ShuffleNetV1',
        'ShuffleNetV2',
        'SwinTransformer',
        'SwinTransformerV2',
        'TIMMBackbone',
        'TinyViT',
        'TridentResNet',
        'UNet',
        'VAN',
        'VGG',
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', metavar='PATTERN', help="of library/family/config, such as 'mmdet/dino*'")
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='processes (default: one for each core)')
    parser.add_argument('--found', type=Path, default=REPOSITORY / 'build' / 'sweep_zoo.jsonl', help='where results go')
    parser.add_argument('--report', type=Path, default=PAGE, help='the page that is written (docs/compatibility.md)')
    parser.add_argument('--retry', action='store_true', help='try models that failed before again')
    parser.add_argument('--list', action='store_true', help='only say how many configs there are')
    args = parser.parse_args(argv)
    if args.only and args.report == PAGE and not args.list:
        parser.error('--only gives a part of the table: name another page with --report')

    entries = list(list_configs(args.only))
    if not entries:
        parser.error(f'no config matches {" ".join(args.only or LIBRARIES)}')
    args.found.parent.mkdir(parents=True, exist_ok=True)
    known = load_results(args.found, args.retry)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context('spawn'), initializer=_quiet) as pool:
        given = list(pool.map(read, entries, chunksize=16))
        # the same model gives the same swap
        different = {entry['own_key']: entry for entry in reversed(given) if 'own_key' in entry}
        swapped = dict(zip(different, pool.map(swap, different.values(), chunksize=4), strict=True))
        prepared = [entry | swapped.get(entry.get('own_key'), {}) | dict(name=entry['name']) for entry in given]
        print(f'{len(prepared)} configs; {sum("key" in p for p in prepared)} with such a backbone', flush=True)
        if args.list:
            return 0
        seen: dict[str, dict] = {}
        for entry in prepared:
            if 'key' in entry:
                seen.setdefault(entry['key'], entry)
        todo = [entry for key, entry in seen.items() if key not in known]
        print(f'{len(seen)} different models, {len(todo)} of them not tried yet', flush=True)
        with args.found.open('a') as file:
            for entry, found in zip(todo, pool.map(attempt, todo), strict=True):
                known[entry['key']] = found
                file.write(json.dumps({'key': entry['key'], 'config': entry['name'], **found}) + '\n')
                file.flush()
                if found['reason']:
                    print(f'{entry["name"]}: {found["reason"]}', flush=True)
    results = [entry | known[key] for key, entry in seen.items()]
    versions = ', '.join(
        f'{name} {importlib.import_module(name).__version__}' for name in (*LIBRARIES, 'mmcv', 'torch')
    )
    args.report.write_text(page(prepared, results, f'With {versions}.'))
    return 0


def list_configs(patterns: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Library and path of every config shipped that matches one of the patterns."""
    for library in LIBRARIES:
        root = config_root(library)
        for file in sorted(root.rglob('*.py')):
            name = file.relative_to(root).as_posix()
            full = f'{library}/{name}'
            wanted = not patterns or any(fnmatch.fnmatch(full, p) or fnmatch.fnmatch(full, f'{p}/*') for p in patterns)
            if '_base_' not in file.parts and wanted:
                yield library, name


@cache
def config_root(library: str) -> Path:
    return Path(importlib.util.find_spec(library).origin).parent / '.mim' / 'configs'


def load_results(file: Path, only_passed: bool) -> dict[str, dict]:
    """Earlier results by the key of the model; of several the last counts."""
    if not file.is_file():
        return {}
    results = [json.loads(line) for line in file.read_text().splitlines()]
    if only_passed:
        results = [r for r in results if r['loss']]
    return {r['key']: {k: r[k] for k in ('builds', 'forward', 'loss', 'reason', 'own')} for r in results}


def read(entry: tuple[str, str]) -> dict:
    """Reads a config.

    Returns:
        'name', 'library', and either 'skipped', the reason why it is no part of the table, or 'own_key', which is the
        same for the same model.
    """
    library, path = entry
    found = dict(name=f'{library}/{path}', library=library)
    try:
        cfg = _config(found)
    except Exception as error:  # it is the library's own config
        return found | dict(skipped=f'cannot be read: {type(error).__name__}: {_line(error)}')
    if 'model' not in cfg:
        return found | dict(skipped='describes no model')
    try:
        owner = find_owner(cfg)
    except UserError:
        return found | dict(skipped='has no backbone')
    backbone = cfg.model.detector.backbone if owner == 'model.detector' else cfg.model.backbone
    if type_name(backbone) not in BACKBONES:
        return found | dict(skipped=f'the backbone is a {type_name(backbone)}')
    return found | dict(own_key=_key(cfg))


def swap(entry: dict) -> dict:
    """Swaps the backbone of a config.

    Returns:
        'key', the same for the same model, 'scope', and either 'refused', the reason, or 'model' and 'preprocessor' of
        the new one.
    """
    cfg = _config(entry)
    try:
        swapped, _ = swap_with_changes(cfg, ARCH, pretrained=None, probe=_probe)
    except UserError as error:
        return dict(key=_key(cfg), scope=cfg.default_scope, refused=f'refused: {_line(error)}')
    return dict(
        key=_key(swapped),
        scope=swapped.default_scope,
        model=_plain(swapped.model),
        preprocessor=_plain(swapped.get('data_preprocessor')),
    )


def _config(entry: dict) -> Config:
    cfg = Config.fromfile(config_root(entry['library']) / entry['name'].partition('/')[2])
    cfg.setdefault('default_scope', entry['library'])
    return cfg


def _probe(backbone: dict, scope: str, path: str) -> list[FeatureMap]:
    """`backbone_maps`, kept in a file: many configs share a backbone."""
    library = importlib.import_module(scope)
    parts = [scope, library.__version__, _plain(backbone)]
    file = PROBES / f'{_hash(parts)}.json'
    if file.is_file():
        return [FeatureMap(*values) for values in json.loads(file.read_text())]
    maps = backbone_maps(backbone, scope, path)
    PROBES.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f'.{os.getpid()}')
    part.write_text(json.dumps([(m.channels, m.stride) for m in maps]))
    part.replace(file)
    return maps


def attempt(entry: dict) -> dict:
    """Tries the model of a prepared config, and where it fails that with the backbone of the config.

    Returns:
        'builds', 'forward', 'loss' and 'reason' of `Trial`, and the reason of the second trial as 'own'.
    """
    library = entry['library']
    # some configs name files of their library by paths relative to it
    os.chdir(config_root(library).parent)
    if 'refused' in entry:
        trial = Trial(reason=entry['refused'])
    else:
        trial = try_model(entry['model'], entry['preprocessor'], entry['scope'])
    found = trial.to_dict() | dict(own='')
    if found['reason']:
        cfg = _config(entry)
        found['own'] = try_model(_plain(cfg.model), _plain(cfg.get('data_preprocessor')), entry['scope']).reason
    return found


def _key(cfg: object) -> str:
    """The same for configs whose models differ in nothing but the weights that they start from."""
    parts = [cfg.default_scope, without_weights(_plain(cfg.model)), _plain(cfg.get('data_preprocessor'))]
    return _hash(parts)


def _hash(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def _plain(part: object) -> object:
    return part.to_dict() if hasattr(part, 'to_dict') else part


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]


def _quiet() -> None:
    """Prepares a process: one thread, no download, no warnings of the libraries."""
    os.environ['HF_HUB_OFFLINE'] = '1'
    MMLogger.get_instance('mmengine', log_level='ERROR')
    torch.set_num_threads(1)
    # a model that asks for more fails by itself instead of taking others with it
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.filterwarnings('ignore')


if __name__ == '__main__':
    sys.exit(main())
