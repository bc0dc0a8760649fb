"""`mmmsvmamba.kernels` is one package under one name, and needs torch alone."""

import ast
import sys

import pytest
from scan_cases import ROOT, run_python

SOURCES = sorted((ROOT / 'kernels').glob('*.py'))


def imports_triton(path):
    """Whether a source imports Triton at its top, itself or through its neighbours."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import) and any(name.name.partition('.')[0] == 'triton' for name in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.partition('.')[0] == 'triton':
            return True
        if isinstance(node, ast.ImportFrom):
            # `from .name import x`, `from . import name`
            names = [node.module] if node.module else [name.name for name in node.names]
            neighbours = [path.with_name(f'{name}.py') for name in names] if node.level else []
            if any(neighbour.exists() and imports_triton(neighbour) for neighbour in neighbours):
                return True
    return False


# makes `importlib` blind for packages, in the script and in everything that it imports
HIDE = """
class Hide:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

HIDDEN = {'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'triton'}
sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
"""


def test_a_second_name_is_refused():
    out = run_python(
        """
from pathlib import Path

def refused():
    try:
        import kernels
    except ImportError as error:
        return str(error)

print(refused())
import mmmsvmamba
import mmmsvmamba.kernels
print(refused())
folder = Path(mmmsvmamba.kernels.__file__).parent
print(*sorted(name for name, module in sys.modules.items()
              if getattr(module, '__file__', None) and Path(module.__file__).parent == folder))
print('kernels' in sys.modules)
""",
        ROOT,
    )
    before, after, copies, remains = out.splitlines()
    assert before == after == "import this package as mmmsvmamba.kernels, not as 'kernels'"
    # whatever needs Triton is imported when a GPU's tensors come
    names = [path.stem for path in SOURCES if path.stem != '__init__' and not imports_triton(path)]
    assert {path.stem for path in SOURCES} >= {'triton_scan', *names}
    assert copies.split() == sorted(['mmmsvmamba.kernels', *(f'mmmsvmamba.kernels.{name}' for name in names)])
    assert remains == 'False'


def test_runs_where_torch_is_all_there_is():
    out = run_python(
        HIDE
        + """
import mmmsvmamba.kernels as kernels
from scan_cases import map_inputs, with_gradients

assert not HIDDEN & {name.partition('.')[0] for name in sys.modules}
y, grads = with_gradients(lambda *x: kernels.scan2d(*x, [0, 3], [2]), map_inputs())
assert y.isfinite().all() and all(grad.isfinite().all() for grad in grads)
print(kernels.backend.choose('cpu'), tuple(y.shape))
""",
        ROOT / 'tests' / 'kernels',
    )
    assert out.strip() == 'torch (2, 3, 4, 2, 5)'


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.name)
def test_imports_only_torch_and_triton(path):
    allowed = {*sys.stdlib_module_names, 'torch', 'triton'}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {name.name.partition('.')[0] for name in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1  # no further up than this package
        elif isinstance(node, ast.ImportFrom):
            assert node.module.partition('.')[0] in allowed
