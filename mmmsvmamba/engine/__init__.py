"""What a training run needs and mmengine lacks: checks before it starts, a progress bar, guards while it runs."""
