"""Pieces of work whose time and memory are known, for the tests of what measures them in another process."""

import os
import signal
import time

import torch
from registry import Work

MEGABYTE = 10**6


def allocating(device: torch.device, megabytes: int) -> Work:
    """Holds so much while it runs, after twice as much was held, and given back, while it was built."""
    earlier = torch.ones(2 * megabytes * MEGABYTE, dtype=torch.uint8)
    del earlier

    def run():
        time.sleep(0.05)
        return torch.ones(megabytes * MEGABYTE, dtype=torch.uint8, device=device)

    return Work(run, images=4, pixels=2 * MEGABYTE, about={'gflops': 0.0})


def failing(device: torch.device) -> Work:
    raise RuntimeError(f'no work for {device}')


def dying(device: torch.device) -> Work:
    return Work(lambda: os.kill(os.getpid(), signal.SIGKILL), images=1, pixels=1)
