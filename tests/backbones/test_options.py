"""Architectures as names and dicts, and what is said about options that cannot be."""

import pytest
import torch
from mmengine.config import ConfigDict

from mmmsvmamba import MSVMamba
from mmmsvmamba.kernels import Route


@pytest.fixture(autouse=True)
def no_memory():
    with torch.device('meta'):
        yield


def test_a_dict_with_base_changes_only_the_fields_it_names():
    model = MSVMamba(dict(base='tiny', depths=[2, 2, 9, 2]))
    tiny = MSVMamba('tiny')
    assert model.arch.depths == (2, 2, 9, 2)
    assert {**vars(model.arch), 'depths': None} == {**vars(tiny.arch), 'depths': None}
    assert MSVMamba(dict(base='tiny')).arch == tiny.arch


def test_a_dict_of_all_fields_needs_no_base():
    assert MSVMamba(dict(MSVMamba.arch_settings['nano'])).arch == MSVMamba('nano').arch


def test_a_config_dict_is_taken():
    arch = ConfigDict(base='nano', dims=[32, 64, 128, 256], full_routes=[['row'], ['column']])
    model = MSVMamba(arch)
    assert model.arch.dims == (32, 64, 128, 256)
    assert model.arch.full_routes == ((Route.ROW,), (Route.COLUMN,))
    assert arch == ConfigDict(base='nano', dims=[32, 64, 128, 256], full_routes=[['row'], ['column']])


@pytest.mark.parametrize('dims, expected', [(48, (48, 96, 192, 384)), ([40, 64, 96, 200], (40, 64, 96, 200))])
def test_dims(dims, expected):
    assert MSVMamba(dict(base='nano', dims=dims)).arch.dims == expected


@pytest.mark.parametrize('dim, rank', [(48, 3), (64, 4), (100, 7), (128, 8)])
def test_auto_rank_is_a_sixteenth_rounded_up(dim, rank):
    model = MSVMamba(dict(base='nano', dims=[dim] * 4))
    assert model.stages[0].blocks[0].mixer.full_res.scan.dt_weight.shape[2] == rank


def test_a_given_rank_serves_all_stages():
    model = MSVMamba(dict(base='nano', dt_rank=5))
    assert {stage.blocks[0].mixer.full_res.scan.dt_weight.shape[2] for stage in model.stages} == {5}


NAMES = 'nano, micro, tiny, tiny-v3, small-v3, base-v3'


def test_there_is_no_default_arch():
    with pytest.raises((TypeError, ValueError), match='arch'):
        MSVMamba()


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises((TypeError, ValueError), match='out_indices.*drop_path_rate.*frozen_stages.*with_cp') as error:
        MSVMamba('nano', drop_path=0.1)
    assert "'drop_path'" in str(error.value)


@pytest.mark.parametrize(
    'arch, said',
    [
        ('Nano', f"unknown arch 'Nano' .did you mean 'nano'.*{NAMES}"),
        ('resnet', f"unknown arch 'resnet'; known are {NAMES}"),
        (None, f'name .{NAMES}. or a dict.*None'),
        (['nano'], f'name .{NAMES}. or a dict'),
        (dict(base='tinny'), f"unknown base 'tinny' .did you mean 'tiny'.*{NAMES}"),
        (dict(base=['nano']), f'base.*{NAMES}'),
        (dict(base='nano', depth=[1, 1, 1, 1]), "unknown field 'depth'.*did you mean 'depths'.*depths, dims, stem"),
        (dict(dims=48, depths=[1, 2, 5, 2]), f'lacks stem, downsample.*base= one of {NAMES}'),
        ({}, 'lacks depths, dims, stem'),
    ],
    ids=str,
)
def test_an_arch_that_is_none(arch, said):
    with pytest.raises(ValueError, match=said):
        MSVMamba(arch)


