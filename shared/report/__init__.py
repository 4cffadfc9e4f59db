"""One self-contained HTML page about training runs, side by side: `python -m shared.report`."""
