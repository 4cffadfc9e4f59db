"""The reference for the kit, in float64: `--impl tests.conformance.reference`."""

from shared.reference.adapter import ReferenceImplementation

implementation = ReferenceImplementation()
