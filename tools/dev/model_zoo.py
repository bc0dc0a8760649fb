"""Writes the tables of docs/model_zoo.md from model-index.yml.

    python tools/dev/model_zoo.py

The prose of the page is between the tables.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import load
from page_tables import markdown, update

from mmmsvmamba.engine.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
INDEX = REPOSITORY / 'model-index.yml'
PAGE = REPOSITORY / 'docs' / 'model_zoo.md'

NONE = '–'
#: Name of a family in the names of configs -> on the page.
FAMILIES = {'msvmamba': 'MSVMamba', 'vmamba': 'VMamba', 'vim': 'Vim'}
#: Epochs on COCO -> table.
COCO = {12: 'COCO 1x', 36: 'COCO 3x', 100: 'COCO 100 epochs'}
Model = Mapping[str, Any]
Cell = Callable[[Model], str]


def tables(models: list[Model]) -> dict[str, str]:
    """The tables of the page: name -> markdown.

    Raises:
        UserError: A model that belongs to none.
    """
    groups: dict[str, list[Model]] = {name: [] for name in COLUMNS}
    for model in models:
        groups[_table_of(model)].append(model)
    return {name: _markdown(COLUMNS[name], group) for name, group in groups.items()}


def _table_of(model: Model) -> str:
    data, epochs = model['Metadata']['Training Data'], model['Metadata'].get('Epochs')
    name = COCO.get(epochs, data) if data == 'COCO' else data
    if name not in COLUMNS:
        raise UserError(f'{model["Name"]} is in no table: its training data are {data}, its epochs {epochs}')
    return name


def _markdown(columns: Mapping[str, Cell], models: list[Model]) -> str:
    rules = ['---', '---', *['---:'] * (len(columns) - 4), '---', '---']
    return markdown(list(columns), rules, ([cell(model) for cell in columns.values()] for model in models))


def _name(model: Model) -> str:
    family, letter, variant = re.search(r'(msvmamba|vmamba|vim)_([a-z])(?:_(v\d|s\dl\d+))?_', model['Name']).groups()
    size = 'Ti' if (family, letter) == ('vim', 't') else letter.upper()
    return f'{FAMILIES[family]}-{size}{f" {variant}" if variant else ""}{"+" if "stride8" in model["Name"] else ""}'


def _config(model: Model) -> str:
    return f'[{Path(model["Config"]).stem}](../{model["Config"]})'


def _parameters(model: Model) -> str:
    return f'{model["Metadata"]["Parameters"] / 1e6:.2f}'


def _reported_flops(model: Model) -> str:
    flops = model['Metadata'].get('Reported FLOPs')
    return NONE if flops is None else f'{flops / 1e9:.{0 if flops > 1e11 else 1}f}'


def _counted_flops(model: Model) -> str:
    flops = model['Metadata']['FLOPs']
    return f'{flops / 1e9:.{1 if flops > 1e11 else 2}f}'


def _metric(name: str) -> Cell:
    def cell(model: Model) -> str:
        metrics = {key: value for result in model.get('Results', []) for key, value in result['Metrics'].items()}
        found = [str(metrics[name])] if name in metrics else []
        found += [f'paper: {metrics[f"Paper {name}"]}'] if f'Paper {name}' in metrics else []
        return '; '.join(found) or NONE

    return cell


def _weights(model: Model) -> str:
    if 'Weights' in model:
        return f'[file]({model["Weights"]})'
    if 'Converted From' not in model:
        return 'none'
    name = model['Metadata'].get('Weights File')
    return f'[folder]({model["Converted From"]["Weights"]})' + (f' → `{name}`' if name else '')


def _license(model: Model) -> str:
    return model['Metadata'].get('Weights License', NONE)


def _columns(**metrics: str) -> dict[str, Cell]:
    return {
        'Model': _name,
        'Config': _config,
        'Params (M)': _parameters,
        'GFLOPs, authors': _reported_flops,
        'GFLOPs, counted here': _counted_flops,
        **{title.replace('_', ' '): _metric(metric) for title, metric in metrics.items()},
        'Weights': _weights,
        'License of the weights': _license,
    }


#: Table -> column -> what it shows of a model.
COLUMNS: dict[str, dict[str, Cell]] = {
    'ImageNet-1k': _columns(Top_1='Top 1 Accuracy'),
    'COCO 1x': _columns(box_AP='box AP', mask_AP='mask AP'),
    'COCO 3x': _columns(box_AP='box AP', mask_AP='mask AP'),
    'COCO 100 epochs': _columns(box_AP='box AP', mask_AP='mask AP'),
    'ADE20K': _columns(mIoU='mIoU', mIoU_multi_scale='mIoU (ms+flip)'),
}

if __name__ == '__main__':
    sys.exit(update(PAGE, lambda: tables(load(INDEX)['Models'])))
