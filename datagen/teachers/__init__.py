"""The teachers: one file a backend, all behind `potstill.asking.teacher.Teacher`.

    fake            no model at all: dry runs and tests
    transformers    in this process, on CPU or GPU, with the embedded model by default
    vllm            vLLM's engine in this process
    openai          any OpenAI-compatible server, through the openai client
    own             a function or an object of the caller's, which `potstill.run(teacher=…)` takes in place of a name

`open_teacher` turns what a user writes into one of them. Opening loads no model and sends nothing; the first
request does, so a run that the ledger can answer alone starts no engine.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from potstill.asking.teacher import Teacher
from potstill.errors import OptionError
from potstill.models import SMOLLM2
from potstill.options import build_options

BACKENDS = ("transformers", "vllm", "openai", "fake")


def open_teacher(ref: str, **options: Any) -> Teacher:
    """Open a teacher.

    Args:
        ref: One of

            fake                        writes varied text from word lists
            transformers                the embedded SmolLM2-135M-Instruct
            transformers:MODEL          a folder, a known name or a Hub id
            vllm                        the embedded model in vLLM
            vllm:MODEL
            openai:URL#MODEL            a server such as `http://localhost:8000/v1`; several URLs with commas
            openai:URL                  the one model that the server lists
            openai:#MODEL               api.openai.com, or `OPENAI_BASE_URL`

        **options: Fields of the backend's options (`FakeOptions`, `LocalOptions`, `VllmOptions`, `OpenAIOptions`).

    Raises:
        OptionError: An unknown backend or option; the nearest name is given.
        MissingExtra: The backend's library is not installed.
        UserError: No such model folder.
    """
    backend, _, rest = ref.strip().partition(":")
    built: Any = build_options(options_class(ref), options, "teacher")
    if backend == "fake":
        from potstill.datagen.teachers.fake import FakeTeacher

        if rest:
            raise OptionError("teacher", [f"{ref!r}: the fake teacher takes no model; write fake"])
        return FakeTeacher(built)
    if backend == "transformers":
        from potstill.datagen.teachers.local import LocalTeacher

        return LocalTeacher(rest or None, built)
    if backend == "vllm":
        from potstill.datagen.teachers.vllm_engine import VllmTeacher

        return VllmTeacher(rest or None, built)
    from potstill.datagen.teachers.openai_api import OpenAITeacher

    url, _, model = rest.partition("#")
    return OpenAITeacher(url, model, built)


def options_class(ref: str) -> type[Any]:
    """The dataclass of a backend's options: what `open_teacher(ref, …)` and `teacher_options` of a task file take.

    Raises:
        OptionError: An unknown backend, whose nearest name is given; or a colon with no model behind it.
    """
    backend, colon, rest = ref.strip().partition(":")
    if backend in ("transformers", "vllm") and colon and not rest.strip():
        raise OptionError(
            "teacher",
            [f"{ref!r}: no model is named after the colon; write {backend}:MODEL, or {backend} alone for {SMOLLM2}"],
        )
    if backend == "fake":
        from potstill.datagen.teachers.fake import FakeOptions

        return FakeOptions
    if backend == "transformers":
        from potstill.datagen.teachers.local import LocalOptions

        return LocalOptions
    if backend == "vllm":
        from potstill.datagen.teachers.vllm_options import VllmOptions

        return VllmOptions
    if backend == "openai":
        from potstill.datagen.teachers.openai_endpoints import OpenAIOptions

        return OpenAIOptions
    if backend == "python":
        raise OptionError(
            "teacher",
            [
                f"{ref!r} is a teacher of one's own in Python, which no text names; give the function or the object to "
                "potstill.run(…, teacher=…), or name another teacher"
            ],
        )
    raise OptionError(
        "teacher",
        [
            f"no backend {backend!r} in {ref!r}{_meant(backend)}; "
            "write transformers, transformers:MODEL, vllm:MODEL, openai:URL#MODEL, openai:#MODEL or fake"
        ],
    )


def _meant(backend: str) -> str:
    """A hint for a slip of the pen; words less alike ("nope" and "openai") are no hint."""
    near = get_close_matches(backend, BACKENDS, n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""
