"""The systems of `shared.spec` in PyTorch: `nn.Module`, NCHW, `torch.optim.Adam`."""
