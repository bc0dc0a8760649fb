"""Evaluates a checkpoint and draws its predictions: python tools/test.py CONFIG CHECKPOINT [options]."""

import sys

from mmmsvmamba.engine.cli import test

if __name__ == '__main__':
    sys.exit(test())
