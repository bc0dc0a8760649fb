"""Times the benchmark cases and compares ours with the others.

    python benchmarks/run.py --cases 'scan/forward/*' --threads 2 --out scan.json

The contenders of a case take turns in one process, so that a busy machine slows all of them alike, and the best time of
each counts. Where mambapy is installed (`pip install --no-deps -r requirements/bench.txt`) it takes part.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from pathlib import Path

import backbone_speed  # noqa: F401  registers its cases
import families  # noqa: F401
import scan_patterns  # noqa: F401
import scan_speed  # noqa: F401
import torch
import vim_deit  # noqa: F401
from arguments import check_out_and_threads
from machine import describe, usable_device
from registry import CASES
from turns import measure, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', default='*', metavar='PATTERN', help='shell pattern of case names (default: all)')
    parser.add_argument('--list', action='store_true', help='print the names of the cases and stop')
    parser.add_argument('--device', default='cpu', type=usable_device)
    parser.add_argument('--threads', type=int, help='threads of torch on a CPU (default: all cores)')
    parser.add_argument('--seconds', type=float, default=20.0, help='about how long a case may take (default: 20)')
    parser.add_argument('--note', help='goes into the results: what else the machine was doing, for example')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='where the results go')
    args = parser.parse_args()

    names = fnmatch.filter(CASES, args.cases)
    if not names:
        parser.error(f'no case matches {args.cases!r}; the cases are {", ".join(CASES)}')
    if args.list:
        print('\n'.join(names))
        return
    check_out_and_threads(parser, args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    results = {'machine': describe(args.device), 'note': args.note, 'cases': {}}
    for name in names:
        results['cases'][name] = measure(CASES[name], args.device, args.seconds)
        print(report(name, results['cases'][name]), flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(results, indent=2) + '\n')
    if any(result['missed'] for result in results['cases'].values()):
        sys.exit('some targets are missed')


if __name__ == '__main__':
    main()
