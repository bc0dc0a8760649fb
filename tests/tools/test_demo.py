"""The demo's own parts; its steps are the tools, which have tests of their own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location('demo', ROOT / 'tools' / 'demo.py')
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)


def metrics(value):
    return {f'coco/{kind}_mAP{suffix}': value for kind in ('bbox', 'segm') for suffix in demo.COLUMNS.values()}


def test_newest_evaluation_is_read(tmp_path):
    for i, name in enumerate(('20260102_000000', '20260101_000000')):
        file = tmp_path / name / f'{name}.json'
        file.parent.mkdir()
        file.write_text(json.dumps({'value': i}))
        os.utime(file, (1000 + i, 1000 + i))
    (tmp_path / '20260101_000000' / 'other.json').write_text('{"value": 9}')
    assert demo.last_metrics(tmp_path) == {'value': 1}


def test_table_shows_absent_sizes_as_dashes():
    values = metrics(0.25) | {'coco/bbox_mAP_l': -1.0}
    columns = list(demo.table({'a': values}).columns)
    assert [list(column.cells) for column in columns[2:]] == [['0.250'] * 2] * 5 + [['-', '0.250']]


def test_recorded_comparison_has_every_column():
    recorded = json.loads(demo.RECORDED.read_text())['models']
    assert 'ResNet-18 (recorded)' in recorded
    for entry in recorded.values():
        assert set(metrics(0)) <= set(entry['metrics'])


def test_failing_step_stops_the_demo():
    with pytest.raises(SystemExit, match=r'tools/train.py .* exit code 1'):
        demo.run('tools/train.py', 'configs/no_such_config.py')


def test_help():
    shown = subprocess.run([sys.executable, ROOT / 'tools' / 'demo.py', '--help'], capture_output=True, text=True)
    assert shown.returncode == 0 and '--iterations' in shown.stdout
