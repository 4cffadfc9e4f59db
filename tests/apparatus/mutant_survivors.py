"""Generic changes that no test on a CPU can fail on, each with why."""

SURVIVORS: dict[tuple[str, str, str], str] = {
    (
        "pytorch_impl/layers.py",
        "fused=True,",
        "True -> False",
    ): "Adam's fused kernel is for speed, its numbers are those of the loop",
    (
        "pytorch_impl/checkpoint.py",
        "for name, network in zip(NETWORKS, networks, strict=True)",
        "True -> False",
    ): "both are two",
}
"""File, text of the line, change → why it changes nothing that can be seen."""
