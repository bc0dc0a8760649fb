"""How a network learns the embedded shapes from random weights: 1,500 iterations; the batch is the model's own."""

iterations = 1500
warm_up = 60

train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warm_up),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False, begin=warm_up, end=iterations),
]

# The weights that are evaluated and saved are a running average of the trained ones.
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01, priority='ABOVE_NORMAL')]
