"""Mistakes that no field of `Conventions` is: `shared.explain` may locate them and never name one.

In PyTorch's source alone: what counts is that nothing in the vocabulary computes the same.
"""

from tests.apparatus.planted.fault import Edit, Fault
from tests.apparatus.planted.faults_of_adam import torch_adam
from tests.apparatus.planted.outside_networks import NETWORKS
from tests.apparatus.planted.outside_steps import STEPS

_LEAKY = "partial(F.leaky_relu, negative_slope=0.2, inplace=True)"
_MEAN = "return self.each(scores, label).mean()"
_STEP = "    loss.backward()\n    optimizer.step()\n"
_IN_GRADIENT = "    loss.backward()\n{}    optimizer.step()\n"
_BATCH_NORM = "        super().__init__(features, epsilon, momentum, dtype=dtype)\n"
_REAL = "loss_real = loss.discriminator_real(real_scores)"
_FAKE = "loss_fake = loss.discriminator_fake(fake_scores)"
_LOSSES = "return loss_real.detach(), loss_fake.detach(), "
_FIRST = "    first = next(state.network(name).parameters())\n"


def _outside(name: str, file: str, old: str, new: str) -> Fault:
    return Fault(f"outside_{name}", {}, {"pytorch": (Edit(file, old, new),)})


def _batch_norm(name: str, output: str) -> Fault:
    forward = f"\n    def forward(self, x: Tensor) -> Tensor:\n        {output}\n"
    return _outside(name, "layers.py", _BATCH_NORM, _BATCH_NORM + forward)


def _gradient(name: str, change: str) -> Fault:
    return _outside(name, "train.py", _STEP, _IN_GRADIENT.format(change))


def _after_step(name: str, change: str) -> Fault:
    return _outside(name, "train.py", _STEP, _STEP + change)


OUTSIDE = (
    _outside("elu", "fast.py", _LEAKY, "F.elu"),
    _outside("bent_leaky", "fast.py", _LEAKY, "lambda x: F.leaky_relu(x, 0.2) + 1e-3 * x**2"),
    _outside("softened_leaky", "fast.py", _LEAKY, "lambda x: 0.2 * x + 0.8 * F.softplus(x)"),
    _outside("shifted_leaky", "fast.py", _LEAKY, "lambda x: F.leaky_relu(x - 0.01, 0.2)"),
    _batch_norm("scaled_output", "return 1.01 * super().forward(x)"),
    _batch_norm("noise_free_dropout", "return super().forward(x) * (x > -1.0)"),
    _batch_norm("clipped_activations", "return super().forward(x).clamp(-2.0, 2.0)"),
    _outside("focal", "losses.py", _MEAN, "return self.each(scores, label).square().mean()"),
    _outside("median", "losses.py", _MEAN, "return self.each(scores, label).median()"),
    _outside("worst_of_batch", "losses.py", _MEAN, "return self.each(scores, label).max()"),
    _outside("score_penalty", "losses.py", _MEAN, f"{_MEAN} + 1e-3 * scores.square().mean()"),
    _outside(
        "half_of_real_learnt", "train.py", "loss_real + loss_fake)", "loss_real / 2 + loss_fake)"
    ),
    _outside("half_of_real", "train.py", _REAL, f"{_REAL} / 2"),
    _outside("twice_fake_of_sum", "train.py", _FAKE, f"{_FAKE} * 2 * len(fake_scores)"),
    _outside(
        "halves_reported_halved",
        "train.py",
        _LOSSES,
        "return loss_real.detach() / 2, loss_fake.detach() / 2, ",
    ),
    _outside(
        "other_half_reported",
        "train.py",
        _LOSSES,
        "return loss_fake.detach(), loss_real.detach(), ",
    ),
    _outside(
        "hinge", "losses.py", _MEAN, "return F.relu(1.0 - (2.0 * label - 1.0) * scores).mean()"
    ),
    _gradient("one_layer_scaled", f"{_FIRST}    first.grad *= 0.5\n"),
    _gradient("one_layer_frozen", f"{_FIRST}    first.grad *= 0.0\n"),
    _gradient(
        "signs_of_gradients",
        "    for p in state.network(name).parameters():\n"
        "        p.grad = None if p.grad is None else p.grad.sign() * 1e-3\n",
    ),
    _gradient(
        "centred_gradients",
        "    for p in state.network(name).parameters():\n"
        "        p.grad = None if p.grad is None else p.grad - p.grad.mean()\n",
    ),
    _after_step(
        "clipped_weights",
        "    with torch.no_grad():\n"
        "        for p in state.network(name).parameters():\n"
        "            p.clamp_(-0.5, 0.5)\n",
    ),
    _after_step(
        "averaged_weights",
        f"    with torch.no_grad():\n    {_FIRST}        first.mul_(0.999)\n",
    ),
    Fault(
        "outside_root_of_three",
        {},
        {"pytorch": torch_adam(update="m / correction1 / ((v / correction2) ** 0.45 + epsilon)")},
    ),
    Fault(
        "outside_largest_moment",
        {},
        {"pytorch": torch_adam(update="m / (v.max().sqrt() + epsilon)")},
    ),
    _outside(
        "variances_shrink",
        "layers.py",
        "super().__init__(features, epsilon, momentum, dtype=dtype)\n",
        "super().__init__(features, epsilon, momentum, dtype=dtype)\n"
        "        def shrink(module, inputs, output):\n"
        "            if module.training:\n                module.running_var.data.mul_(0.99)\n"
        "        self.register_forward_hook(shrink)\n",
    ),
    *NETWORKS,
    *STEPS,
)
"""Deviations of forward passes, losses, gradients, updates and statistics."""
