"""The reference with its Adam, for the kit: `--impl tests.conformance_reference`."""

from __future__ import annotations

import numpy as np

from shared.reference.adam import adam_update
from shared.reference.adapter import ReferenceImplementation
from shared.spec import AdamSpec


class ReferenceWithAdam(ReferenceImplementation):
    """Offers every method that the kit knows, in float64, under any conventions."""

    def adam(
        self,
        parameter: np.ndarray,
        gradient: np.ndarray,
        m: np.ndarray,
        v: np.ndarray,
        step: int,
        settings: AdamSpec,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return adam_update(parameter, gradient, (m, v), step, settings, self.conventions)


implementation = ReferenceWithAdam()
