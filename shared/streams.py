"""The streams of `shared.spec`, by the name that adapters may import them under."""

from shared.spec.streams import *  # noqa: F403