@pytest.mark.parametrize(
    'field, value',
    [
        ('depths', [1, 2, 3]),
        ('depths', [1, 2, 0, 1]),
        ('depths', [1, 2, 1.5, 1]),
        ('depths', 3),
        ('depths', None),
        ('dims', [48, 96]),
        ('dims', 0),
        ('dims', 96.0),
        ('dims', None),
        ('stem', 'swin'),
        ('stem', ['patch']),
        ('downsample', 'pool'),
        ('merge', 'bilinear'),
        ('ffn_norm', 'none'),
        ('dt_rank', 0),
        ('dt_rank', 2.5),
        ('dt_rank', 'full'),
        ('d_state', 0),
        ('d_state', 1.5),
        ('d_state', '1'),
        ('ssm_ratio', 0),
        ('ssm_ratio', '2'),
        ('ssm_ratio', 0.001),
        ('ffn_ratio', -1),
        ('ffn_ratio', None),
        ('full_kernel', 4),
        ('full_kernel', -1),
        ('half_kernel', 3.5),
        ('half_kernel', None),
        ('ffn', 'swiglu'),
        ('ssm_init', 'zeros'),
        ('cascade', True),
        ('cascade', 'yes'),
        ('gate', 'no'),
        ('conv_bias', None),
        ('se_reduction', -1),
        ('se_reduction', '8'),
        ('se_reduction', 100_000),
        ('full_routes', 'row'),
        ('full_routes', ['row']),
        ('full_routes', [['diagonal']]),
        ('full_routes', [[]]),
        ('full_routes', [[['row']]]),
        ('full_routes', None),
        ('half_routes', 3),
    ],
    ids=str,
)
def test_a_value_that_a_field_cannot_have(field, value):
    with pytest.raises(ValueError, match=field):
        MSVMamba({'base': 'nano', field: value})


def test_fields_with_a_default_need_not_be_given():
    given = {key: value for key, value in MSVMamba.arch_settings['nano'].items() if key not in ('ffn', 'cascade')}
    assert MSVMamba(given).arch == MSVMamba('nano').arch


def test_routes_are_listed():
    with pytest.raises(ValueError, match='row, column, row_reversed, column_reversed'):
        MSVMamba(dict(base='nano', half_routes=[['rows']]))


def test_a_model_that_scans_nothing():
    with pytest.raises(ValueError, match='full_routes and half_routes are both empty'):
        MSVMamba(dict(base='nano', full_routes=[], half_routes=[]))


@pytest.mark.parametrize(
    'option, value, said',
    [
        ('out_indices', (0, 4), 'out_indices.*-4 and 3.*got 4'),
        ('out_indices', (-5,), 'out_indices.*-4 and 3.*got -5'),
        ('out_indices', (1.0,), 'out_indices.*got 1.0'),
        ('out_indices', '3', 'out_indices'),
        ('out_indices', None, 'out_indices'),
        ('out_indices', (), 'out_indices is empty'),
        ('out_indices', (1, 1), 'out_indices.*(twice|more than once|duplicate|repeat)'),
        ('out_indices', (3, -1), 'out_indices.*(twice|more than once|duplicate|repeat)'),
        ('drop_path_rate', 1.0, r'drop_path_rate.*\[0, 1\).*1\.0'),
        ('drop_path_rate', -0.1, 'drop_path_rate'),
        ('drop_path_rate', float('nan'), 'drop_path_rate'),
        ('drop_path_rate', None, 'drop_path_rate'),
        ('drop_path_rate', '0.1', 'drop_path_rate'),
        ('frozen_stages', 5, 'frozen_stages.*-1 and 4.*5'),
        ('frozen_stages', -2, 'frozen_stages'),
        ('frozen_stages', 1.5, 'frozen_stages'),
        ('frozen_stages', None, 'frozen_stages'),
        ('in_channels', 0, 'in_channels'),
        ('in_channels', '3', 'in_channels'),
    ],
)
def test_an_option_out_of_range(option, value, said):
    with pytest.raises(ValueError, match=said):
        MSVMamba('nano', **{option: value})
