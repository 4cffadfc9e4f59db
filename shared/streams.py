"""The streams of `shared.spec`, by the name that adapters may import them under."""

from shared.spec.streams import batch_order, initial_state, latents, stream

__all__ = ["batch_order", "initial_state", "latents", "stream"]
