"""The memory of this process: on the host, and on a GPU."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import torch


def available(device: torch.device) -> int:
    """Bytes that a process may still take on a device without swapping."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    return _kilobytes(Path('/proc/meminfo'), 'MemAvailable') * 1024


class Peak:
    """The largest memory that this process holds from here on.

    Linux only, as the peak on the host is. It is not taken from `getrusage`: there a process starts with the peak of
    the one that started it. VmHWM starts from nothing, and is set back here to what is held now, so that importing and
    building, which take more for a moment than they keep, do not hide a smaller peak.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        Path('/proc/self/clear_refs').write_text('5')
        self.before = {'rss': _status('VmRSS')}
        if device.type == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self.before['allocated'] = torch.cuda.memory_allocated(device)

    def read(self) -> dict[str, float]:
        """Memory in MB (10⁶ bytes): resident on the host, and on a GPU what tensors and what torch's pool take."""
        peak = {'rss_before': self.before['rss'], 'rss_peak': _status('VmHWM')}
        if self.device.type == 'cuda':
            peak |= {
                'allocated_before': self.before['allocated'],
                'allocated_peak': torch.cuda.max_memory_allocated(self.device),
                'reserved_peak': torch.cuda.max_memory_reserved(self.device),
            }
        return {name: round(size / 1e6, 1) for name, size in peak.items()}


def _status(field: str) -> int:
    return _kilobytes(Path('/proc/self/status'), field) * 1024


def _kilobytes(file: Path, field: str) -> int:
    return int(re.search(rf'^{field}:\s*(\d+) kB$', file.read_text(), re.MULTILINE)[1])
