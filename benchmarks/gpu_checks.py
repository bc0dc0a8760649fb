"""All checks of the kernels on a device, the most telling first: where time runs out, the last ones are missed."""

import gpu_behaviour
import gpu_values

CHECKS = [*gpu_values.CHECKS, *gpu_behaviour.CHECKS]
