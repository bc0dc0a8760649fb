"""What the README tells people to type exists."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
COMMANDS = [
    line for block in re.findall(r'```bash\n(.*?)```', README, re.S) for line in block.splitlines() if line.strip()
]


def test_readme_has_the_two_commands():
    assert COMMANDS[:2] == ['make demo', 'make test']


def test_make_targets_exist():
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
    named = set(re.findall(r'\bmake ([a-z-]+)\b', '\n'.join([*COMMANDS, *re.findall(r'`(make [a-z-]+)`', README)])))
    assert named and named <= set(targets)


def test_makefile_explains_every_target():
    text = (ROOT / 'Makefile').read_text()
    phony = re.search(r'^\.PHONY: (.*)$', text, re.M)[1].split()
    explained = re.findall(r'^# make ([\w-]+)', text, re.M)
    assert explained == [target for target in phony if target != 'clean']


@pytest.mark.parametrize(
    'path', sorted(set(re.findall(r'\b(?:tools|configs|docs|requirements)/[\w./-]+\.\w+\b', README)))
)
def test_paths_exist(path):
    assert (ROOT / path).exists()


def expand(pattern: str) -> list[str]:
    """The names that braces stand for, as in a shell."""
    names = [pattern]
    while any('{' in name for name in names):
        names = [
            name.replace(group[0], option, 1)
            for name in names
            for group in [re.search(r'\{([^}]*)\}', name)]
            for option in group[1].split(',')
        ]
    return names


def test_config_families_are_those_that_exist():
    named = {name for pattern in re.findall(r'configs/\w*\{[^`]+', README) for name in expand(pattern)}
    # those of the ablations are listed on their own page, which has a test
    paths = [path for path in (ROOT / 'configs').glob('*.py') if not re.search('shapes|^ablation', path.name)]
    assert named == {str(path.relative_to(ROOT)) for path in paths}


@functools.cache
def usage(script: str) -> str:
    arguments = [sys.executable, script, '--help']
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize('command', [c for c in COMMANDS if c.startswith('python tools/')])
def test_options_exist(command):
    script, *rest = command.split('#')[0].split()[1:]
    options = [word for word in rest if word.startswith('--')]
    assert [option for option in options if option not in usage(script)] == []


def test_python_blocks_run():
    import torch

    images = torch.rand(1, 3, 32, 32)
    blocks = re.findall(r'```python\n(.*?)```', README, re.S)
    assert len(blocks) == 4
    for block in blocks:
        scope = {'images': images}
        exec(block, scope)  # noqa: S102
        if 'backbone' in scope:
            assert [tuple(m.shape) for m in scope['maps']] == [
                (1, 48, 8, 8),
                (1, 96, 4, 4),
                (1, 192, 2, 2),
                (1, 384, 1, 1),
            ]
