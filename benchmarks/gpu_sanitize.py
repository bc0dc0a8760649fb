"""Every kernel once, forward and backward, on small maps: what compute-sanitizer is to watch.

    compute-sanitizer --tool memcheck --error-exitcode 9 python benchmarks/gpu_sanitize.py
    TRITON_INTERPRET=1 MMMSVMAMBA_BACKEND=triton python benchmarks/gpu_sanitize.py --device cpu

Sizes are odd, so that every kernel has programs at an edge. It compares nothing: the checks do. Under the sanitizer all
is slow; PYTORCH_NO_CUDA_MEMORY_CACHING=1 gives every tensor memory of its own, where reads beyond its end are seen.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from gpu_behaviour import values
from gpu_compare import split
from gpu_values import OPERATORS, operator_inputs
from machine import usable_device
from scan_cases import Inputs, map_inputs, selective_inputs

from mmmsvmamba.kernels import backend, scan2d, selective_scan


def run(device: torch.device) -> list[str]:
    """Runs all; returns the names of what was run."""
    small = device.type == 'cpu'  # the interpreter takes milliseconds for every program
    size = dict(batch=1, height=2, width=3, channels=3) if small else dict(batch=2, height=7, width=5, channels=130)
    length = 5 if small else 37

    def moved(inputs: Inputs, dtype: torch.dtype) -> Inputs:
        return [None if x is None else x.to(device, dtype).requires_grad_() for x in inputs]

    done = []
    for d_state in (1, 16):
        for whether in (False, True):
            inputs = map_inputs(**size, groups=2, rank=2 if d_state == 1 else None, d_state=d_state)
            routes = partial(scan2d, routes=[2, 1, 3], group_sizes=[2, 1])
            sequences = selective_inputs(batch=1, channels=size['channels'], length=length, d_state=d_state)
            with split(whether):
                values(routes, moved(inputs, torch.bfloat16))
                values(partial(selective_scan, delta_softplus=True), moved(sequences, torch.float32))
            done += [f'{name}, {d_state} states, split {whether}' for name in ('scan2d', 'selective_scan')]
    for name, (function, *_) in OPERATORS.items():
        of_size = tuple(size[key] for key in ('batch', 'height', 'width', 'channels'))
        values(function, moved(operator_inputs(name, of_size, torch.float32), torch.bfloat16))
        done.append(name)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda', type=usable_device)
    args = parser.parse_args()
    chosen = backend.choose(args.device)
    if chosen != 'triton':
        parser.error(f'the kernels run on a GPU or in the interpreter, but here the {chosen} backend is chosen')
    print('ran ' + '; '.join(run(args.device)))


if __name__ == '__main__':
    main()
