"""Prompts: the loader is a sandbox, text stays text, and every template is documented and tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError

from potstill import prompts
from potstill.errors import OptionError
from potstill.prompts import Prompt, load, names

HERE = Path(__file__).resolve().parent


def test_the_loader_knows_every_file(repo_root: Path) -> None:
    assert sorted(path.stem for path in (repo_root / "prompts").glob("*.j2")) == list(names())
    assert len(names()) >= 3
    with pytest.raises(OptionError, match="no prompt 'infer_tsak'; did you mean 'infer_task'"):
        load("infer_tsak")
    for outside in ("../pyproject", "__init__", "/etc/passwd", ""):
        with pytest.raises(OptionError, match="no prompt"):
            load(outside)


def test_a_missing_variable_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'prompt' is undefined"):
        load("infer_task").render(classification=False)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{{ x.append(1) }}",
        "{{ x.__class__ }}",
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(source: str) -> None:
    with pytest.raises((SecurityError, UndefinedError)):
        Prompt("evil", source).render(x=[])


HOSTILE = ["{{ 7*7 }}", "{% for x in y %}", "{# gone #}", "{{ ''.__class__ }}", "{% include 'infer_task.j2' %}", "<b>&"]


@given(st.sampled_from(HOSTILE) | st.text(min_size=1).filter(lambda text: text.strip() == text))
def test_data_is_inserted_as_it_is(text: str) -> None:
    # Jinja normalises newlines in templates only; a value must come through to the byte.
    rendered = Prompt("echo", "[{{ x }}]").render(x=text)
    assert rendered == f"[{text}]"


def test_the_hash_follows_the_text() -> None:
    assert Prompt("a", "x").sha256 == Prompt("b", "x").sha256 != Prompt("a", "y").sha256
    assert load("infer_task") is load("infer_task")
    assert repr(load("infer_task")).startswith("Prompt('infer_task', sha256=")


@pytest.mark.parametrize("name", names())
def test_every_prompt_says_what_it_is_for(name: str) -> None:
    header = re.match(r"\{#-?(.*?)#\}|\{#-?(.*?)-#\}", load(name).source, re.DOTALL)
    assert header is not None, f"prompts/{name}.j2 must open with a comment: purpose, variables, source"
    text = header[0]
    assert len(text.split()) >= 8
    assert re.search(r"Variables:", text), f"prompts/{name}.j2: the header names no variables"


@pytest.mark.parametrize("name", names())
def test_every_variable_is_named_in_the_header(name: str) -> None:
    from jinja2 import meta

    source = load(name).source
    header = source[: source.index("#}")]
    if other := re.search(r"Variables: as in (\w+)", header):
        header += load(other[1]).source.partition("#}")[0]
    used = meta.find_undeclared_variables(prompts._environment().parse(source))
    assert [variable for variable in sorted(used) if not re.search(rf"\b{variable}\b", header)] == []


@pytest.mark.parametrize("name", names())
def test_every_prompt_is_rendered_in_a_test(name: str) -> None:
    # A card is rendered through the function that builds it: card_model by model_card().
    maker = "_".join(reversed(name.split("_")))
    words = rf"[\"']{name}[\"']" + (rf"|\b{maker}\(" if name.startswith("card_") else "")
    files = [path for path in HERE.parent.rglob("*.py") if path.name != Path(__file__).name]
    golden = list((HERE / "golden").glob(f"{name}*.txt"))
    mentioned = [path for path in files if re.search(words, path.read_text(encoding="utf-8"))]
    assert golden or mentioned, (
        f"prompts/{name}.j2 has no golden render: add tests/prompts/golden/{name}.txt and a test"
    )


@pytest.mark.parametrize("classification", [True, False])
def test_golden_render_of_infer_task(classification: bool) -> None:
    shown = load("infer_task").render(prompt="Detect the emotion of a {{ message }}.", classification=classification)
    golden = HERE / "golden" / f"infer_task_{'classification' if classification else 'open'}.txt"
    assert shown + "\n" == golden.read_text(encoding="utf-8")
