"""What the zoo says of a student is what it hands out."""

import json
import shutil

import pytest
import torch

from potstill.train.card import weights_mib
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.run import compress_student
from potstill.train.compress.zoo import compress_all
from potstill.train.student import load_student


@pytest.fixture
def zoo(student, material, tmp_path):
    """A zoo of one recipe in two formats, healed by a teacher of its own folder."""
    teacher = tmp_path / "somebody" / "teacher"
    shutil.copytree(student, teacher)
    options = CompressOptions(formats=("packed", "plain"), speed="none", teacher=str(teacher))
    return compress_all(student, tmp_path / "zoo", material, options, recipes=("int4:g16",))


def test_figures_are_those_of_the_files_that_come_first(zoo):
    chosen = zoo.report["recommended"]
    assert chosen["size_mib"] == round(weights_mib(zoo.path), 3)
    assert zoo.report["steps"][1]["size_mib"] == chosen["size_mib"]


def test_a_student_that_may_be_published_names_no_folder_of_this_machine(zoo):
    told = [json.dumps(zoo.report), *(path.read_text() for path in zoo.path.rglob("*.json"))]
    assert not any("somebody" in text for text in told)
    assert zoo.report["options"]["teacher"] == "teacher"


@pytest.mark.parametrize(("recipe", "told"), [("bf16", False), ("int8:channel", True)])
def test_only_rounded_students_are_said_to_be_as_large_in_memory(recipe, told, student, material, tmp_path):
    options = CompressOptions(formats=("packed",), speed="none")
    result = compress_student(student, recipe, tmp_path / "small", material, options)
    assert any("no smaller or faster in memory" in note for note in result.report["notes"]) is told
    if not told:
        assert load_student(result.path).model.dtype == torch.bfloat16
