"""All checks of the kernels on a device, the most telling first: where time runs out, the last ones are missed.

Single kernels at every route come first, then whole models, for what is wrong there decides; then what models give the
kernels, how they are run, whole detectors, and what is seldom met.
"""

import gpu_arguments
import gpu_behaviour
import gpu_models
import gpu_running
import gpu_sanitize_steps
import gpu_training
import gpu_values

FIRST = gpu_values.CHECKS[:4]
CHECKS = [
    *FIRST,
    *gpu_models.CHECKS,
    *gpu_running.FIRST,
    *gpu_arguments.CHECKS,
    *gpu_values.CHECKS[len(FIRST) :],
    *gpu_training.CHECKS,
    *gpu_running.CHECKS,
    *gpu_sanitize_steps.CHECKS,
    *gpu_behaviour.CHECKS,
]
