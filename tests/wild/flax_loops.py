"""Loops of JAX in JAX: stock layers of Flax, losses and optimizers of Optax.

Written twice, as such loops are: with flax.linen and an adapter by hand, and with NNX behind
`ModulePair`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from jax_impl.module_pair import ModulePair
from shared.interface import METRIC_NAMES, Array, Arrays
from shared.spec import NETWORKS, SYSTEMS, Layer, NetworkName, SystemSpec, optimizer_name
from tests.wild.case import AdapterCase
from tests.wild.loops import custom

_CROSS_ENTROPY = optax.sigmoid_binary_cross_entropy


def _padding(own: Layer) -> str:
    return "SAME" if own.padding else "VALID"


def _without_weights(own: Layer, x: Any, slope: float) -> Any:
    match own.kind:
        case "leaky_relu":
            return jax.nn.leaky_relu(x, slope)
        case "reshape":
            return x.reshape(-1, *own.output_shape)
        case "flatten":
            return x.reshape(x.shape[0], -1)
    return getattr(jax.nn, own.kind)(x)


class Linen(nn.Module):
    """A network as flax.linen writes it; a conv-transpose's kernel is its own: turned round."""

    layers: tuple[Layer, ...]
    options: Any
    slope: float = 0.2

    @nn.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        for own in self.layers:
            has_bias = any(p.name == "bias" for p in own.parameters)
            match own.kind:
                case "conv" | "conv_transpose":
                    kind = nn.Conv if own.kind == "conv" else nn.ConvTranspose
                    strides = (own.stride, own.stride)
                    x = kind(
                        own.output_shape[-1],
                        (4, 4),
                        strides,
                        _padding(own),
                        use_bias=has_bias,
                        name=own.name,
                        param_dtype=x.dtype,
                    )(x)
                case "dense":
                    x = nn.Dense(own.output_shape[-1], name=own.name, param_dtype=x.dtype)(x)
                case "batch_norm":
                    own_options = dict(self.options)
                    x = nn.BatchNorm(not train, name=own.name, param_dtype=x.dtype, **own_options)(
                        x
                    )
                case _:
                    x = _without_weights(own, x, self.slope)
        return x


@dataclass
class State:
    spec: SystemSpec
    variables: dict[str, Any]
    opt: dict[str, Any]
    modules: dict[str, Linen]
    step: Callable[..., Any]
    dtype: str


@dataclass
class Loop:
    """A step of flax.linen's, and what its networks and optimizers have of their own."""

    step: Callable[..., Any]
    batch_norm: tuple[tuple[str, float], ...] = ()
    adam: dict[str, float] = field(default_factory=lambda: {"b1": 0.5})
    slope: float = 0.2
    transform: Callable = optax.adam

    def optimizer(self, spec: SystemSpec, name: NetworkName) -> optax.GradientTransformation:
        rate = getattr(spec, f"{name}_optimizer").learning_rate
        return self.transform(**{"learning_rate": rate} | self.adam)


