"""Ports for the tests of `shared.explain`: partial ones, and some that no convention explains."""

import dataclasses
from typing import Any

import numpy as np

from shared.interface import LossValues
from shared.reference.adapter import ReferenceImplementation, ReferenceState
from shared.reference.network import Arrays, Pass
from shared.reference.optimizers import adam_update
from shared.reference.step import Step
from shared.spec import SYSTEMS, AdamSpec, Conventions, NetworkName, SystemSpec


class LossesAlone:
    """A port of the loss functions and of nothing else."""

    name = "losses alone"

    def __init__(self, **deviation: object) -> None:
        self.reference = ReferenceImplementation(Conventions().replace(**deviation))

    def loss(self, loss: str, real_scores: np.ndarray, fake_scores: np.ndarray) -> LossValues:
        return self.reference.loss(loss, real_scores, fake_scores)


class GeneratorAlone:
    """A port of the generator: it takes what it needs of a state and leaves the rest."""

    name = "generator alone"

    def __init__(self, **deviation: object) -> None:
        self.reference = ReferenceImplementation(Conventions().replace(**deviation))
        self.create = self.reference.create
        self.import_state = self.reference.import_state
        self.generate = self.reference.generate


class AdamAlone:
    """A port of the optimizer."""

    name = "adam alone"

    def __init__(self, **deviation: object) -> None:
        self.conventions = Conventions().replace(**deviation)

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


class Float32Inside(ReferenceImplementation):
    """A port that rounds its images to float32."""

    name = "float32 inside"

    def generate(
        self, state: ReferenceState, latents: np.ndarray, *, training: bool = False
    ) -> np.ndarray:
        images = super().generate(state, latents, training=training)
        return images.astype(np.float32).astype(np.float64)


class EightBits(ReferenceImplementation):
    """A port whose images have 256 values, as those of files."""

    name = "eight bits"

    def generate(
        self, state: ReferenceState, latents: np.ndarray, *, training: bool = False
    ) -> np.ndarray:
        return np.round(127.5 * super().generate(state, latents, training=training)) / 127.5


class Dimmed(ReferenceImplementation):
    """A port whose images are a little brighter than they should be, in float64."""

    name = "dimmed"

    def generate(
        self, state: ReferenceState, latents: np.ndarray, *, training: bool = False
    ) -> np.ndarray:
        return 1.00001 * super().generate(state, latents, training=training)


class ForgetsEval(ReferenceImplementation):
    """A port whose generator is sampled in training mode; its discriminator is right."""

    name = "forgets eval"

    def generate(
        self, state: ReferenceState, latents: np.ndarray, *, training: bool = False
    ) -> np.ndarray:
        return super().generate(state, latents, training=True)

    def activations(self, *arguments: object, **options: object) -> Arrays:
        return {}


class HelperCalledAdam(ReferenceImplementation):
    """A port with a helper of its own that is called as a method of the interface."""

    name = "helper called adam"

    def adam(self, parameters: object) -> object:  # type: ignore[override]
        return parameters


class _OwnStep(Step):
    """A step whose D has scores of its own."""

    def forward(self, network: NetworkName, arrays: Arrays, x: np.ndarray, training: bool) -> Pass:
        run = super().forward(network, arrays, x, training)
        if network == "generator":
            return run
        return dataclasses.replace(run, output=np.arctan(run.output))


class OwnActivation(ReferenceImplementation):
    """A port whose D squashes its scores by an arctangent, and differentiates as if it did not."""

    name = "own activation"

    def discriminate(
        self, state: ReferenceState, images: np.ndarray, *, training: bool = False
    ) -> np.ndarray:
        return np.arctan(super().discriminate(state, images, training=training))

    def activations(self, *arguments: object, **options: object) -> Arrays:
        return {}

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        step = _OwnStep(state.spec, self.conventions).run(state.arrays, real_images, latents)
        state.arrays = step.arrays
        return step.metrics


class OwnBetaInD(ReferenceImplementation):
    """A port whose discriminator alone has another β₁."""

    name = "own beta in D"

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        both = Conventions(adam_beta1=0.9), Conventions()
        step = Step(state.spec, *both).run(state.arrays, real_images, latents)
        state.arrays = step.arrays
        return step.metrics


