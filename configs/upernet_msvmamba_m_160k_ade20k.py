"""UperNet with MSVMamba-M (arXiv), ADE20K, 160,000 iterations."""

_base_ = ['_base_/upernet_160k_ade20k.py']

pretrained = 'checkpoints/vssm_micro_ms_e300.pth'
pretrained_source = (
    'https://drive.google.com/drive/folders/1jfl2GmuKcUB8sPwRlyHK_wT0MjqgljYk (save the file there under this name)'
)

model = dict(
    backbone=dict(
        arch='micro',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
