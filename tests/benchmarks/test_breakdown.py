"""The breakdown of time by operator, on work of which it is known what takes it."""

import json

import breakdown
import pytest
import torch
from torch.nn import functional as F

CPU = torch.device('cpu')


def test_the_operator_that_takes_the_time_is_found():
    x, y = torch.randn(400, 400), torch.randn(4)

    def run():
        for _ in range(5):
            x @ x
        F.gelu(y)

    found = breakdown.measure(run, CPU)
    first, *_ = found['operators'].items()
    assert first[0] == 'aten::mm' and first[1]['share'] > 0.5 and first[1]['calls'] == 5
    assert sum(row['share'] for row in found['operators'].values()) == pytest.approx(1)
    assert sum(row['seconds'] for row in found['operators'].values()) == pytest.approx(found['seconds'])
    # what a matrix product calls, and the small activation, are summed up
    assert found['operators'][breakdown.REST]['share'] < 0.2


def test_nothing_to_break_down():
    with pytest.raises(RuntimeError, match='saw no operator'):
        breakdown.measure(lambda: None, CPU)


@pytest.mark.parametrize('arch', breakdown.ARCHS)
def test_a_block_forward_and_backward(arch, tmp_path, capsys):
    out = tmp_path / 'breakdown.json'
    args = ['--size', '32', '--threads', str(torch.get_num_threads())]
    breakdown.main([*args, '--cases', f'block/{arch}/*', '--out', str(out)])
    results = json.loads(out.read_text())
    assert results['machine']['device'] == 'cpu' and (results['size'], results['batch']) == (32, 1)
    forward, full = (results['breakdown'][f'block/{arch}/{mode}'] for mode in ('forward', 'full'))
    assert 'mmmsvmamba::scan2d' in forward['operators']
    assert not any('backward' in name for name in forward['operators'])
    assert 'mmmsvmamba::scan2d_backward' in full['operators']
    assert f'block/{arch}/full: ' in capsys.readouterr().out


def test_a_backbone():
    found = breakdown.measure(breakdown.build('backbone/tiny-v3/forward', CPU, 32, 1, autocast=True), CPU, turns=1)
    assert found['operators']['mmmsvmamba::scan2d']['calls'] == 2 * 15  # two resolutions in each block
    assert sum(row['share'] for row in found['operators'].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    'args, message',
    [
        (['--cases', 'blok/*'], "no case matches 'blok/*'; the cases are block/tiny/forward"),
        (['--size', '16'], '--size must be at least 32 and --batch at least 1, got 16 and 1'),
        (['--out', 'no/such/folder/x.json'], 'there is no folder no/such/folder'),
    ],
    ids=['cases', 'size', 'out'],
)
def test_bad_arguments(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        breakdown.main(args)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
