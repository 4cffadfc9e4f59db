"""A conformance kit for anybody's implementation: `python -m shared.conformance --impl NAME`.

The implementation runs in a separate process and is asked by lines of JSON, so that one in
Python and one in another language are the same to the runner, which imports no framework.
docs/conformance.md describes cases, verdicts and protocol.
"""
