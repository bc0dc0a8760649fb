"""The weights and drop paths that the published architectures are fine-tuned with."""

from __future__ import annotations

from dataclasses import dataclass

_DRIVE = 'https://drive.google.com/drive/folders/'
_HUB = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/'


@dataclass(frozen=True)
class Published:
    """What a published architecture starts from.

    Attributes:
        checkpoint: File or address of its ImageNet weights.
        source: Where to get the file and where to put it; None for an address.
        drop_path_rate: Of the detectors that build on it; for v3, of which no detector is published, ours.
    """

    checkpoint: str
    source: str | None
    drop_path_rate: float


def _from_drive(name: str, folder: str) -> Published:
    return Published(f'checkpoints/{name}', f'{_DRIVE}{folder} (save the file there under this name)', 0.2)


PUBLISHED = {
    'nano': _from_drive('vssm_nano_ms_e300.pth', '1J41w3ApitQhp2O3wHmJoOs4U032uqebK'),
    'micro': _from_drive('vssm_micro_ms_e300.pth', '1jfl2GmuKcUB8sPwRlyHK_wT0MjqgljYk'),
    'tiny': _from_drive('vssm_tiny_ms_e300.pth', '1ddNWk89ohcxxMuVEaJ2Y5A6xeBKgA7lU'),
    'tiny-v3': Published(f'{_HUB}msvmambav3_tiny_224.pth', None, 0.2),
    'small-v3': Published(f'{_HUB}msvmambav3_small_224.pth', None, 0.3),
    'base-v3': Published(f'{_HUB}msvmambav3_base_224.pth', None, 0.5),
}
