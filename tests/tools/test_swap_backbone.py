"""The command that swaps a backbone: what it writes, what it prints, what it refuses."""

from pathlib import Path

import pytest
from mmengine.config import Config
from tiny_data import REPOSITORY, run_tool

TOOL = REPOSITORY / 'tools/swap_backbone.py'
CONFIG = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'


@pytest.fixture(scope='module')
def swapped(tmp_path_factory):
    """The folder where the command ran, and what it printed."""
    folder = tmp_path_factory.mktemp('project')
    result = run_tool(TOOL, CONFIG, '--arch', 'nano', '--from-scratch', cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_prints_each_change_with_its_reason(swapped):
    _, output = swapped
    lines = output.splitlines()
    at = lines.index('- model.neck.in_channels = [64, 128, 256, 512]')
    assert lines[at - 1] == '# channels of the new backbone'
    assert lines[at + 1] == '+ model.neck.in_channels = [48, 96, 192, 384]'
    assert lines[-1].endswith('the new config is retinanet_r18_fpn_1x_coco_msvmamba_nano.py')


def test_the_new_config_stands_alone(swapped, tmp_path):
    folder, _ = swapped
    (file,) = folder.iterdir()
    assert '_base_ =' not in file.read_text()
    moved = tmp_path / 'elsewhere.py'
    moved.write_text(file.read_text())
    script = (
        'import sys, torch\n'
        'from mmengine.config import Config\n'
        'from mmdet.utils import register_all_modules\n'
        'from mmdet.registry import MODELS\n'
        'cfg = Config.fromfile(sys.argv[1])\n'  # custom_imports brings the backbone
        'register_all_modules()\n'
        'model = MODELS.build(cfg.model)\n'
        'print([len(level) for level in model(torch.zeros(1, 3, 64, 64))])\n'
    )
    # importing torchvision comes before custom_imports could help where it has no compiled operators
    result = run_tool('-c', f'import mmmsvmamba\n{script}', moved, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == '[5, 5]'


@pytest.mark.parametrize(
    'arguments, said',
    [
        (['nothing.py'], 'There is no config file nothing.py'),
        (['mmdet::retinanet/retinanet_r19_fpn_1x_coco.py'], 'near are retinanet/retinanet_r18_fpn_1x_coco.py'),
        (['mmnowhere::a.py'], 'mmnowhere is not installed'),
        ([CONFIG, '-o', 'new.yaml'], 'must end in .py'),
        ([CONFIG, '-o', 'nowhere/new.py'], 'there is no folder nowhere'),
        ([CONFIG, '-o', 'taken.py'], 'taken.py is there already'),
        ([CONFIG, '--pretrained', 'nothing.pth'], '--pretrained nothing.pth: there is no such file'),
        ([CONFIG, '--arch', 'tinny'], "did you mean 'tiny'"),
        ([CONFIG, '--drop-path-rate', '1.5'], 'drop_path_rate must lie in'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_refuses(arguments, said, tmp_path, monkeypatch, capsys):
    main = command()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'taken.py').write_text('a = 1\n')
    assert main([*arguments, *([] if '--arch' in arguments else ['--arch', 'nano'])]) == 1
    output = capsys.readouterr()
    assert said in output.err and not output.out
    assert [file.name for file in tmp_path.iterdir()] == ['taken.py']


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Config, 'dump', lambda self, file: Path('/proc/nothing').write_text('a = 1'))
    assert command()([CONFIG, '--arch', 'nano', '-o', str(tmp_path / 'new.py')]) == 1
    assert 'new.py cannot be written' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_config_that_does_not_survive_writing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Config, 'dump', lambda self, file: file.write_text('a = 1\n'))
    assert command()([CONFIG, '--arch', 'nano', '-o', str(tmp_path / 'new.py')]) == 1
    assert 'do not survive being written' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_force_and_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own.pth').touch()
    (tmp_path / 'new.py').write_text('a = 1\n')
    options = ['--arch', 'nano', '--pretrained', 'own.pth', '-o', 'new.py', '--force', '--drop-path-rate', '0.1']
    assert command()([CONFIG, *options]) == 0
    backbone = Config.fromfile('new.py').model.backbone
    assert backbone.init_cfg.checkpoint == str(tmp_path / 'own.pth')
    assert backbone.drop_path_rate == 0.1


def command():
    import importlib.util

    spec = importlib.util.spec_from_file_location('swap_backbone_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main
