"""The figures of results that are written down here, and the pictures that are drawn of them."""

import json

import figures
import matplotlib
import plot
import pytest


def passed(**found):
    return {'result': 'passed', 'seconds': 1.0, 'figures': found}


def grown(seconds, megabytes, images):
    return dict(seconds=seconds, growth_mb=megabytes, images=images)


RUN = {
    'machine': {'cpu': 'made up'},
    'cases': {
        'scan/full/L9': {'times_as_fast_as': {'ours': {'slow': 8.0, 'fast': 0.5}}, 'targets': {'slow': 5.0}},
    },
}
TASKS = {
    'cases': {
        'growth/backbone/forward/512': grown(0.4, 50, 1),
        'growth/backbone/forward/224': grown(0.1, -1, 1),
        'growth/backbone/forward/768': {'error': 'gone'},
        'detection/predict/8x8/batch1': grown(9.0, 9.0, 1),
    },
    'growth': {},
}
BREAKDOWN = {
    'breakdown': {
        'block/tiny/full': {'seconds': 2.0, 'operators': {'aten::mm': {'share': 0.75}, 'all others': {'share': 0.25}}}
    }
}
GPU = {
    'timings': {
        'time/copy': passed(bytes_per_second=4e12),
        'time/scan/forward/bfloat16': passed(seconds=1e-4, over_copy=0.7),
        'time/block/gate/forward': passed(seconds=1e-4, over_copy=0.9, times_as_fast_as_torch=2.0),
        'time/against/mambapy/L9': passed(times_as_fast_as={'ours': {'mambapy': 12.0}}, targets={}),
        'time/against/other/L9': {'result': 'skipped', 'reason': 'not installed'},
        'time/backbone/infer/eager/224/ours': passed(images=128, images_per_second=1500, growth_mb=1800),
        'time/breakdown/block/tiny/full': passed(operators={'aten::mm': {'share': 1.0}}),
        'time/growth/ours/train/224': passed(**grown(0.1, 800, 4)),
        'time/growth/ours/train/512': passed(**grown(0.8, 4000, 4)),
        'time/growth/ours/train/1024': {'result': 'not run'},
    }
}


def drawn(results):
    return {figure.name: figure.panels for figure in figures.figures(results)}


def test_ratios():
    (bars,) = drawn(RUN)['ratios-scan']
    assert bars.rows == {'full/L9: ours / slow': 8.0, 'full/L9: ours / fast': 0.5}
    assert bars.targets == {'full/L9: ours / slow': 5.0} and bars.ratios


def test_growth_leaves_out_what_failed_or_does_not_show():
    time, memory = drawn(TASKS)['growth-forward']
    assert time.series == {'backbone': [(224, 0.1), (512, 0.4)]}
    assert memory.series == {'backbone': [(512, 50)]}
    assert list(drawn(TASKS)) == ['growth-forward']


def test_shares_of_operators():
    (stacks,) = drawn(BREAKDOWN)['breakdown']
    assert stacks.rows == {'block/tiny/full': {'aten::mm': 0.75, 'all others': 0.25}}


def test_results_of_a_gpu():
    found = drawn(GPU)
    names = {'growth-train', 'ratios-block', 'ratios-against', 'share-of-copy', 'backbones', 'breakdown'}
    assert set(found) == names
    assert found['growth-train'][0].series == {'ours': [(224, 0.025), (512, 0.2)]}
    assert found['growth-train'][1].series == {'ours': [(224, 200), (512, 1000)]}
    assert found['share-of-copy'][0].rows == {'scan/forward/bfloat16': 0.7, 'block/gate/forward': 0.9}
    assert found['ratios-against'][0].rows == {'mambapy/L9: ours / mambapy': 12.0}
    assert found['ratios-block'][0].rows == {'gate/forward': 2.0}
    assert [panel.rows for panel in found['backbones']] == [{'infer/eager/224/ours': x} for x in (1500, 1800)]
    assert found['breakdown'][0].rows == {'block/tiny/full': {'aten::mm': 1.0}}


def test_every_figure_becomes_a_picture(tmp_path, capsys):
    paths = []
    for name, results in dict(run=RUN, tasks=TASKS, breakdown=BREAKDOWN, gpu=GPU).items():
        paths.append(tmp_path / f'{name}.json')
        paths[-1].write_text(json.dumps(results))
    plot.main([*map(str, paths), '--out', str(tmp_path / 'new' / 'pictures')])
    pictures = {path.name: path for path in (tmp_path / 'new' / 'pictures').iterdir()}
    assert len(pictures) == 1 + 1 + 1 + 6
    assert capsys.readouterr().out.split() == [str(path) for path in sorted(pictures.values(), key=order(paths))]
    for name, path in pictures.items():
        image = matplotlib.image.imread(path)
        assert 400 < image.shape[0] < 2000 and 900 < image.shape[1] < 2000, name
        blue = (abs(image[..., :3] - matplotlib.colors.to_rgb('tab:blue')) < 0.05).all(-1)
        assert blue.sum() > 200, f'{name}: no bar and no curve'


def order(paths):
    """In the order of the results, and of their figures."""
    stems = [path.stem for path in paths]
    wanted = [
        f'{stem}-{name}.png'
        for stem, results in zip(stems, (RUN, TASKS, BREAKDOWN, GPU), strict=True)
        for name in drawn(results)
    ]
    return lambda path: wanted.index(path.name)


@pytest.mark.parametrize(
    'text, message',
    [
        ('{"machine": {}, "sizes": {"8x8": {}}}', 'has nothing to draw; give results of run.py, tasks.py'),
        ('{"timings": {"time/copy": {"result": "skipped"}}}', 'has nothing to draw'),
        ('[1, 2]', 'has nothing to draw'),
        ('{', 'is no JSON'),
        (None, 'cannot be read'),
    ],
    ids=['other', 'skipped', 'list', 'broken', 'missing'],
)
def test_nothing_to_draw(text, message, tmp_path, capsys):
    good, bad = tmp_path / 'good.json', tmp_path / 'bad.json'
    good.write_text(json.dumps(RUN))
    if text is not None:
        bad.write_text(text)
    with pytest.raises(SystemExit) as stop:
        plot.main([str(good), str(bad), '--out', str(tmp_path / 'pictures')])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert str(bad) in error and message in error
    assert not (tmp_path / 'pictures').exists()


def test_results_of_one_name(tmp_path, capsys):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'cpu.json').write_text(json.dumps(RUN))
    with pytest.raises(SystemExit):
        plot.main([*(str(tmp_path / folder / 'cpu.json') for folder in 'ab'), '--out', str(tmp_path / 'pictures')])
    assert 'two results are named cpu' in capsys.readouterr().err
