"""A spec out of somebody's file: every field has its type and a size that can be meant."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from shared.spec.systems import AdamSpec, SystemSpec

MAXIMUM_SIZE = 2**20
"""Largest width, latent_dim and so on: a file that says more lies, and would fill the memory."""

_SIZES = ("channels", "width", "latent_dim", "batch_size", "discriminator_steps")
_DISTRIBUTIONS = ("normal", "uniform")


def stored_spec(fields: dict[str, Any]) -> SystemSpec:
    """Return the spec that `SystemSpec.to_dict` made JSON of; ValueError for anything else.

    Stricter than `SystemSpec.from_dict`, which takes a text for a range of two letters, and an
    optimizer without a field for one with the default.
    """
    spec = SystemSpec.from_dict(fields)
    if problems := [text for text, is_right in _rules(spec, fields).items() if not is_right]:
        raise ValueError(f"expected {'; '.join(problems)}; received {fields}")
    return spec


def _rules(spec: SystemSpec, fields: dict[str, Any]) -> dict[str, bool]:
    """Return what a spec has to be and whether it is."""
    optimizers = [
        n
        for adam in (spec.generator_optimizer, spec.discriminator_optimizer)
        for n in dataclasses.astuple(adam)
    ]
    names = ", ".join(field.name for field in dataclasses.fields(AdamSpec))
    return {
        "a printable name": isinstance(spec.name, str) and spec.name.isprintable(),
        f"{', '.join(_SIZES)} of at most {MAXIMUM_SIZE:,}": all(
            getattr(spec, name) <= MAXIMUM_SIZE for name in _SIZES
        ),
        f"latent_distribution {' or '.join(_DISTRIBUTIONS)}": (
            spec.latent_distribution in _DISTRIBUTIONS
        ),
        "image_range of two numbers, the lower one first": (
            len(spec.image_range) == 2
            and all(map(_is_number, spec.image_range))
            and spec.image_range[0] < spec.image_range[1]
        ),
        f"{names} in both optimizers, each a finite number": all(map(_is_number, optimizers)),
        "no field left out": json.loads(json.dumps(spec.to_dict())) == fields,
    }


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
