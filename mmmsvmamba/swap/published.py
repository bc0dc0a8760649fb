"""The weights and drop paths that the published architectures are fine-tuned with."""

from __future__ import annotations

from dataclasses import dataclass

_DRIVE = 'https://drive.google.com/drive/folders/'
_VMAMBA = 'https://github.com/MzeroMiko/VMamba/releases/download/%23'
_HUB = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/'


@dataclass(frozen=True)
class Published:
    """What a published architecture starts from.

    Attributes:
        checkpoint: File or address of its ImageNet weights.
        source: Where to get the file and where to put it; None for an address.
        drop_path_rate: Of the detectors that build on it; for v3, of which no detector is published, ours, and for
            VMamba's s1l20 that of the classifier.
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
    'tiny-v0': Published(f'{_VMAMBA}v0cls/vssmtiny_dp01_ckpt_epoch_292.pth', None, 0.2),
    'small-v0': Published(f'{_VMAMBA}v0cls/vssmsmall_dp03_ckpt_epoch_238.pth', None, 0.2),
    'base-v0': Published(f'{_VMAMBA}v0cls/vssmbase_dp06_ckpt_epoch_241.pth', None, 0.2),
    'tiny-s2l5': Published(f'{_VMAMBA}v2cls/vssm_tiny_0230_ckpt_epoch_262.pth', None, 0.2),
    'small-s2l15': Published(f'{_VMAMBA}v2cls/vssm_small_0229_ckpt_epoch_222.pth', None, 0.3),
    'base-s2l15': Published(f'{_VMAMBA}v2cls/vssm_base_0229_ckpt_epoch_237.pth', None, 0.6),
    'tiny-s1l8': Published(f'{_VMAMBA}v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth', None, 0.2),
    'small-s1l20': Published(f'{_VMAMBA}v2cls/vssm1_small_0229s_ckpt_epoch_240.pth', None, 0.3),
    'base-s1l20': Published(f'{_VMAMBA}v2cls/vssm1_base_0229s_ckpt_epoch_225.pth', None, 0.5),
}
