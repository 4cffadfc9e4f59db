"""One self-contained HTML page about training runs, side by side: `python -m shared.report`.

`runs` reads the folders, `settings` puts into words what was set, `plots` draws, `page` gives all
of it to the templates, which the benchmark's page shares (`rendering`).
"""
