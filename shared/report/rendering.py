"""Self-contained pages from the Jinja2 templates that reports and the benchmark's page share."""

import base64
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from shared.files.errors import printable

_COMMON = "shared.report"


def render(template: str, package: str = _COMMON, **values: Any) -> str:
    """Return a page made of a template of a package, which may extend and import those from here.

    Text is escaped, and what no terminal or editor should be given becomes \\x1b: only Markup goes
    into the page as it is. Raises jinja2.UndefinedError where the template needs another value.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(_COMMON)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"png_source": _png_source, "thousands": "{:,}".format}
    return environment.get_template(template).render(values)


def _png_source(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
