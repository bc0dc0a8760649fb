"""Vim-S with overlapping patches, ImageNet-1k, 30 epochs on top of stride 16; 81.6 top-1 as the authors report.

The paper's long-sequence fine-tuning: stride, epochs, learning rate and weight decay are its. That no path is dropped
and the learning rate stays constant is in the authors' script. The rest is that of the training before.
"""

_base_ = ['_base_/vim_in1k.py']

# The authors' file of this model, for tools/test.py:
published = 'https://huggingface.co/hustvl/Vim-small-midclstok/resolve/main/vim_s_midclstok_ft_81p6acc.pth'
# Where it starts: backbone and head; position embeddings are interpolated from 14 × 14 patches to 27 × 27.
pretrained = 'https://huggingface.co/hustvl/Vim-small-midclstok/resolve/main/vim_s_midclstok_80p5acc.pth'

model = dict(
    backbone=dict(arch='small-stride8', drop_path_rate=0.0),
    head=dict(in_channels=384),
    init_cfg=dict(type='Pretrained', checkpoint=pretrained),
)

optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=1e-8))
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=True, begin=0, end=30)]
train_cfg = dict(max_epochs=30)
