"""Says whether this environment can train and test: versions, compiled ops, the GPU, the implementation of the scan.

Exit code 0 if everything that is needed is there, else 1 with the commands to run.
"""

import importlib.util
import platform
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / 'requirements'


@dataclass(frozen=True)
class Package:
    """A package by its import name, with the distributions that bring it."""

    name: str
    original: str = ''  # distribution, if it is not called like the import
    fork: str = ''
    needed_for: str = ''  # nothing: always needed


PACKAGES = (
    Package('torch'),
    Package('torchvision'),
    Package('numpy'),
    Package('pycocotools'),
    Package('mmengine', fork='onedl-mmengine'),
    Package('mmcv', fork='onedl-mmcv'),
    Package('mmdet', fork='onedl-mmdetection'),
    Package('mmseg', original='mmsegmentation', fork='onedl-mmsegmentation', needed_for='segmentation'),
    Package('mmpretrain', fork='onedl-mmpretrain', needed_for='classification'),
)


@dataclass
class Report:
    """Rows for the table, problems that stop a run (each with what to do), and hints that do not."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def inspect() -> Report:
    """Looks at the installed packages without failing on what is missing."""
    report = Report([('python', platform.python_version(), sys.executable)])
    found = metadata.packages_distributions()
    installed = {package.name: sorted(set(found.get(package.name, ()))) for package in PACKAGES}
    originals = any(installed[name] == [name] for name in ('mmengine', 'mmcv'))
    for package in PACKAGES:
        _add_package(report, package, installed[package.name], originals)
    if installed['torch']:
        _add_kernels(report)
        if installed['mmcv'] and installed['mmengine']:
            _add_ops(report, installed['mmcv'][0])
    return report


def _add_package(report: Report, package: Package, distributions: list[str], originals: bool) -> None:
    if not distributions:
        use = f'only needed for {package.needed_for}' if package.needed_for else 'needed'
        report.rows.append((package.name, 'missing', use))
        name = package.fork if package.fork and not originals else package.original or package.name
        command = f'pip install --no-deps {_pinned(name, originals)}'
        if package.name == 'mmcv':
            command = f'pip install --no-build-isolation --no-deps {_pinned(name, originals)}'
        (report.hints if package.needed_for else report.problems).append(f'{package.name} is missing: {command}')
        return
    versions = ' and '.join(metadata.version(name) for name in distributions)
    if not package.fork:
        report.rows.append((package.name, versions, ''))
        return
    kind = ' and '.join(f'{name} ({"fork" if name == package.fork else "original"})' for name in distributions)
    report.rows.append((package.name, versions, kind))
    if len(distributions) > 1:
        report.problems.append(
            f'{package.name} was installed twice, one over the other: pip uninstall -y {" ".join(distributions)}, '
            f'then pip install --no-deps {_pinned(package.fork)}'
        )


def _add_kernels(report: Report) -> None:
    """The device and the scan, which need torch alone."""
    import torch

    if importlib.util.find_spec('mmmsvmamba') is None:
        report.rows.append(('mmmsvmamba', 'missing', 'needed'))
        report.problems.append(
            'mmmsvmamba is missing: pip install -e . --no-deps --no-build-isolation, in the folder of the repository'
        )
        return
    try:
        from mmmsvmamba import environment
        from mmmsvmamba.kernels import backend

        environment.check_versions()
    except (ImportError, RuntimeError) as error:
        report.rows.append(('mmmsvmamba', 'does not import', ''))
        report.problems.append(f'mmmsvmamba does not import: {error}')
        return
    report.rows.append(('mmmsvmamba', metadata.version('mmmsvmamba'), ''))
    devices = ['cpu']
    if torch.cuda.is_available():
        devices.append('cuda')
        report.rows.append(('GPU', torch.cuda.get_device_name(), f'CUDA {torch.version.cuda}'))
    else:
        report.rows.append(('GPU', 'none', f'torch is a {"CUDA" if torch.version.cuda else "CPU"} build'))
    for device in devices:
        name, _, why = backend.describe(device).partition(' ')
        report.rows.append((f'scan on {device}', name.rstrip(':'), why.strip('()')))
        if name == 'none:':
            (report.problems if device == 'cpu' else report.hints).append(f'no scan on {device}: {why}')


def _add_ops(report: Report, distribution: str) -> None:
    """Whether the compiled operators of mmcv load: plain `pip install` leaves them out without saying so."""
    try:
        import mmcv.ops  # noqa: F401
    except ImportError as error:
        report.rows.append(('mmcv.ops', 'not compiled', str(error)))
        version = metadata.version(distribution)
        report.problems.append(
            f'mmcv has no compiled operators ({error}): pip install --no-build-isolation --no-deps --force-reinstall '
            f'--no-cache-dir {distribution}=={version} (needs g++ and minutes)'
        )
    else:
        report.rows.append(('mmcv.ops', 'compiled', ''))


def _pinned(distribution: str, originals: bool = False) -> str:
    """`name==version` as the project is tested with beside the forks or the originals, or the bare name."""
    lock = REQUIREMENTS / f'lock-{"originals" if originals else "cpu"}-py311.txt'
    lines = lock.read_text().splitlines() if lock.is_file() else []
    return next((line for line in lines if line.lower().startswith(f'{distribution}==')), distribution)


def main() -> int:
    if importlib.util.find_spec('rich') is None:
        print(f'rich is missing: pip install {_pinned("rich")}, or the whole set: make env', file=sys.stderr)
        return 1
    from rich.console import Console
    from rich.table import Table

    report = inspect()
    table = Table('', 'version', 'remarks')
    for row in report.rows:
        table.add_row(*row)
    # Not wrapped when the output is a file: each command stays on one line.
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    for hint in report.hints:
        console.print(f'optional: {hint}', markup=False)
    for problem in report.problems:
        console.print(f'problem: {problem}', markup=False)
    if report.problems:
        console.print('`make env` makes an environment with everything needed, in .venv.')
    else:
        console.print('Everything needed is here.')
    return 1 if report.problems else 0


if __name__ == '__main__':
    sys.exit(main())
