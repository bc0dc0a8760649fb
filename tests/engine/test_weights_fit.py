"""Checkpoints that do not fit are refused before anything is written; those that fit pass."""

from pathlib import Path
from urllib.error import URLError

import published
import pytest
import torch
from tiny_data import SHAPES_CONFIG

from mmmsvmamba import MSVMamba
from mmmsvmamba.engine import cli, weights_fit
from mmmsvmamba.engine.building import build_model
from mmmsvmamba.engine.options import read_config
from mmmsvmamba.engine.scopes import SCOPES
from mmmsvmamba.loading import CheckpointError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each test runs in an empty folder and leaves it empty."""
    folder = tmp_path / 'here'
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert not list(folder.iterdir())


@pytest.fixture(scope='module')
def detector():
    """The state dict of the config's detector."""
    weights = build_model(read_config(SHAPES_CONFIG, None), SCOPES['mmdet']).state_dict()
    return {key: value for key, value in weights.items() if not key.endswith('num_batches_tracked')}


@pytest.fixture
def built(monkeypatch):
    """Stops a command that passed every check before it builds a runner."""
    monkeypatch.setattr(cli, '_build_runner', lambda cfg: (_ for _ in ()).throw(cli.UserError('all checks passed')))


def save(folder: Path, content) -> str:
    torch.save(content, folder / 'weights.pth')
    return str(folder / 'weights.pth')


def message(capsys, command, *arguments) -> str:
    assert command([SHAPES_CONFIG, *map(str, arguments)]) == 1
    return capsys.readouterr().err


def cut(weights: dict, part: str) -> dict:
    return {key: value for key, value in weights.items() if part not in key}


def test_test_refuses_a_file_without_heads(capsys, tmp_path, shapes, detector):
    file = save(tmp_path, dict(state_dict=cut(detector, 'bbox_head')))
    error = message(capsys, cli.test, file, '--data-root', shapes)
    assert '8 weights are missing: roi_head.bbox_head.fc_cls.weight' in error and file in error


def test_test_refuses_heads_of_other_shapes(capsys, tmp_path, shapes, detector):
    wrong = detector | {'roi_head.bbox_head.fc_cls.bias': torch.zeros(81)}
    error = message(capsys, cli.test, save(tmp_path, wrong), '--data-root', shapes)
    assert '1 have another shape: size mismatch for roi_head.bbox_head.fc_cls.bias' in error
    assert 'missing' not in error


def test_test_refuses_another_librarys_backbone(tmp_path, detector):
    cfg = read_config('configs/mask_rcnn_r18_shapes.py', None)
    rest = {key: value for key, value in detector.items() if not key.startswith('backbone.')}
    file = save(tmp_path, rest)
    with pytest.raises(CheckpointError, match='weights are missing: backbone.conv1.weight'):
        weights_fit.check_model_fits(cfg, SCOPES['mmdet'], file, weights_fit.read_checkpoint(file))


@pytest.mark.parametrize('form', ['plain', 'wrapped', 'with EMA and more'])
def test_test_takes_what_fits(capsys, tmp_path, shapes, detector, form, built):
    content = {
        'plain': detector,
        'wrapped': dict(state_dict={f'module.{key}': value for key, value in detector.items()}),
        'with EMA and more': dict(state_dict=detector | {'other.weight': torch.ones(1)}, ema_state_dict={}),
    }[form]
    assert 'all checks passed' in message(capsys, cli.test, save(tmp_path, content), '--data-root', shapes)


@pytest.mark.parametrize('content', [[1], torch.ones(2), {'state_dict': [1]}])
def test_files_that_hold_no_weights(capsys, tmp_path, shapes, content):
    error = message(capsys, cli.test, save(tmp_path, content), '--data-root', shapes)
    assert 'not weights by name' in error and 'weights.pth' in error


