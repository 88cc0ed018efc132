"""The commands and Python snippets of README and docs, page by page and in order, as a reader would give them.

What a page cannot count on here is put in its place: the fake teacher for a real one, 24 rows for thousands, a Hub on
the loopback, a finished run where the page speaks of one. Each must end well; whether it does what its page says is
tested elsewhere.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SMALL = ["--set", "distil.epochs=1", "--set", "distil.min_steps=4", "--set", "evaluate.latency_rows=2",
         "--set", "retrieval.rows_per_dataset=20"]  # fmt: skip
# Minutes on a model of 135M parameters, or on every recipe; tests of `train/compress` run both, smaller.
TOO_LONG = ("--recipe all", '--recipe "gptq:int4"')
# What asks a vLLM server, or OpenAI for batches; `tests/train/test_asked_vllm.py` and `test_batch_server.py` have them.
ELSEWHERE = ("--set distil.on_policy=", "potstill batch submit", "potstill batch fetch")


# What a snippet starts with: `potstill.run` made small, as the commands are.
PREAMBLE = """
import potstill
whole = potstill.run
def small(task, **given):
    distil = {**given.get("distil", {}), "epochs": 1, "min_steps": 4}
    if "search" in distil:
        distil["search"] = {**distil["search"], "trials": 2}
    given.pop("teacher_options", None)
    given |= {"teacher": "fake", "n": 24, "distil": distil, "retrieval": {"rows_per_dataset": 20},
              "evaluate": {"latency_rows": 2}}
    return whole(task, **given)
potstill.run = small
"""


def steps(page: Path) -> list[tuple[str, str]]:
    """("command", line) and ("snippet", text) of a page, in order; patterns with `…` or USER/NAME are left out.

    So is `potstill work`, which waits for a run under way (`tests/datagen/teachers/test_workers.py`).
    """
    found = []
    for language, text in _BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
            found.append(("snippet", text))
        elif language in ("", "bash"):
            lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
            found += [
                ("command", line)
                for line in lines
                if re.match(r"potstill\s(?!work )", line) and " USER/NAME" not in line and not line.endswith("…")
            ]
    return found


STORIES = {page.name: found for page in PAGES if (found := steps(page))}


def script(text: str) -> str:
    """A snippet that runs by itself: its functions without parameters are called at the end."""
    calls = [
        f"{node.name}()" for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and not node.args.args
    ]
    return "\n".join([PREAMBLE, text, *calls, 'print("done")'])


def adapted(line: str) -> list[str]:
    """A command's words, with what it asks of the world made small."""
    words = shlex.split(re.sub(r"\s#.*", "", line))[1:]  # within a word, # is no comment
    for name, value in (("--teacher", "fake"), ("-n", "24"), ("--executor", "local"), ("--filter", None)):
        if name in words and words[0] != "batch":
            at = words.index(name)
            if value is None:
                del words[at : at + 2]
            else:
                words[at + 1] = value
    if words[0] in ("run", "plan", "preview", "doctor"):
        words += [] if "--teacher" in words else ["--teacher", "fake"]
    if words[0] == "run":
        words += [*SMALL, *([] if "-n" in words else ["-n", "24"])]
    if words[0] == "view":
        words += ["--no-open", "--for", "1"]
    if words[0] == "serve":
        words += ["--port", "0", "--for", "1"]
    if words[:2] == ["catalogue", "build"]:
        words.remove("hub")
    return words


def started(words: list[str], place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A Python process with these arguments."""
    return subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, timeout=280,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, for pages that begin with one."""
    place = tmp_path_factory.mktemp("finished")
    (place / "task.md").write_text("Classify support tickets as billing, bug or other.\n")
    words = ["run", "task.md", "--teacher", "fake", "-n", "24", *SMALL, "-o", "run"]
    done = started(["-m", "potstill.cli", *words], place, dict(os.environ))
    assert done.returncode == 0, done.stderr[-2000:]
    return place / "run"


def furnish(place: Path, finished: Path, story: list[tuple[str, str]]) -> None:
    """The task and the runs that a page's reader has."""
    text = "\n".join(line for _, line in story)
    if "potstill init" not in text:
        own = "--sources labelled" in text
        given = "---\nlabelled: own.jsonl\n---\n" if own else ""
        (place / "tickets.md").write_text(f"{given}Classify support tickets as billing, bug or other.\n")
        if own:
            said = {
                "billing": "charged for {}",
                "bug": "{} crashes at the start",
                "other": "is there a shop in {}",
            }
            things = (
                "lawn mowers",
                "the lamp",
                "my old phone",
                "a red bicycle",
                "socks",
                "the kettle",
                "her camera",
                "shoes",
            )
            rows = [{"text": text.format(thing), "label": label} for thing in things for label, text in said.items()]
            (place / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if "labelling_functions" in text:  # which vote on these
        told = (place / "task.md").read_text()
        (place / "task.md").write_text(f"---\nunlabelled: messages.txt\n---\n{told}")
    for name in ("tickets", "support-tickets", "tickets-longer"):
        used, made = re.search(rf"runs/{name}\b(?!-)", text), text.find(f"potstill run {name}.md")
        if used and not 0 <= made < used.start():  # a page that makes it first must make it itself
            shutil.copytree(finished, place / "runs" / name)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", STORIES)
def test_a_page_runs_from_its_first_command_to_its_last(
    page: str, finished: Path, tmp_path: Path, hub: Any, shop_files: Any
) -> None:
    shop_files(tmp_path)
    furnish(tmp_path, finished, STORIES[page])
    environment = {**os.environ, **hub.environment(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "OPENAI_API_KEY": "sk-x"}
    for kind, text in STORIES[page]:
        if any(part in text for part in (*TOO_LONG, *ELSEWHERE)):
            continue
        words = ["-c", script(text)] if kind == "snippet" else ["-m", "potstill.cli", *adapted(text)]
        done = started(words, tmp_path, environment)
        assert done.returncode == 0, f"{text}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        assert done.stdout.strip() or done.stderr.strip(), f"{text}: it says nothing"


def test_the_walk_sees_the_pages() -> None:
    assert len(STORIES) >= 8
    every = [step for story in STORIES.values() for step in story]
    assert len([kind for kind, _ in every if kind == "command"]) >= 45
    assert len([kind for kind, _ in every if kind == "snippet"]) >= 6
    assert len([text for _, text in every if any(part in text for part in (*TOO_LONG, *ELSEWHERE))]) <= 6
