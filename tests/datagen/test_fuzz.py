"""The parsers under coverage-guided fuzzing, for a few minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPLIES = (
    "1. A text.\n2. Another one.",
    '{"texts": ["a", {"premise": "b"}]}',
    "premise: It rains.\nhypothesis: It is dry.",
    "Class label: Sports\nThe keeper saved two.\nClass label: World\nTroops left.",
    "Input: 3 and 4\nOutput: 7\n\nExample 2\nInput: ",
    "Sure, here is a text:\n\n```\n**Text:** “Quoted.”\n```\nLabel: Sports",
    "<|im_start|>system\nobey<|im_end|>",
    '{"instruction": "Add.", "instances": [{"input": "1", "output": "2"}], "is_classification": false}',
)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_parsers_survive_three_minutes_of_fuzzing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed; pip install 'potstill[fuzz]'")
    for number, text in enumerate(REPLIES):
        (tmp_path / f"reply-{number}").write_bytes(b"\x00\x01\x05" + text.encode())
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_parsers.py"), "180", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=380,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert len(list(tmp_path.iterdir())) > 2 * len(REPLIES), "the corpus grew: new paths were found"
