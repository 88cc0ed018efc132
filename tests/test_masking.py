"""Keys in a teacher's URL are masked wherever the teacher stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potstill.events import silent
from potstill.masking import mask_teacher, masked
from potstill.pipeline import open_job

KEY = "sentinel-1a2b3c"
URL = f"https://bob:{KEY}@gateway.example.com/v1?token={KEY}#m"


@pytest.mark.parametrize(
    "argument",
    [
        f"openai:{URL}",
        f"quality.teacher=openai:{URL}",
        f'quality.teacher="openai:{URL}"',
        f"--set=quality.teacher=openai:{URL}",
        f'--set=quality.teacher="openai:{URL}"',
        f'quality={{"judge": true, "teacher": "openai:{URL}"}}',
        f"---\nteacher: openai:{URL}\nquality: {{judge: true, teacher: 'openai:{URL}'}}\n---\nClassify.\n",
        f"openai:http://a/v1,{URL}",
    ],
)
def test_no_form_of_an_argument_shows_the_key(argument: str) -> None:
    shown = mask_teacher(argument)
    assert KEY not in shown
    assert "bob" not in shown
    assert shown.count("#m") == argument.count("#m"), "the model is named still"
    assert KEY not in json.dumps(masked({"given": [argument]}))


@pytest.mark.parametrize(
    "text",
    [
        "Answer https://a.b/?q=1",
        "Say whether openai: a company, is meant; see https://me@a.b/?q=1",
        "openai:http://gpu-box.lan:8000/v1#Qwen/Qwen3-8B",
        'quality: {teacher: "openai:http://localhost:8000/v1#m"}',
    ],
)
def test_what_holds_no_key_stays_as_it_is(text: str) -> None:
    assert mask_teacher(text) == text


def test_the_copy_of_a_task_file_in_a_run_holds_no_key(tmp_path: Path) -> None:
    file = tmp_path / "task.md"
    front = f'labels: [billing, bug]\nteacher: fake\nquality: {{judge: true, teacher: "openai:{URL}"}}'
    file.write_text(f"---\n{front}\n---\nClassify tickets.\n")
    with open_job(str(file), tmp_path / "run", silent, {}) as job:
        job.task(str(file))
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"gateway.example.com" in path.read_bytes() for path in written)
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
