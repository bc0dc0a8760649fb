"""What the command lines of the benchmarks check alike."""

from __future__ import annotations

import argparse


def check_out_and_threads(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where `--out` has no folder to go to, or `--threads` is no number of threads."""
    if args.out is not None and not args.out.parent.is_dir():
        parser.error(f'there is no folder {args.out.parent} for the results')
    if args.threads is not None and args.threads < 1:
        parser.error(f'--threads must be at least 1, got {args.threads}')
