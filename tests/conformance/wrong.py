"""A port that left BN's epsilon at Keras' default: `--impl tests.conformance.wrong`."""

from shared.reference.adapter import ReferenceImplementation
from shared.spec import Conventions

implementation = ReferenceImplementation(Conventions(batch_norm_epsilon=1e-3))
