"""Networks that are recorded by themselves."""
