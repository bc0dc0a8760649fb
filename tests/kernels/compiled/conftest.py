"""Lets releases of Triton compile for AMD that bring no linker of their own (3.3 and 3.4), where none is installed.

What is tested is the text of the machine code, which is there before anything is linked. A command that does nothing
takes the linker's place, and the binary stays empty.
"""

import os
import shutil
from pathlib import Path

from triton._C.libtriton import amd

LINKERS = ('/opt/rocm/llvm/bin/ld.lld', '/usr/bin/ld.lld')

if not hasattr(amd, 'link_hsaco') and not any(Path(linker).is_file() for linker in LINKERS):
    os.environ.setdefault('TRITON_HIP_LLD_PATH', shutil.which('true'))
