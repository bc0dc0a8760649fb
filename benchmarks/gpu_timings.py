"""All timings on a device, in the order of what they decide: where time runs out, the last ones are missed."""

import gpu_backbones
import gpu_kernels
import gpu_peer
import gpu_settings
import gpu_training
import torch

TIMINGS = [
    *gpu_kernels.COPY,
    *gpu_kernels.SCANS[torch.bfloat16],
    *gpu_backbones.TURNS,
    *gpu_backbones.CPU_TIME,
    *gpu_kernels.BLOCK,
    *gpu_backbones.BREAKDOWN,
    *gpu_backbones.GROWTH,
    *gpu_training.TIMINGS,
    *gpu_peer.TIMINGS,
    *gpu_kernels.PEERS,
    *gpu_kernels.SCANS[torch.float32],
    *gpu_settings.TIMINGS,
    *gpu_kernels.COMPILED_PEERS,
    *gpu_backbones.LATE,
]
