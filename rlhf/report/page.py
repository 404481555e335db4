"""What all pages have in common: where their parts lie, how they are filled and how written."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import jinja2


def asset(name: str) -> str:
    """A file that lies beside this one: a template, style or script."""
    return resources.files("rlhf.report").joinpath(name).read_text(encoding="utf-8")


def environment() -> jinja2.Environment:
    """Escapes everything that a template does not mark, and fails on a name that it was not given."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write(path: Path, page: str) -> Path:
    """Replace a page in one move."""
    draft = path.with_suffix(".html.part")
    # Model output may hold lone surrogates, which UTF-8 cannot; they become visible escapes.
    draft.write_text(page, encoding="utf-8", errors="backslashreplace")
    os.replace(draft, path)
    return path
