"""A run of several processes ends its process group itself."""

import pytest
import torch.distributed

from mmmsvmamba.engine import cli
from mmmsvmamba.engine.distributed import leave_processes
from mmmsvmamba.engine.errors import UserError


@pytest.fixture
def group(tmp_path):
    """A process group with one process."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_the_group_is_gone(group):
    """Left to the interpreter's end, its threads abort one process in some dozens."""
    leave_processes()
    assert not torch.distributed.is_initialized()
    leave_processes()  # nor does it mind that there is none


@pytest.mark.parametrize('fails', [False, True])
def test_a_command_that_worked_leaves_it(group, fails):
    """One that failed does not wait: the launcher stops the others."""

    def run(argv):
        if fails:
            raise UserError('no such thing')

    assert cli._command(run)([]) == int(fails)
    assert torch.distributed.is_initialized() == fails
