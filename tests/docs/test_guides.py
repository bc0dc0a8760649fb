"""docs/own_data.md, followed line by line: its configs are saved under the names they bear, its commands are run."""

import re
import shlex

import pytest
from tiny_data import REPOSITORY, run_tool

GUIDE = (REPOSITORY / 'docs/own_data.md').read_text()
#: What makes the runs short; the guide's own numbers take minutes.
SHORT = {
    'my_detector': ['epochs=1', 'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=4'],
    'my_segmentor': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2'],
}
FEW = ['train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'val_dataloader.dataset.indices=2']


def section(title: str) -> str:
    return re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', GUIDE, re.M | re.S)[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', text, re.S)


@pytest.mark.slow
@pytest.mark.parametrize(
    'title, name, checkpoint',
    [
        ('Boxes and masks in COCO format', 'my_detector', ('epoch_6', 'epoch_1')),
        ('Label maps for segmentation', 'my_segmentor', ('iter_300', 'iter_2')),
    ],
    ids=['coco', 'masks'],
)
def test_followed_line_by_line(title, name, checkpoint, tmp_path):
    text = section(title)
    [config] = blocks(text, 'python')
    assert config.startswith(f'# {name}.py\n')
    (tmp_path / f'{name}.py').write_text(config)
    for folder in ('configs', 'tools'):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    commands = [shlex.split(line) for block in blocks(text, 'bash') for line in block.splitlines()]
    assert [command[:2] for command in commands] == [
        ['python', 'tools/make_shapes.py'],
        ['python', 'tools/train.py'],
        ['python', 'tools/test.py'],
    ]
    for _, tool, *arguments in commands:
        line = shlex.join(arguments).replace(*checkpoint)
        arguments = shlex.split(line.replace('--train 200 --val 40', '--train 8 --val 2'))
        if 'make_shapes' not in tool:
            arguments += ['--cfg-options', *FEW, *SHORT[name], 'test_dataloader.num_workers=0']
        result = run_tool(REPOSITORY / tool, *arguments, cwd=tmp_path, timeout=300)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert list((tmp_path / 'pictures' / name).rglob('*.png')) or list((tmp_path / 'pictures' / name).rglob('*.jpg'))
