"""The systems of `shared.spec` in PyTorch: `nn.Module`, NCHW, `torch.optim.Adam`."""

from shared.interface import require_framework

require_framework("pytorch")
