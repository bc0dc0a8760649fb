"""VMamba-B (s2l15), ImageNet-1k, 300 epochs; 83.9 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm_base_0229_ckpt_epoch_237.pth'

model = dict(backbone=dict(type='VMamba', arch='base-s2l15', drop_path_rate=0.6), head=dict(in_channels=1024))
