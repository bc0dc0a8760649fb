"""The programs of benchmarks/ import each other by bare names, as does what they send to other processes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
