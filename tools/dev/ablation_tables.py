"""Writes the tables of docs/ablations.md: parameters and operations of each model, counted here, beside the record, and
the measured speed of the scan patterns.

    python tools/dev/ablation_tables.py

The prose of the page is between the tables.
"""

from __future__ import annotations

import sys

import torch
from benchmark_tables import scan_pattern_tables
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from model_zoo import NONE, REPOSITORY
from page_tables import markdown, update
from torch import nn

from mmmsvmamba.analysis import count_flops

CONFIGS = REPOSITORY / 'configs'
PAGE = REPOSITORY / 'docs' / 'ablations.md'

#: Table -> rows of (what it is, classification config without `_in1k`, and, to compare with, millions of parameters and
#: GFLOPs).
ROWS: dict[str, list[tuple[str, str, str, str]]] = {
    'table 4': [
        ('VMamba-Nano', 'ablation_vmamba_n', '4.435', '0.873'),
        ('+ MS2D', 'ablation_ms2d', '4.790', '0.889'),
        ('+ SE', 'ablation_ms2d_se', '5.329', '0.891'),
        ('+ ConvFFN', 'ablation_ms2d_se_convffn', '6.557', '0.935'),
        ('N = 1: MSVMamba-Nano', 'msvmamba_n', '6.864', '0.883'),
    ],
    'table 5': [
        ('1 full, 3 half', 'ablation_ms2d', '4.790', '0.889'),
        ('2 full, 2 half', 'ablation_full2_half2', '5.040', '1.005'),
        ('3 full, 1 half', 'ablation_full3_half1', '5.289', '1.121'),
        ('4 full', 'ablation_full4_half0', '5.069', '1.193'),
        ('4 half', 'ablation_full0_half4', '5.069', '0.745'),
    ],
    'slides': [
        ('Tiny, MS2D alone, N = 16', 'ablation_tiny_ms2d', '24', '4.8'),
        ('Tiny as released (v3)', 'msvmamba_t_v3', '32', '5.1'),
        ('Base of the slides', 'ablation_base_slides', '88', '15.5'),
        ('Base as released (v3)', 'msvmamba_b_v3', '91', '16.3'),
    ],
    'scan patterns': [
        (f'{pattern}{", no depthwise convolution" if not conv else ""}', config, *(printed if conv else (NONE, NONE)))
        for conv in (True, False)
        for pattern, config, printed in [
            ('uni-scan', f'ablation_scan_uni{"" if conv else "_no_dwconv"}', ('4.4', '0.87')),
            ('bi-scan', f'ablation_scan_bi{"" if conv else "_no_dwconv"}', ('4.4', '0.87')),
            ('cascade-scan', f'ablation_scan_cascade{"" if conv else "_no_dwconv"}', ('4.4', '0.87')),
            ('cross-scan', 'ablation_vmamba_n' if conv else 'ablation_scan_cross_no_dwconv', ('4.4', '0.87')),
        ]
    ],
}


def tables() -> dict[str, str]:
    """The tables of the page: name -> markdown."""
    models = {config: _classifier(config) for rows in ROWS.values() for _, config, *_ in rows}
    counts = {config: count_flops(model, (1, 3, 224, 224)) for config, model in models.items()}
    result = {}
    for name, rows in ROWS.items():
        other = 'recorded' if name.startswith('table') else 'printed'
        columns = ['Model', 'Depths', 'N', 'Params (M)', other, 'GFLOPs', other, 'Configs']
        lines = []
        for what, config, millions, gigaflops in rows:
            spec, count = models[config].backbone.arch, counts[config]
            depths = ', '.join(map(str, spec.depths))
            sizes = [f'{count.parameters / 1e6:.3f}', millions, f'{count.total / 1e9:.3f}', gigaflops]
            lines.append([what, depths, str(spec.d_state), *sizes, _links(config)])
        result[name] = markdown(columns, ['---', '---', *['---:'] * 5, '---'], lines)
    return result | scan_pattern_tables()


def _classifier(config: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        return MODELS.build(Config.fromfile(str(CONFIGS / f'{config}_in1k.py')).model)


def _links(config: str) -> str:
    detector = f'{config}_mask_rcnn_1x' if config.startswith('ablation_') else f'mask_rcnn_{config}_1x'
    return f'[ImageNet](../configs/{config}_in1k.py), [Mask R-CNN](../configs/{detector}.py)'


if __name__ == '__main__':
    sys.exit(update(PAGE, tables))
