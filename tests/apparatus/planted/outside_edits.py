"""How a mistake that no field of `Conventions` is gets into PyTorch's source."""

from tests.apparatus.planted.fault import Edit, Fault
from tests.apparatus.planted.faults_of_adam import torch_adam

STEP = "    loss.backward()\n    optimizer.step()\n"
MEAN = "return self.each(scores, label).mean()"
FIRST = "    first = next(state.network(name).parameters())\n"
_PARAMETERS = "    for p in [p for p in state.network(name).parameters() if p.grad is not None]:\n"
_BATCH_NORM = "        super().__init__(features, epsilon, momentum, dtype=dtype)\n"
_CHECK = "    def _check_input_dim("
NORM_OF_DCGAN = 'getattr(self, f"batch_norm_{i}")(x)'


def outside(name: str, file: str, *replaced: tuple[str, str] | tuple[str, str, int]) -> Fault:
    """Return a mistake that replaces texts of one file, each with how often it stands there."""
    return Fault(f"outside_{name}", {}, {"pytorch": tuple(Edit(file, *r) for r in replaced)})


def batch_norm(name: str, output: str) -> Fault:
    """Return one by other outputs of batch norm for its input `x`; `y` are the right ones."""
    forward = (
        f"    def forward(self, x: Tensor) -> Tensor:\n        y = super().forward(x)\n{output}\n"
    )
    return outside(name, "layers.py", (_CHECK, f"{forward}\n{_CHECK}"))


def statistics(name: str, change: str) -> Fault:
    """Return one by what follows each pass of batch norm in training."""
    hook = (
        "        def follow(module, inputs, output):\n            if module.training:\n"
        f"                {change}\n        self.register_forward_hook(follow)\n"
    )
    return outside(name, "layers.py", (_BATCH_NORM, _BATCH_NORM + hook))


def normalized(name: str, axes: str, *, mean: str = "", deviation: str = "") -> Fault:
    """Return one by other statistics of a batch of images in training."""
    mean = mean or "x.mean(axes, keepdim=True)"
    deviation = deviation or "((x - mean).square().mean(axes, keepdim=True) + self.eps).sqrt()"
    return batch_norm(
        name,
        "        if not self.training or x.ndim < 4:\n            return y\n"
        f"        axes = {axes}\n        mean = {mean}\n        deviation = {deviation}\n"
        "        weight, bias = self.weight[:, None, None], self.bias[:, None, None]\n"
        "        return (x - mean) / deviation * weight + bias",
    )


def gradients(name: str, change: str) -> Fault:
    """Return one by a change of every gradient `p.grad` of a parameter `p`."""
    changed = STEP.replace(
        "()\n    optim", f"()\n{_PARAMETERS}        p.grad = {change}\n    optim"
    )
    return outside(name, "train.py", (STEP, changed))


def before_update(name: str, change: str) -> Fault:
    """Return one by lines before an update of the network `name`."""
    changed = STEP.replace("()\n    optim", f"()\n{change}    optim")
    return outside(name, "train.py", (STEP, changed))


def weights(name: str, change: str) -> Fault:
    """Return one by a change in place of every parameter `p` after its update."""
    block = f"    with torch.no_grad():\n    {_PARAMETERS}            {change}\n"
    return outside(name, "train.py", (STEP, STEP + block))


def after_update(name: str, change: str) -> Fault:
    """Return one by lines after an update of the network `name`."""
    return outside(name, "train.py", (STEP, STEP + change))


def adam(name: str, update: str, **corrections: str) -> Fault:
    """Return one by another update of Adam's."""
    return Fault(f"outside_{name}", {}, {"pytorch": torch_adam(update=update, **corrections)})
