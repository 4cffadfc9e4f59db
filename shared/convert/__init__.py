"""Networks from one framework's file to another's: `python -m shared.convert`."""
