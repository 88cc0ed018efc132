"""The prompts, one `.j2` file each, and the one way to load them.

Templates are rendered in Jinja's sandbox with StrictUndefined, so a missing variable is an error and data can
never reach Python objects. Values are inserted as they are and never rendered again: a `{{ … }}` in a dataset's
text stays text. A template's hash is part of every request's stage key.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from potstill.errors import OptionError
from potstill.options import nearest


class Prompt:
    """One prompt template.

    Attributes:
        name: File name without `.j2`.
        source: Text of the file.
        sha256: Hash of the text, in hex.
    """

    def __init__(self, name: str, source: str):
        self.name = name
        self.source = source
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._template = _environment().from_string(source)

    def render(self, **variables: Any) -> str:
        """The prompt's text. Raises `jinja2.UndefinedError` for a variable that is not given."""
        return self._template.render(**variables).strip()

    def __repr__(self) -> str:
        return f"Prompt({self.name!r}, sha256={self.sha256[:8]})"


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        autoescape=False,
    )


@cache
def load(name: str) -> Prompt:
    """Load `prompts/NAME.j2`.

    Raises:
        OptionError: No such prompt; the nearest name is given.
    """
    if name not in names():
        raise OptionError("prompts", [f"no prompt {name!r}{nearest(name, names())}"])
    return Prompt(name, resources.files("potstill.prompts").joinpath(f"{name}.j2").read_text(encoding="utf-8"))


@cache
def names() -> tuple[str, ...]:
    """Names of all prompts, sorted."""
    found = (item.name for item in resources.files("potstill.prompts").iterdir())
    return tuple(sorted(name.removesuffix(".j2") for name in found if name.endswith(".j2")))
