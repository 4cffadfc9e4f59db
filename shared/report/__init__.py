"""One self-contained HTML page about training runs, side by side: `python -m shared.report`.

`runs` reads the folders, `settings` compares what was set, `plots` and `grids` make the pictures,
`page` puts them together in the looks of `look`.
"""
