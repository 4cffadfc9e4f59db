"""Untrusted files: every reader of the project against thousands of damaged and lying inputs.

`python -m tests.apparatus.fuzz [--reader NAME] [--count 2000] [--seed S] [--log FILE]`. Each input
is read right, or refused by one clear error that names the file; all else is a FAULT with the
command that makes the same input again.
"""
