"""What a pass costs the CPU, ours beside Swin-T: the code of the benchmark, not its figures."""

import json

import launch_cost
import pytest

pytest.importorskip('triton', '3.3', reason='the launches of Triton kernels are counted where Triton is installed')

RIVAL = 'swin-t (mmpretrain)'


@pytest.mark.parametrize('grad', [False, True])
def test_models_take_turns(grad):
    found = launch_cost.measure(['msvmamba-t', RIVAL], grad=grad, turns=1)
    assert all(0 < row['least_ms'] <= row['median_ms'] for row in found.values())
    # seven a block in a forward pass: convolutions, two scans, two norms of the merge, gate, feed-forward network
    assert found['msvmamba-t']['launches'] == 14 * (7 + (10 if grad else 0))
    assert found[RIVAL]['launches'] == 0


def test_results_are_written(tmp_path, capsys):
    out = tmp_path / 'out.json'
    launch_cost.main(['--models', 'vim-t', RIVAL, '--turns', '1', '--out', str(out)])
    results = json.loads(out.read_text())
    for mode in ('inference', 'training'):
        row, rival = results[mode]['vim-t'], results[mode][RIVAL]
        assert row['over_swin'] == pytest.approx(row['least_ms'] / rival['least_ms'])
    assert capsys.readouterr().out.count('× Swin-T') == 2
