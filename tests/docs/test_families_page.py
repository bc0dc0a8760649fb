"""docs/families.md: its tables are those of the results, and the results are of the models that there are."""

import importlib
import re
import sys

import pytest
import torch
from mmengine.fileio import load
from tiny_data import REPOSITORY

from mmmsvmamba import MSVMamba, Vim, VMamba
from mmmsvmamba.analysis import count_flops
from mmmsvmamba.engine.errors import UserError

PAGE = (REPOSITORY / 'docs/families.md').read_text()
FAMILIES = {'MSVMamba': MSVMamba, 'VMamba': VMamba, 'Vim': Vim}


@pytest.fixture(scope='module')
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'path', [str(REPOSITORY / 'tools/dev'), *sys.path])
        return importlib.import_module('benchmark_tables')


def rows(table):
    return [re.split(r' *\| *', line.strip('| \n')) for line in table.splitlines()[2:]]


def test_tables_of_the_page_are_those_of_the_results(tool):
    assert importlib.import_module('page_tables').fill(PAGE, tool.tables()) == PAGE, (
        'run python tools/dev/benchmark_tables.py'
    )


def test_every_architecture_has_a_row(tool):
    named = {(family, arch.strip('`')) for family, arch, *_ in rows(tool.tables()['families'])}
    known = {(name, arch) for name, family in FAMILIES.items() for arch in family.arch_settings}
    assert named == known | {('ConvNeXt', 'tiny')}


@pytest.mark.parametrize(
    'name, options',
    [
        ('MSVMamba nano', dict(out_indices=(3,))),
        ('VMamba tiny-s1l8', dict(out_indices=(3,))),
        ('Vim tiny-stride8', dict(out_type='cls_token')),
    ],
)
def test_counts_of_the_results_are_those_of_the_models(name, options, tool):
    family, arch = name.split()
    with torch.device('meta'):
        count = count_flops(FAMILIES[family](arch, **options), (1, 3, 224, 224))
    (case,) = load(tool.RESULTS / 'families_cpu.json')['cases'].values()
    assert case['about'][name] == {'parameters': count.parameters, 'gflops': count.total / 1e9}


def times(seconds):
    names = ('vim-tiny', 'deit-tiny', 'deit-tiny-scores')
    return {
        'images_per_second': {name: 1 / x for name, x in zip(names, seconds, strict=True)},
        'about': {name: {'gflops': 3.0} for name in names},
    }


def memory(side, megabytes):
    names = (f'growth/{name}/forward/{side}' for name in ('vim-tiny', 'deit-tiny', 'deit-tiny-scores'))
    return {name: {'images': 2, 'growth_mb': 2 * x} for name, x in zip(names, megabytes, strict=True)}


#: Vim is linear, DeiT's time is quadratic, and so is its memory with scores.
TIMES = {'cases': {'vim-deit/forward/128': times([8, 16, 96]), 'vim-deit/forward/64': times([2, 1, 6])}}
MEMORY = {'cases': memory(64, [10, 5, 100]) | memory(128, [40, 20, 1600])}


def test_vim_and_deit(tool):
    assert rows(tool.vim_and_deit(TIMES, MEMORY))[-1] == ['128²', 'DeiT-Ti, matrix of scores', '3.0', '96.00', '1,600']
    assert rows(tool.vim_against_deit(TIMES, MEMORY)) == [
        ['64²', 'DeiT-Ti, fused attention', '0.50', '200 %'],
        ['64²', 'DeiT-Ti, matrix of scores', '3.00', '10 %'],
        ['128²', 'DeiT-Ti, fused attention', '2.00', '200 %'],
        ['128²', 'DeiT-Ti, matrix of scores', '12.00', '2 %'],
        # the published claims: 2.8 times as fast, 86.8 % of the memory saved
        ['1248²', 'DeiT-Ti on a GPU, the paper', '2.80', '13 %'],
    ]
    assert [row[1:] for row in rows(tool.growth(TIMES, MEMORY))] == [
        ['1.00', '1.00'],
        ['2.00', '1.00'],
        ['2.00', '2.00'],
    ]


def test_speed_of_scan_patterns(tool):
    def case(cross, uni):
        return {'images_per_second': {'cross': cross, 'uni, no dwconv': uni}}

    cases = {'scan-patterns/forward/224': case(4.0, 5.0), 'scan-patterns/train/224': case(2.0, 1.0)}
    assert rows(tool.scan_patterns({'cases': cases})) == [
        ['cross-scan', 'yes', '1.00', '1.00'],
        ['uni-scan', 'no', '1.25', '0.50'],
    ]
    (table,) = tool.scan_pattern_tables().values()
    assert len(rows(table)) == 8


@pytest.mark.parametrize('found, reason', [({}, 'not measured'), ({'error': 'killed'}, 'killed')])
def test_memory_that_is_missing(found, reason, tool):
    name = 'growth/deit-tiny/forward/64'
    cases = {key: value for key, value in MEMORY['cases'].items() if key != name} | ({name: found} if found else {})
    with pytest.raises(UserError, match=f'the results have no memory of deit-tiny at 64: {reason}'):
        tool.vim_against_deit(TIMES, {'cases': cases})
