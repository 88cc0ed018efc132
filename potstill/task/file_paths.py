"""Paths in the settings and the options of a task file: like those of its data, they start at the file's folder.

What enters is an option as it was written, and the folder; what leaves is its value, its path absolute where it is one.
A name of a model is taken for a path where it begins like one, or where such a folder lies there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.task.fields import path_of
from potstill.task.front_matter import Faults, Node, plain

# Options of stages that name a file or a list of files, with the words that name none.
_FILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "generation": {"personas": ("none", "teacher")},
    "retrieval": {"catalogue": (), "students": ()},
}
# Settings ("") and options of stages that name a model by a folder or a name of the Hub, and those that name a teacher.
_MODELS = {
    "": ("student", "encoder"), "distil": ("student", "teacher", "teacher_tokenizer"), "compress": ("teacher",),
}  # fmt: skip
_TEACHERS = {"": ("teacher",), "quality": ("teacher",), "generation": ("output_teacher",)}


def stage_options(stage: str, node: Node, folder: Path, faults: Faults) -> dict[str, Any]:
    """The options of a stage as written, their paths from the task file's folder; a file that is not there is a fault.

    Args:
        stage: Its name.
        node: The mapping of its options.
        folder: The task file's.
        faults: Takes what is wrong, with its line.
    """
    options: dict[str, Any] = plain(node)
    for name, words in _FILES.get(stage, {}).items():
        given = node.fields.get(name)
        if given is None or given.text in words:
            continue
        key = f"{stage}.{name}"
        if given.kind == "list":
            options[name] = [path_of(item, key, folder, faults) or plain(item) for item in given.items]
        elif given.kind == "scalar" and name == "personas" and (found := path_of(given, key, folder, faults)):
            options[name] = found
    for name, value in options.items():
        if isinstance(value, str):
            options[name] = with_place(stage, name, value, folder)
    return options


def with_place(stage: str, name: str, value: str, folder: Path) -> str:
    """A setting ("" for `stage`) or an option, the path of a model in it made absolute from the task file's folder.

    Examples:
        >>> with_place("", "student", "./small", Path("/tasks")), with_place("", "student", "me/small", Path("/tasks"))
        ('/tasks/small', 'me/small')
        >>> with_place("", "teacher", "vllm:../big", Path("/tasks")), with_place("", "budget", "./1", Path("/tasks"))
        ('vllm:/big', './1')
    """
    if name in _MODELS.get(stage, ()):
        return _model(value, folder)
    if name in _TEACHERS.get(stage, ()):
        backend, colon, model = value.partition(":")
        if backend.strip() in ("transformers", "vllm") and model.strip():
            return f"{backend}{colon}{_model(model.strip(), folder)}"
    return value


def _model(name: str, folder: Path) -> str:
    """The absolute path of a model's folder, or the name as it is."""
    try:
        path = Path(os.path.abspath(folder / Path(name).expanduser()))
        return str(path) if name.startswith((".", "~")) or (name != "auto" and path.is_dir()) else name
    except (OSError, ValueError, RuntimeError):  # no path that can be looked up
        return name
