"""Our losses beside PyTorch's own, called as documented: the tables of docs/losses.md."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytorch_impl.losses import LOSSES
from shared.interface import Array
from shared.studies.accuracy import Results
from tests.studies.stock_losses import WRITTEN_OUT, Formula, make_formulas

Function = Callable[[Tensor, float], Tensor]  # scores, target → loss of each score


def _module(kind: Any) -> Function:
    return lambda x, y: kind(reduction="none")(x, torch.full_like(x, y))


_bce = _module(nn.BCELoss)
_mse = _module(nn.MSELoss)
FUNCTIONS: dict[tuple[str, str], Function] = {
    ("bce", "F.softplus(±x)"): lambda x, y: F.softplus(-x if y else x),
    ("bce", WRITTEN_OUT): (
        lambda x, y: F.relu(-x if y else x) + torch.log1p(torch.exp(-torch.abs(x)))
    ),
    ("bce", "BCEWithLogitsLoss"): _module(nn.BCEWithLogitsLoss),
    ("bce", "BCELoss(sigmoid(x))"): lambda x, y: _bce(torch.sigmoid(x), y),
    ("bce_probs", "-log(p), -log(1 - p)"): lambda p, y: -torch.log(p if y else 1 - p),
    ("lsgan", "0.5 * MSELoss"): lambda x, y: 0.5 * _mse(x, y),
}


def _eager(function: Function, x: Array, target: float, dtype: str) -> Results:
    scores = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    values = function(scores, target).to(scores.dtype)
    (gradients,) = torch.autograd.grad(values, scores, torch.ones_like(values))
    return values.detach().double().numpy(), gradients.double().numpy()


def loss_formulas() -> list[Formula]:
    """Return every formula under every way of running it, in the order of the tables."""
    return make_formulas("pytorch", LOSSES, FUNCTIONS, {"eager": _eager})
