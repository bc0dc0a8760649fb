"""Checks of how models and kernels are run: images of many sizes, compilation, CUDA graphs, streams, devices, modes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import gpu_models
import torch
from gpu_behaviour import JOINED, assert_equal, moved, need_cuda, values
from gpu_compare import Errors, far
from gpu_values import OPERATORS, maps, operator_inputs, sequences
from jitted_kernels import jitted
from scan_cases import Inputs
from torch import Tensor, nn
from worker import Settings, Skip, Step

from mmmsvmamba.kernels import scan2d, selective_scan, triton_launcher

#: Heights and widths of images, one after the other, as a training at several scales has them.
IMAGE_SIZES = ((224, 224), (256, 256), (384, 320), (512, 288))
#: Variants that a size after the first may compile: what is divisible by 16 for one map is not for another.
NEW_VARIANTS = 3
#: Sums in another order; of the largest value.
TOLERANCE = 1e-4
#: MSVMamba's nano with a block in each stage.
ONE_BLOCK_EACH = dict(base='nano', depths=[1, 1, 1, 1])


def nano(settings: Settings) -> nn.Module:
    return gpu_models.make('msvmamba-nano', settings)


# ---- many sizes ----


def compiled_variants() -> dict[str, int]:
    """By name of the kernel, how many variants this process has compiled or loaded, for all devices."""
    # of what a kernel keeps for a device, compiled variants by their key come first
    counts = {x.fn.__name__: sum(len(kept[0]) for kept in x.device_caches.values()) for x in jitted()}
    return {name: count for name, count in counts.items() if count}


def image_sizes(settings: Settings) -> dict:
    """Training steps on images of four sizes: how many variants of kernels each size brings."""
    need_cuda(settings, 'the interpreter compiles nothing')
    return variants_by_size(nano(settings), settings.device, IMAGE_SIZES, NEW_VARIANTS)


def variants_by_size(
    model: nn.Module, device: torch.device, image_sizes: tuple[tuple[int, int], ...], most: int
) -> dict:
    # what earlier checks compiled in this process would not be counted; it is on disk
    for kernel in jitted():
        kernel.device_caches.clear()
    triton_launcher.forget()
    found, before = {}, {}
    for height, width in image_sizes:
        images = torch.randn(2, 3, height, width, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            y = model(images)
        torch.autograd.backward(y, [torch.ones_like(x) for x in y])
        now = compiled_variants()
        new = {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}
        found[f'{height}x{width}'], before = new, now
    first, *later = found
    if not found[first]:
        raise AssertionError('no kernel was compiled for the first size, so that this check would show nothing')
    wrong = [
        f'{size}: {sum(found[size].values())} ({found[size]})' for size in later if sum(found[size].values()) > most
    ]
    if wrong:
        raise AssertionError(f'more than {most} new variants for {"; ".join(wrong)}')
    return {'variants_of_the_first': sum(found[first].values()), 'new_variants': found}


# ---- compilation and graphs ----


def compiled(settings: Settings, part: str) -> dict:
    """A block or a backbone under torch.compile against itself, eagerly; values and all gradients."""
    # more blocks are more of the same code, and each takes the compiler seconds
    model = nano(settings) if settings.tiny else gpu_models.build(settings, 'MSVMamba', ONE_BLOCK_EACH)
    images = gpu_models.images_for(settings)
    if part == 'block':
        seen: list[Tensor] = []
        model, x = model.stages[0].blocks[0], model
        with model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach())), torch.no_grad():
            x(images)
        images = seen[0].contiguous()

    def run(function: Callable) -> dict[str, Tensor]:
        x = images.detach().requires_grad_()
        model.zero_grad(set_to_none=True)
        y = function(x)
        y = y if isinstance(y, tuple) else (y,)
        torch.autograd.backward(y, [torch.cos(torch.arange(m.numel(), device=m.device)).view_as(m) for m in y])
        found = {f'map {i}': m.detach() for i, m in enumerate(y)}
        return found | {'gradient of the input': x.grad} | gpu_models.gradients(model)

    backend = 'inductor' if settings.device.type == 'cuda' else 'aot_eager'
    torch._dynamo.reset()
    errors = Errors()
    with gpu_models.exact():
        expected, found = run(model), run(torch.compile(model, backend=backend))
    for name, value in expected.items():
        errors.add(name, far(found[name], value, float('inf')), TOLERANCE)
    return gpu_models.summary(errors) | {'backend': backend}


def graph_of_backbone(settings: Settings) -> dict:
    """A backbone's inference captured once and replayed on other images."""
    need_cuda(settings, 'a CPU has no CUDA graphs')
    model, device, errors = nano(settings).eval(), settings.device, Errors()
    images, others = (gpu_models.images_for(settings, seed) for seed in (0, 1))

    # a cache of cast weights would be filled inside the graph's memory
    @torch.inference_mode()
    def run(x: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return model(x)

    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(3):
            run(images)
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(images)
    for case, x in (('the same images', images.clone()), ('other images', others)):
        images.copy_(x)
        graph.replay()
        torch.cuda.synchronize(device)
        for i, (a, b) in enumerate(zip(found, run(x), strict=True)):
            # a captured matrix product may take another algorithm: a rounding in bfloat16
            errors.add(f'map {i}', far(a, b), 2**-7, case)
    return errors.figures()


# ---- streams, devices, modes ----


def operators(settings: Settings) -> dict[str, tuple[Callable[..., Tensor], Inputs]]:
    """Both scans and the block's operators, with inputs on the CPU."""
    small = settings.tiny
    size = (1, 3, 2, 3) if small else (2, 28, 28, 192)
    sizes = {} if small else dict(batch=2, height=28, width=28, channels=192)
    return {
        'scan2d': (partial(scan2d, **JOINED), maps(settings, **sizes)),
        'selective_scan': (selective_scan, sequences(settings, **({} if small else dict(length=784)))),
        **{name: (OPERATORS[name][0], operator_inputs(name, size, torch.float32)) for name in OPERATORS},
    }


def two_streams(settings: Settings) -> dict:
    """Forward and backward on two streams at once, over and over, against one alone: no memory is shared by mistake."""
    need_cuda(settings, 'a CPU has no streams')
    device, times, done = settings.device, 20, []
    for name, (function, cpu_inputs) in operators(settings).items():
        inputs = moved(cpu_inputs, device), moved([None if x is None else x * 0.5 for x in cpu_inputs], device)
        alone = [values(function, x) for x in inputs]
        streams = [torch.cuda.Stream(device) for _ in inputs]
        found: list[list[list[Tensor]]] = [[], []]
        torch.cuda.synchronize(device)
        for _ in range(times):
            for i, stream in enumerate(streams):
                with torch.cuda.stream(stream):
                    found[i].append(values(function, inputs[i]))
        torch.cuda.synchronize(device)
        for expected, of_stream in zip(alone, found, strict=True):
            for each in of_stream:
                assert_equal(each, expected, f'{name} on two streams')
        done.append(name)
    return {'operators': len(done), 'times': times}


def modes(settings: Settings) -> dict:
    """Inference mode, no_grad and a forward that keeps what the backward needs give the same bits."""
    runs = {name: (function, moved(x, settings.device)) for name, (function, x) in operators(settings).items()}
    for name, (function, inputs) in runs.items():
        # a gate may be overwritten where it wants no gradient
        def copies(inputs: Inputs = inputs) -> Inputs:
            return [None if x is None else x.detach().clone() for x in inputs]

        with torch.inference_mode():
            inference = function(*copies())
        with torch.no_grad():
            without = function(*copies())
        training = function(*inputs).detach()
        assert_equal([inference], [without], f'{name}, inference_mode against no_grad')
        assert_equal([without], [training], f'{name}, no_grad against training')
    return {'operators': len(runs)}


def modes_of_backbone(settings: Settings) -> dict:
    model, images = nano(settings).eval(), gpu_models.images_for(settings)
    with gpu_models.exact():
        with torch.inference_mode():
            inference = model(images)
        with torch.no_grad():
            without = model(images)
    assert_equal(inference, without, 'inference_mode against no_grad')
    return {'maps': len(without)}


def second_gpu(settings: Settings) -> dict:
    """Tensors on another GPU than the current one."""
    need_cuda(settings, 'a CPU is one device')
    if torch.cuda.device_count() < 2:
        raise Skip('needs two GPUs, and one is here')
    first = settings.device.index or 0
    second = torch.device('cuda', (first + 1) % torch.cuda.device_count())
    runs = operators(settings)
    for name, (function, cpu_inputs) in runs.items():
        with torch.cuda.device(first):
            there = values(function, moved(cpu_inputs, second))
            here = values(function, moved(cpu_inputs, torch.device('cuda', first)))
        assert all(x.device == second for x in there), f'{name}: a result left its device'
        names = (torch.cuda.get_device_name(i) for i in (first, second.index))
        if len(set(names)) == 1:
            assert_equal([x.cpu() for x in there], [x.cpu() for x in here], f'{name} on {second}')
    return {'operators': len(runs)}


#: How every model is run: these come before what is seldom met.
FIRST = [
    Step('run/image-sizes', image_sizes),
    Step('run/backbone/cuda-graph', graph_of_backbone),
]
CHECKS = [
    Step('run/modes', modes),
    Step('run/backbone/modes', modes_of_backbone),
    Step('run/two-streams', two_streams),
    *(Step(f'run/compile/{part}', partial(compiled, part=part), limit=150.0) for part in ('block', 'backbone')),
    Step('run/second-gpu', second_gpu),
]
