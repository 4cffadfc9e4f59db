"""The results as text, tables, plots and a page."""
