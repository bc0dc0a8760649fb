"""The whole path once, on data it draws itself: data set, training, evaluation, pictures. python tools/demo.py"""

from __future__ import annotations

import argparse
import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmmsvmamba.datasets.shapes import PALETTE
from mmmsvmamba.engine.contact_sheet import draw_pairs, save, sheet

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = 'configs/mask_rcnn_msvmamba_n_shapes.py'
WORK_DIR = 'work_dirs/mask_rcnn_msvmamba_n_shapes'
DATA = REPOSITORY / 'data' / 'shapes' / 'coco'
#: What the same recipe gave with other backbones, measured once.
RECORDED = REPOSITORY / 'benchmarks' / 'results' / 'mask_rcnn_shapes.json'
COLUMNS = {'AP': '', 'AP50': '_50', 'AP75': '_75', 'AP_s': '_s', 'AP_m': '_m', 'AP_l': '_l'}


def run(*command: str) -> None:
    """Runs a step in the repository and shows it as a user would type it; stops the demo where a step fails."""
    print(f'\n$ python {shlex.join(command)}', flush=True)
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY)
    if done.returncode:
        sys.exit(f'the demo stopped: python {shlex.join(command)} ended with exit code {done.returncode}')


def last_metrics(work_dir: Path) -> dict[str, float]:
    """The figures of the newest evaluation in a work folder."""
    files = [file for file in work_dir.glob('*/*.json') if file.stem == file.parent.name]
    return json.loads(max(files, key=lambda file: file.stat().st_mtime).read_text())


def table(rows: dict[str, dict[str, float]]) -> Table:
    """One line for boxes and one for masks of each model; '-' where no object has that size."""
    result = Table('model', 'of', *COLUMNS, title='Mask R-CNN on 200 unseen scenes')
    for model, metrics in rows.items():
        for what, key in (('boxes', 'bbox'), ('masks', 'segm')):
            values = [metrics[f'coco/{key}_mAP{suffix}'] for suffix in COLUMNS.values()]
            result.add_row(model, what, *('-' if value < 0 else f'{value:.3f}' for value in values))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--iterations', type=int, help='train for fewer iterations, only to look at the path')
    parser.add_argument('--work-dir', default=WORK_DIR, help=f'where results go ({WORK_DIR})')
    args = parser.parse_args()
    work_dir = REPOSITORY / args.work_dir

    run('tools/make_shapes.py')
    short = []
    if args.iterations:
        short = ['--cfg-options', f'train_cfg.max_iters={args.iterations}', f'train_cfg.val_interval={args.iterations}']
    run('tools/train.py', CONFIG, '--work-dir', args.work_dir, *short)
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    predictions = work_dir / 'predictions.pkl'
    run('tools/test.py', CONFIG, checkpoint, '--work-dir', args.work_dir, '--out', str(predictions))

    results = pickle.loads(predictions.read_bytes())  # written by the step before
    pictures, few = work_dir / 'pictures', []
    annotations = DATA / 'annotations' / 'instances_val2017.json'
    for name, picture in draw_pairs(annotations, DATA / 'val2017', results, PALETTE):
        save(picture, pictures / name)
        few.append(picture)
    save(sheet(few[:6]), work_dir / 'predictions.png')
    rows = {'MSVMamba-N (this run)': last_metrics(work_dir)}
    rows |= {name: entry['metrics'] for name, entry in json.loads(RECORDED.read_text())['models'].items()}
    console = Console()
    console.print(table(rows))
    console.print(f'Every prediction beside its ground truth: {pictures}', soft_wrap=True)
    console.print(f'A few of them on one page: {work_dir / "predictions.png"}', soft_wrap=True)


if __name__ == '__main__':
    main()
