"""Trains a detector, a segmentor or a classifier: python tools/train.py CONFIG [options]."""

import sys

from mmmsvmamba.engine.cli import train

if __name__ == '__main__':
    sys.exit(train())
