"""Keeps tests of Triton kernels out of this process: `test_triton_processes.py` runs them in processes of their own.

`interpreted/` needs TRITON_INTERPRET=1 before Triton is imported, `compiled/` the opposite and KERNELS_COMPILED=1.
"""

import os
import sys
from pathlib import Path

# the stand-in for a driver, which the benchmarks use too
sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))

collect_ignore = []
if os.environ.get('TRITON_INTERPRET') != '1':
    collect_ignore.append('interpreted')
elif os.environ.get('KERNELS_COMPILED'):
    raise RuntimeError('TRITON_INTERPRET=1 and KERNELS_COMPILED exclude each other; unset one of them')
if not os.environ.get('KERNELS_COMPILED'):
    collect_ignore.append('compiled')
