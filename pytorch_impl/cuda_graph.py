"""A whole training step as one CUDA graph: a launch per step instead of hundreds.

Below a batch of some 256 images a large GPU waits for Python to launch kernels; a graph is recorded
once and replayed (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CapturedStep"]

WARM_UP_STEPS = 3  # so that no library allocates or chooses an algorithm while it is recorded

Step = Callable[[Tensor, Tensor], dict[str, Tensor]]


class CapturedStep:
    """Replays a step on inputs of the shapes it was recorded with.

    `restore` puts the training state back to where it was before the warm-up, in place: the graph
    holds the addresses of its tensors.
    """

    def __init__(
        self, step: Step, real_images: Tensor, latents: Tensor, restore: Callable[[], None]
    ) -> None:
        self._real_images, self._latents = real_images.clone(), latents.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                step(self._real_images, self._latents)
        torch.cuda.current_stream().wait_stream(stream)
        restore()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._metrics = step(self._real_images, self._latents)

    def __call__(self, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Make the step; raises ValueError for inputs of other shapes."""
        if (real_images.shape, latents.shape) != (self._real_images.shape, self._latents.shape):
            raise ValueError(
                "mode cudagraph takes the shapes of its first step, "
                f"{tuple(self._real_images.shape)} and {tuple(self._latents.shape)}; received "
                f"{tuple(real_images.shape)} and {tuple(latents.shape)}"
            )
        self._real_images.copy_(real_images)
        self._latents.copy_(latents)
        self._graph.replay()
        return {name: value.clone() for name, value in self._metrics.items()}