@pytest.mark.parametrize('way', ['--pretrained', 'load_from', 'whole model', 'prefix'])
def test_training_refuses_weights_of_another_architecture(capsys, tmp_path, shapes, way):
    weights = MSVMamba('micro').state_dict()
    file = save(tmp_path, weights if way == '--pretrained' else {f'backbone.{k}': v for k, v in weights.items()})
    init_cfg = ['type=Pretrained', f'checkpoint={file}']
    options = {
        '--pretrained': ['--pretrained', file],
        'load_from': ['--cfg-options', f'load_from={file}'],
        'whole model': ['--cfg-options', *(f'model.init_cfg.{option}' for option in init_cfg)],
        'prefix': ['--cfg-options', *(f'model.backbone.init_cfg.{o}' for o in [*init_cfg, 'prefix=backbone'])],
    }[way]
    error = message(capsys, cli.train, '--data-root', shapes, *options)
    assert 'do not fit this MSVMamba' in error and file in error


@pytest.mark.parametrize('whole', [False, True])
def test_training_takes_a_file_that_fits(capsys, tmp_path, shapes, detector, whole, built):
    file = save(tmp_path, detector if whole else MSVMamba('nano').state_dict())
    options = ['--cfg-options', f'load_from={file}'] if whole else ['--pretrained', file]
    assert 'all checks passed' in message(capsys, cli.train, '--data-root', shapes, *options)


@pytest.mark.parametrize('meta', [{}, {'meta': {}}, {'meta': {'epoch': 1}}])
def test_resume_needs_the_state_of_a_training(capsys, tmp_path, shapes, detector, meta):
    file = save(tmp_path, dict(state_dict=detector, **meta))
    error = message(capsys, cli.train, '--data-root', shapes, '--resume', file)
    assert 'holds weights only' in error and f'--pretrained {file}' in error


def test_resume_needs_every_weight_but_not_the_pretrained_ones(capsys, tmp_path, shapes, detector, built):
    meta = dict(epoch=0, iter=3)
    options = ['--data-root', shapes, '--pretrained', 'gone.pth', '--resume', tmp_path / 'weights.pth']
    save(tmp_path, dict(meta=meta, state_dict=detector))
    assert 'all checks passed' in message(capsys, cli.train, *options)
    save(tmp_path, dict(meta=meta, state_dict=cut(detector, 'mask_head')))
    assert 'weights are missing: roi_head.mask_head' in message(capsys, cli.train, *options)


@pytest.mark.parametrize('command', [cli.test, cli.train])
def test_a_checkpoint_is_read_once(capsys, tmp_path, shapes, detector, built, monkeypatch, command):
    read = []
    load = weights_fit.load_from_local_safely
    monkeypatch.setattr(weights_fit, 'load_from_local_safely', lambda *args: read.append(args[0]) or load(*args))
    file = save(tmp_path, dict(meta=dict(epoch=0, iter=3), state_dict=detector))
    arguments = [file] if command is cli.test else ['--resume', file]
    assert 'all checks passed' in message(capsys, command, *arguments, '--data-root', shapes)
    assert read == [file]


def test_urls_are_fetched_before_anything_is_written(capsys, tmp_path, shapes, monkeypatch):
    url = 'https://example.org/micro.pth'

    def unreachable(*args, **kwargs):
        raise URLError('no route')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', unreachable)
    error = message(capsys, cli.train, '--data-root', shapes, '--pretrained', url)
    assert url in error and 'no route' in error and '--pretrained PATH' in error and '--from-scratch' in error

    def download(url, target, progress):
        torch.save(MSVMamba('micro').state_dict(), target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    assert 'do not fit this MSVMamba' in message(capsys, cli.train, '--data-root', shapes, '--pretrained', url)


@published.needs_reference
def test_test_takes_a_published_detector(capsys, tmp_path, shapes, detector, built):
    backbone = {f'backbone.{key}': value for key, value in published.weights('nano', kind='backbone').items()}
    heads = {key: value for key, value in detector.items() if not key.startswith('backbone.')}
    file = save(tmp_path, dict(meta={}, state_dict=backbone | heads))
    assert 'all checks passed' in message(capsys, cli.test, file, '--data-root', shapes)