class ByHand:
    """An adapter as one writes it: what the loop itself has, and no more."""

    loop: Loop
    name = "a loop of JAX"

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> State:
        with jax.enable_x64(dtype == "float64"):
            modules = {
                n: Linen(spec.layers(n), self.loop.batch_norm, self.loop.slope) for n in NETWORKS
            }
            inputs = (
                jnp.zeros((2, spec.latent_dim), dtype),
                jnp.zeros((2, *spec.image_shape), dtype),
            )
            shapes = dict(zip(("generator", "discriminator"), inputs, strict=True))
            variables = {n: modules[n].init(jax.random.key(seed), shapes[n]) for n in NETWORKS}
            txs = {n: self.loop.optimizer(spec, n) for n in NETWORKS}
            opt = {n: txs[n].init(variables[n]["params"]) for n in NETWORKS}
            step = jax.jit(partial(self.loop.step, modules, txs))
            return State(spec, variables, opt, modules, step, dtype)

    def _pieces(self, state: State, name: NetworkName) -> dict[str, tuple[Any, ...]]:
        """Canonical name → where it lies."""
        places = {}
        for layer in state.spec.layers(name):
            for p in layer.parameters:
                collection = "params" if p.trainable else "batch_stats"
                places[f"{name}/{layer.name}/{p.name}"] = (collection, layer.name, p.name)
        return places

    def _turned(self, name: str, array: Any) -> Any:
        if "conv_transpose" in name and "/kernel" in name:
            return np.flip(array, (0, 1)).swapaxes(2, 3)
        return array

    def import_state(self, state: State, arrays: Arrays) -> None:
        with jax.enable_x64(state.dtype == "float64"):
            for net in NETWORKS:
                flat, mu, nu = {}, {}, {}
                for name, place in self._pieces(state, net).items():
                    flat[place] = jnp.asarray(self._turned(name, arrays[name]), state.dtype)
                    if place[0] == "params":
                        for held, moment in ((mu, "m"), (nu, "v")):
                            own = arrays[optimizer_name(name, moment)]
                            held[place[1:]] = jnp.asarray(self._turned(name, own), state.dtype)
                state.variables[net] = unflatten_dict(flat)
                count = jnp.asarray(int(arrays[f"{net}_optimizer/step"]), jnp.int32)
                new = {"count": count, "mu": unflatten_dict(mu), "nu": unflatten_dict(nu)}
                state.opt[net] = tuple(
                    part._replace(**new) if hasattr(part, "mu") else part for part in state.opt[net]
                )

    def export_state(self, state: State) -> Arrays:
        found = {}
        for net in NETWORKS:
            flat = flatten_dict(state.variables[net])
            adam = next(part for part in state.opt[net] if hasattr(part, "mu"))
            mu, nu = flatten_dict(adam.mu), flatten_dict(adam.nu)
            for name, place in self._pieces(state, net).items():
                found[name] = self._turned(name, np.array(flat[place]))
                if place[0] == "params":
                    found[optimizer_name(name, "m")] = self._turned(name, np.array(mu[place[1:]]))
                    found[optimizer_name(name, "v")] = self._turned(name, np.array(nu[place[1:]]))
            found[f"{net}_optimizer/step"] = np.array(int(adam.count))
        return found

    def _run(self, state: State, net: NetworkName, x: Array, training: bool) -> Array:
        with jax.enable_x64(state.dtype == "float64"):
            own = state.variables[net]
            if training:
                y, _ = state.modules[net].apply(own, jnp.asarray(x), mutable=["batch_stats"])
            else:
                y = state.modules[net].apply(own, jnp.asarray(x), train=False)
            return np.array(y)

    def generate(self, state: State, latents: Array, *, training: bool = False) -> Array:
        return self._run(state, "generator", latents, training)

    def discriminate(self, state: State, images: Array, *, training: bool = False) -> Array:
        return self._run(state, "discriminator", images, training).reshape(-1)

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        with jax.enable_x64(state.dtype == "float64"):
            given = jnp.asarray(real_images), jnp.asarray(latents)
            state.variables, state.opt, losses = state.step(state.variables, state.opt, *given)
            real, fake, generator = map(float, losses)
        return dict(zip(METRIC_NAMES, (real + fake, real, fake, generator), strict=True))


# --- steps with flax.linen ----------------------------------------------------------------------


def _apply(module: Any, params: Any, stats: Any, x: Any) -> tuple[Any, Any]:
    y, new = module.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
    return y, new["batch_stats"]


def _updated(tx: Any, grads: Any, opt: Any, params: Any) -> tuple[Any, Any]:
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt


