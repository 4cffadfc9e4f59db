"""Generic changes that no test on a CPU can fail on, each with why."""

SURVIVORS: dict[tuple[str, str, str], str] = {
    (
        "pytorch_impl/layers.py",
        "fused=True,",
        "True -> False",
    ): "Adam's fused kernel is for speed, its numbers are those of the loop",
}
"""File, text of the line, change → why it changes nothing that can be seen."""
