"""MSVMamba-B (NeurIPS), ImageNet-1k, 300 epochs; 84.4 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/msvmambav3_base_224.pth'

model = dict(backbone=dict(arch='base-v3', drop_path_rate=0.5), head=dict(in_channels=1024))

optim_wrapper = dict(optimizer=dict(lr=6e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 600, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]
