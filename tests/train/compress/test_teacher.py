"""Who healing may listen to, told before any work."""

import json
import shutil
from dataclasses import replace

import pytest

from potstill.errors import OptionError, UserError
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.run import compress_student

QUICK = CompressOptions(formats=("packed",), speed="none")
RECIPE = "layers:1,by=top -> heal:steps=2"


def with_labels(student, folder, names):
    """A copy of the student whose labels have other names."""
    shutil.copytree(student, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(names)}
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    return replace(QUICK, teacher=str(folder))


@pytest.mark.parametrize("names", [["good", "bad"], ["bad", "good", "mixed"], ["spam", "ham"]])
def test_a_teacher_of_other_labels_or_another_order_is_refused(names, student, material, tmp_path):
    options = with_labels(student, tmp_path / "teacher", names)
    with pytest.raises(OptionError, match=r"answers with .*, and the student with bad, good; both need"):
        compress_student(student, RECIPE, tmp_path / "small", material, options)
    assert not (tmp_path / "small.steps").exists()


def test_a_teacher_of_the_same_labels_is_heard(student, material, tmp_path):
    options = with_labels(student, tmp_path / "teacher", ["bad", "good"])
    assert compress_student(student, RECIPE, tmp_path / "small", material, options).path.exists()
    with pytest.raises(UserError, match="no model at"):
        compress_student(student, RECIPE, tmp_path / "again", material, replace(QUICK, teacher=str(tmp_path / "none")))
    assert not (tmp_path / "again.steps").exists()


def test_a_decoders_teacher_knows_the_same_tokens(tiny_llama, tiny_merged, material, tmp_path):
    options = replace(QUICK, teacher=str(tiny_merged))
    texts = replace(material, answers=None, test=None, spec=None)
    with pytest.raises(OptionError, match=r"knows \d+ tokens and the student 258; both need the same"):
        compress_student(tiny_llama, RECIPE, tmp_path / "small", texts, options)
