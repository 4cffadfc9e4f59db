"""A discriminator that has won, or lost, for good: noticed by its loss, said in plain words."""

from __future__ import annotations

from collections.abc import Mapping

# By bce, right and on average 99.5 % sure of every image. Measured: dcgan64 of width 16 with
# --learning-rate 2e-4, where it wins (README), is below for 292 of 450 steps; 300 steps of the
# default dcgan64 and the default runs of conv28 and mlp28 never are (0.024, 0.93 and 0.069 at
# the least).
WON_BELOW = 0.01
CLAMP = 100.0  # what bce_probs makes of log(0), docs/losses.md
STEPS_IN_A_ROW = 100

_WON = (
    f"warning: the discriminator has won: its loss was under {WON_BELOW:g} at every step from "
    "{first} to {last}. It tells every image of the generator from a real one, so the generator "
    "learns next to nothing from it. More steps seldom help; start again without --learning-rate, "
    "whose default suits the width, with a larger --width{other} or with more images"
)
_CLAMPED = (
    f"warning: the discriminator is stuck: its loss was at {CLAMP:g}, which stands for log(0), at "
    "every step from {first} to {last}. It is certain about every image and wrong, and it is so "
    "certain that it has no slope left to learn by. Start again with a lower --learning-rate, or "
    "with --loss bce, which has no such ceiling"
)


class DiscriminatorWatch:
    """Counts the steps in a row in which the discriminator's loss is pinned; warns once."""

    def __init__(self, loss: str) -> None:
        self._other = "" if loss == "lsgan" else ", with --loss lsgan"
        self._has_clamp = loss == "bce_probs"
        self._won = self._clamped = 0
        self._warned = False

    def see(self, completed: int, values: Mapping[str, float]) -> str | None:
        """Take the METRIC_NAMES of the next step; return a warning when it is time for it."""
        halves = (values["discriminator_loss_real"], values["discriminator_loss_fake"])
        # A mean of a hundred times 100 need not be 100 to the last bit.
        clamped = self._has_clamp and max(halves) > 0.999 * CLAMP
        self._won = self._won + 1 if values["discriminator_loss"] < WON_BELOW else 0
        self._clamped = self._clamped + 1 if clamped else 0
        if self._warned or max(self._won, self._clamped) < STEPS_IN_A_ROW:
            return None
        self._warned = True
        text = _WON if self._won >= STEPS_IN_A_ROW else _CLAMPED
        first = completed - STEPS_IN_A_ROW + 1
        return text.format(first=first, last=completed, other=self._other)
