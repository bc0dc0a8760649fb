"""VMamba-S (s2l15), ImageNet-1k, 300 epochs; 83.6 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm_small_0229_ckpt_epoch_222.pth'

model = dict(backbone=dict(type='VMamba', arch='small-s2l15', drop_path_rate=0.3), head=dict(in_channels=768))
