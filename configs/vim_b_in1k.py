"""Vim-B, ImageNet-1k, 300 epochs; 81.9 top-1 as the authors report."""

_base_ = ['_base_/vim_in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://huggingface.co/hustvl/Vim-base-midclstok/resolve/main/vim_b_midclstok_81p9acc.pth'

# There is no script of the authors for this model: the drop path is ours.
model = dict(backbone=dict(arch='base', drop_path_rate=0.1), head=dict(in_channels=768))