class OwnLatents(ReferenceImplementation):
    """A port whose step adds its own noise to the latents."""

    name = "own latents"

    def __init__(self) -> None:
        super().__init__()
        self.draw = np.random.default_rng(0)

    def _noisy(self, latents: np.ndarray) -> np.ndarray:
        return latents + 0.1 * self.draw.standard_normal(latents.shape)

    def gradients(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> Arrays:
        return super().gradients(state, real_images, self._noisy(latents))

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        return super().train_step(state, real_images, self._noisy(latents))


class OwnWeights(ReferenceImplementation):
    """A port that draws its initial weights from other streams, of another spread or not."""

    name = "own weights"

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float64") -> ReferenceState:
        state = super().create(spec, seed=seed + 1000, dtype=dtype)
        state.arrays = {name: self.spread * array for name, array in state.arrays.items()}
        return state


class ScaledGradient(ReferenceImplementation):
    """A port with a mistake that is in no catalogue: one layer's gradient is half."""

    name = "scaled gradient"

    def gradients(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> Arrays:
        found = super().gradients(state, real_images, latents)
        return found | {"discriminator/dense_2/kernel": 0.5 * found["discriminator/dense_2/kernel"]}


class BiasesAlone(ReferenceImplementation):
    """A port that returns the gradients of its biases and nothing else, in a wrong shape."""

    name = "biases alone"

    def __init__(self, shape: tuple[int, ...] = (-1,)) -> None:
        super().__init__()
        self.shape = shape

    def gradients(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> Arrays:
        found = super().gradients(state, real_images, latents)
        return {n: g.reshape(self.shape) for n, g in found.items() if n.endswith("/bias")}


class ForgetsAVariance(ReferenceImplementation):
    """A port that does not import one running variance."""

    name = "forgets a variance"

    def import_state(self, state: ReferenceState, arrays: Arrays) -> None:
        name = "generator/batch_norm_2/var"
        super().import_state(state, arrays | {name: np.ones_like(arrays[name])})


class Raises(ReferenceImplementation):
    """A port whose step does not run."""

    name = "raises"

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        raise RuntimeError("out of luck\nand more")


class WantsProbabilities(ReferenceImplementation):
    """A port without D's sigmoid, whose loss raises beyond 0 and 1 or has no number there."""

    name = "wants probabilities"

    def __init__(self, raises: bool) -> None:
        super().__init__(Conventions(discriminator_output="none"))
        self.raises = raises

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        metrics = super().train_step(state, real_images, latents)
        if not np.isnan(list(metrics.values())).any():
            return metrics
        if self.raises:
            raise RuntimeError("all elements of input should be between 0 and 1")
        return dict.fromkeys(metrics, np.nan)


class ForgetsATenth(ReferenceImplementation):
    """A port that keeps nine tenths of Adam's first moments after each update."""

    name = "forgets a tenth"

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        metrics = super().train_step(state, real_images, latents)
        state.arrays = {n: 0.9 * a if n.endswith("/m") else a for n, a in state.arrays.items()}
        return metrics


class CountsSteps(ReferenceImplementation):
    """A port that does something else at a state's third step."""

    steps = 0

    def create(self, *arguments: object, **options: object) -> ReferenceState:
        self.steps = 0
        return super().create(*arguments, **options)

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        self.steps += 1
        if self.steps == 3:
            self.before_step_three(state)
        return super().train_step(state, real_images, latents)

    def before_step_three(self, state: ReferenceState) -> None:
        raise NotImplementedError


class RaisesAtStepThree(CountsSteps):
    """A port with another beta whose third step does not run."""

    name = "raises at step three"

    def __init__(self) -> None:
        super().__init__(Conventions(adam_beta1=0.9))

    def before_step_three(self, state: ReferenceState) -> None:
        raise RuntimeError("out of luck")


class WrongAtStepThree(CountsSteps):
    """A port whose third step forgets Adam's counter."""

    name = "wrong at step three"

    def before_step_three(self, state: ReferenceState) -> None:
        state.arrays = state.arrays | {"generator_optimizer/step": np.array(0)}


implementation = LossesAlone(real_label=0.9)


class WithoutLoss(ReferenceImplementation):
    """Shows its losses in a step alone."""

    loss = None  # type: ignore[assignment]


class OfOneBatchSize(WithoutLoss):
    """Its step takes batches of 4 alone."""

    def train_step(
        self, state: ReferenceState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        if len(real_images) != 4:
            raise ValueError(f"expected 4 images, received {len(real_images)}")
        return super().train_step(state, real_images, latents)


def narrow(system: str = "dcgan64", **changes: Any) -> SystemSpec:
    width = 8 if system == "mlp28" else 2
    return SYSTEMS[system].replace(width=width, latent_dim=6, batch_size=4, **changes)
