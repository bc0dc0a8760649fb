"""A small UperNet on the embedded shapes, 1,500 iterations of 8 images: minutes on a CPU, from random weights.

A config based on this names the backbone and the channels of its four maps. The background counts as a class.
"""

_base_ = ['upernet.py', 'mmseg_runtime.py', 'shapes_schedule.py']

classes = ('background', 'disc', 'square', 'star', 'triangle')
palette = [(90, 90, 90), (230, 60, 60), (120, 200, 40), (40, 190, 220), (150, 70, 230)]
data_root = 'data/shapes/ADEChallengeData2016/'
data_source = '`python tools/make_shapes.py` draws it in a minute'

channels = 64
size = (128, 128)

model = dict(
    data_preprocessor=dict(size=size),
    decode_head=dict(channels=channels, num_classes=len(classes)),
    auxiliary_head=dict(channels=channels, num_classes=len(classes)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
# The scenes are PNG files, with masks like those of ADE20K: 0 is no class.
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    img_suffix='.png',
    seg_map_suffix='.png',
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # a scene loads in 2 ms: a worker process takes more from the two cores than it gives
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=1))
