"""A conformance kit for anybody's implementation, in any language: see docs/conformance.md."""