def usual(modules: Any, txs: Any, variables: Any, opt: Any, real: Any, z: Any) -> Any:
    """D on real and fake, then G through the new D, whose statistics that pass does not move."""
    g, d = modules["generator"], modules["discriminator"]
    gv, dv = variables["generator"], variables["discriminator"]
    fake, g_stats = _apply(g, gv["params"], gv["batch_stats"], z)

    def d_loss(params: Any) -> Any:
        real_logits, stats = _apply(d, params, dv["batch_stats"], real)
        fake_logits, stats = _apply(d, params, stats, fake)
        real_loss = _CROSS_ENTROPY(real_logits, jnp.ones_like(real_logits)).mean()
        fake_loss = _CROSS_ENTROPY(fake_logits, jnp.zeros_like(fake_logits)).mean()
        return real_loss + fake_loss, (stats, real_loss, fake_loss)

    (_, (d_stats, real_loss, fake_loss)), grads = jax.value_and_grad(d_loss, has_aux=True)(
        dv["params"]
    )
    d_params, d_opt = _updated(txs["discriminator"], grads, opt["discriminator"], dv["params"])

    def g_loss(params: Any) -> Any:
        fake, stats = _apply(g, params, gv["batch_stats"], z)
        logits, _ = _apply(d, d_params, d_stats, fake)
        return _CROSS_ENTROPY(logits, jnp.ones_like(logits)).mean(), stats

    (loss, g_stats), grads = jax.value_and_grad(g_loss, has_aux=True)(gv["params"])
    g_params, g_opt = _updated(txs["generator"], grads, opt["generator"], gv["params"])
    variables = {
        "generator": {"params": g_params, "batch_stats": g_stats},
        "discriminator": {"params": d_params, "batch_stats": d_stats},
    }
    return variables, {"generator": g_opt, "discriminator": d_opt}, (real_loss, fake_loss, loss)


def generator_first(modules: Any, txs: Any, variables: Any, opt: Any, real: Any, z: Any) -> Any:
    """G on new latents, then D on halves whose mean is its loss (bkkaggle, giganttheo)."""
    g, d = modules["generator"], modules["discriminator"]
    gv, dv = variables["generator"], variables["discriminator"]
    batch = len(real)

    def g_loss(params: Any) -> Any:
        fake, stats = _apply(g, params, gv["batch_stats"], z[batch:])
        logits, d_stats = _apply(d, dv["params"], dv["batch_stats"], fake)
        return _CROSS_ENTROPY(logits, jnp.ones_like(logits)).mean(), (stats, d_stats)

    (loss, (g_stats, d_stats)), grads = jax.value_and_grad(g_loss, has_aux=True)(gv["params"])
    g_params, g_opt = _updated(txs["generator"], grads, opt["generator"], gv["params"])
    fake, g_stats = _apply(g, g_params, g_stats, z[:batch])

    def d_loss(params: Any) -> Any:
        real_logits, stats = _apply(d, params, d_stats, real)
        fake_logits, stats = _apply(d, params, stats, fake)
        real_loss = _CROSS_ENTROPY(real_logits, jnp.ones_like(real_logits)).mean() / 2
        fake_loss = _CROSS_ENTROPY(fake_logits, jnp.zeros_like(fake_logits)).mean() / 2
        return real_loss + fake_loss, (stats, real_loss, fake_loss)

    (_, (d_stats, real_loss, fake_loss)), grads = jax.value_and_grad(d_loss, has_aux=True)(
        dv["params"]
    )
    d_params, d_opt = _updated(txs["discriminator"], grads, opt["discriminator"], dv["params"])
    variables = {
        "generator": {"params": g_params, "batch_stats": g_stats},
        "discriminator": {"params": d_params, "batch_stats": d_stats},
    }
    return variables, {"generator": g_opt, "discriminator": d_opt}, (real_loss, fake_loss, loss)


# --- the same with NNX --------------------------------------------------------------------------


class Nnx(nnx.Module):
    """A network as NNX writes it."""

    def __init__(self, layers: tuple[Layer, ...], slope: float, **options: float) -> None:
        rngs, self.slope, self.own = nnx.Rngs(0), slope, layers
        made = []
        for own in layers:
            has_bias = any(p.name == "bias" for p in own.parameters)
            shape = next((p.shape for p in own.parameters if p.name == "kernel"), ())
            match own.kind:
                case "conv":
                    sizes = shape[2], shape[3], (4, 4), own.stride
                    made.append(
                        nnx.Conv(*sizes, padding=_padding(own), use_bias=has_bias, rngs=rngs)
                    )
                case "conv_transpose":
                    sizes = shape[3], shape[2], (4, 4), own.stride
                    made.append(
                        nnx.ConvTranspose(
                            *sizes, padding=_padding(own), use_bias=has_bias, rngs=rngs
                        )
                    )
                case "dense":
                    made.append(nnx.Linear(*shape, rngs=rngs))
                case "batch_norm":
                    made.append(nnx.BatchNorm(own.output_shape[-1], **options, rngs=rngs))
        self.made = nnx.List(made)

    def __call__(self, x: Any) -> Any:
        made = iter(self.made)
        for own in self.own:
            x = next(made)(x) if own.parameters else _without_weights(own, x, self.slope)
        return x


