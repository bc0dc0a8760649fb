"""The command line that prints parameters and operations."""

import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('get_flops', REPOSITORY / 'tools/get_flops.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rows(tool, capsys):
    """Runs the tool and returns the cells of what it prints as markdown, header lines included, rules left out."""

    def run(*argv: str) -> list[list[str]]:
        assert tool.main([*argv, '--markdown']) == 0
        lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
        assert all(line.startswith('|') and line.endswith('|') for line in lines), lines
        return [[cell.strip() for cell in line[1:-1].split('|')] for line in lines if not line.startswith('|-')]

    return run


@pytest.fixture
def config(tmp_path):
    """Writes a config file and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / 'config.py'
        path.write_text(text)
        return str(path)

    return write


UPERNET = """
_base_ = 'mmseg::_base_/models/upernet_swin.py'
default_scope = 'mmseg'
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='MSVMamba', arch='micro'),
    decode_head=dict(in_channels=[64, 128, 256, 512], num_classes=150),
    auxiliary_head=dict(in_channels=256, num_classes=150),
)
"""


def test_all_architectures(rows):
    """VMamba's are the authors' own count; the parameters with head are the published ones of all families."""
    header, *lines = rows()
    assert header == ['Backbone', 'Params (M)', 'with head (M)', 'GFLOPs 224×224', 'GFLOPs 1280×800', 'GFLOPs 512×2048']
    assert lines == [
        ['MSVMamba nano', '6.48', '6.86', '0.878', '17.889', '18.315'],
        ['MSVMamba micro', '11.37', '11.88', '1.524', '31.045', '31.786'],
        ['MSVMamba tiny', '32.28', '33.05', '4.586', '93.475', '95.709'],
        ['MSVMamba tiny-v3', '31.50', '32.26', '5.120', '104.447', '106.950'],
        ['MSVMamba small-v3', '49.45', '50.22', '8.746', '178.436', '182.714'],
        ['MSVMamba base-v3', '89.57', '90.59', '16.239', '331.321', '339.266'],
        ['VMamba tiny-v0', '22.13', '22.89', '5.629', '114.872', '117.629'],
        ['VMamba small-v0', '43.65', '44.42', '11.233', '229.252', '234.754'],
        ['VMamba base-v0', '75.23', '76.25', '18.022', '367.797', '376.624'],
        ['VMamba tiny-s2l5', '29.94', '30.71', '4.860', '99.175', '101.555'],
        ['VMamba small-s2l15', '49.38', '50.15', '8.718', '177.910', '182.180'],
        ['VMamba base-s2l15', '87.53', '88.56', '15.361', '313.498', '321.022'],
        ['VMamba tiny-s1l8', '29.48', '30.25', '4.907', '100.152', '102.555'],
        ['VMamba small-s1l20', '48.25', '49.01', '8.614', '175.797', '180.016'],
        ['VMamba base-s1l20', '85.59', '86.61', '15.223', '310.680', '318.136'],
        ['Vim tiny', '7.40', '7.15', '1.994', '40.523', '41.495'],
        ['Vim small', '27.18', '25.80', '6.602', '134.141', '137.360'],
        ['Vim base', '103.91', '97.60', '23.654', '480.665', '492.199'],
        ['Vim tiny-stride8', '7.21', '7.25', '6.853', '147.774', '150.816'],
        ['Vim small-stride8', '26.21', '26.00', '22.316', '481.248', '491.153'],
        ['Vim base-stride8', '99.60', '98.01', '79.077', '1705.296', '1740.395'],
    ]


def test_families_with_the_same_name(rows):
    assert [line[0] for line in rows('--arch', 'tiny', '--shape', '32', '32')] == [
        'Backbone',
        'MSVMamba tiny',
        'Vim tiny',
    ]
    assert [line[0] for line in rows('--arch', 'Vim/tiny', '--shape', '32', '32')] == ['Backbone', 'Vim tiny']


def test_chosen_architectures_by_operator(rows):
    lines = rows('--arch', 'tiny-v3', 'nano', '--shape', '96', '128', '--by-operator')
    assert [line[0] for line in lines[:3]] == ['Backbone', 'MSVMamba nano', 'MSVMamba tiny-v3']
    start = [line[0] for line in lines].index('total') + 1
    first, second = lines[3:start], lines[start:]
    assert first[0] == ['MSVMamba nano', 'GFLOPs 96×128']
    assert second[0] == ['MSVMamba tiny-v3', 'GFLOPs 96×128']
    for table, summary in ((first, lines[1]), (second, lines[2])):
        kinds = {kind: float(number) for kind, number in table[1:]}
        assert f'{kinds.pop("total"):.3f}' == summary[3]
        assert list(kinds.values()) == sorted(kinds.values(), reverse=True)
        assert sum(kinds.values()) == pytest.approx(float(summary[3]), abs=0.0005 * len(kinds))


@pytest.mark.parametrize(
    'name, backbone, detector', [('n', '6.48', '26.57'), ('m', '11.37', '31.52'), ('t', '32.28', '52.55')]
)
def test_mask_rcnn_has_the_published_parameters(rows, name, backbone, detector):
    lines = rows(f'configs/mask_rcnn_msvmamba_{name}_1x.py', '--shape', '64', '64')
    assert [line[:2] for line in lines] == [
        ['Model', 'Params (M)'],
        ['backbone MSVMamba', backbone],
        ['MaskRCNN', detector],
    ]
    assert lines[2][2] == 'by image'


def test_a_segmentor_is_counted_as_a_whole(rows, config):
    header, backbone, segmentor = rows(config(UPERNET))
    assert header[2] == 'GFLOPs 512×2048'
    assert backbone == ['backbone MSVMamba', '11.37', '31.786']
    # UperNet with MSVMamba-micro is published as 42 M and 875 G
    assert segmentor[:2] == ['EncoderDecoder', '41.67']
    assert float(segmentor[2]) == pytest.approx(875.1, rel=0.01)


def test_a_classifier_is_counted_as_a_whole(rows, config):
    lines = rows(
        config(
            "default_scope = 'mmpretrain'\n"
            "backbone = dict(type='MSVMamba', arch='nano', out_indices=(3,))\n"
            "neck = dict(type='GlobalAveragePooling')\n"
            "head = dict(type='LinearClsHead', num_classes=1000, in_channels=384)\n"
            "model = dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)\n"
        )
    )
    assert lines[0][2] == 'GFLOPs 224×224'
    assert lines[2] == ['ImageClassifier', '6.86', '0.877']


@pytest.mark.parametrize(
    'argv, message',
    [
        (
            ['--arch', 'nano', 'nan0'],
            'unknown architecture nan0; known are MSVMamba: nano, micro, tiny, tiny-v3, small-v3',
        ),
        (['--arch', 'nano', '--shape', '0', '224'], 'input_shape must be positive integers'),
        (['configs/no_such_config.py'], 'There is no config file configs/no_such_config.py'),
    ],
)
def test_bad_input_is_one_line(tool, capsys, argv, message):
    assert tool.main(argv) == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.startswith(f'error: {message}')
    assert captured.err.count('\n') == 1


def test_a_model_without_a_backbone(tool, capsys, config):
    path = config("default_scope = 'mmpretrain'\nmodel = dict(type='LinearClsHead', num_classes=3, in_channels=4)\n")
    assert tool.main([path]) == 1
    assert 'describes a LinearClsHead, which has no backbone to count' in capsys.readouterr().err


@pytest.mark.parametrize('argv', [['--shape', '224'], ['--shape', 'a', 'b'], ['config.py', '--arch', 'nano']])
def test_a_command_line_that_makes_no_sense(tool, capsys, argv):
    with pytest.raises(SystemExit) as error:
        tool.main(argv)
    assert error.value.code == 2
    assert 'usage:' in capsys.readouterr().err
