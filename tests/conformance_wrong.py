"""A port that left BN's epsilon at Keras' default: `--impl tests.conformance_wrong`."""

from __future__ import annotations

from shared.spec import Conventions
from tests.conformance_reference import ReferenceWithAdam

implementation = ReferenceWithAdam(Conventions(batch_norm_epsilon=1e-3))