@nnx.jit
def simultaneous(g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any) -> Any:
    """Both gradients from the same networks, then both updates."""
    fake = g(z)

    def d_loss(d: Any) -> Any:
        real_logits, fake_logits = d(real), d(fake)
        parts = (
            _CROSS_ENTROPY(real_logits, jnp.ones_like(real_logits)).mean(),
            _CROSS_ENTROPY(fake_logits, jnp.zeros_like(fake_logits)).mean(),
        )
        return sum(parts), parts

    def g_loss(g: Any, d: Any) -> Any:
        logits = d(g(z))
        return _CROSS_ENTROPY(logits, jnp.ones_like(logits)).mean()

    (_, parts), d_grads = nnx.value_and_grad(d_loss, has_aux=True)(d)
    loss, g_grads = nnx.value_and_grad(g_loss)(g, d)
    d_adam.update(d, d_grads)
    g_adam.update(g, g_grads)
    return *parts, loss


def by_pair(spec: SystemSpec) -> ModulePair:
    """A pair with a learning rate and a momentum of batch norm of its own."""
    networks = [Nnx(spec.layers(name), 0.01, momentum=0.8) for name in NETWORKS]
    adams = [nnx.Optimizer(network, optax.adam(1e-3), wrt=nnx.Param) for network in networks]
    return ModulePair(*networks, *adams, latent_shape=(spec.latent_dim,), step=simultaneous)


def by_hand(loop: Loop) -> type:
    return type("Port", (ByHand,), {"loop": loop})


FLAX = {
    "initializer": "flax_default",
    "batch_norm_momentum": 0.01,
    "batch_norm_running_variance": "biased",
    "leaky_relu_gradient_at_zero": "one",
}
NOT_THREADED = {"batch_norm_statistics": "not_in_generator_step"}

LOOPS = (
    AdapterCase(
        "none: a DCGAN in flax.linen",
        "Flax' batch norm, D's statistics not threaded through G's step",
        by_hand(Loop(usual)),
        FLAX | NOT_THREADED,
        system="dcgan64",
    ),
    AdapterCase(
        "none: the same with stock defaults and AdamW",
        "and Flax' slope, Optax' betas and decay",
        by_hand(Loop(usual, adam={}, slope=0.01, transform=optax.adamw)),
        FLAX
        | NOT_THREADED
        | {"leaky_relu_slope": 0.01, "adam_beta1": 0.9, "adam_decoupled_decay": 1e-4},
        system="dcgan64",
    ),
    AdapterCase(
        "bkkaggle/jax-gans and giganttheo/GAN-JAX",
        "G first, on new latents; D's average",
        by_hand(Loop(generator_first, (("momentum", 0.9), ("epsilon", 1e-4)))),
        {
            "initializer": "flax_default",
            "batch_norm_epsilon": 1e-4,
            "batch_norm_running_variance": "biased",
            "discriminator_loss_scale": 0.5,
            "update_order": "generator_first",
        },
        system=custom(norm_everywhere=True, generator_batch="new_latents"),
    ),
    AdapterCase(
        "none: a DCGAN in NNX",
        "both networks from the same old ones, Optax' betas, a rate and a momentum of its own",
        by_pair,
        FLAX
        | {
            "leaky_relu_slope": 0.01,
            "batch_norm_momentum": 0.2,
            "generator_batch": "same_latents",
            "update_order": "simultaneous",
            "generator_learning_rate": 1e-3,
            "discriminator_learning_rate": 1e-3,
            "adam_beta1": 0.9,
        },
        system=SYSTEMS["dcgan64"].replace(image_size=32),  # 64 take twice as long
    ),
)
