"""Self-Instruct: its files, its heuristics, and the whole of it on scripted teachers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.asker import Asker
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.novelty import rouge_l_f1
from potstill.datagen.self_instruct_files import (
    Instance,
    append_instance,
    read_instances,
    read_seed_tasks,
    write_alpaca,
)
from potstill.datagen.self_instruct_text import is_yes, refuse_instances, refuse_instruction, split_instructions
from potstill.datagen.self_instruct_text import read_instances as read_reply
from potstill.errors import DataError, TeacherError
from potstill.ledger import Ledger
from potstill.task import TaskSpec
from potstill.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take

SPEC = TaskSpec("i", "Follow the instruction.", "instructions", metric="rouge_l")


def test_shipped_seeds_are_many_sound_and_unlike() -> None:
    seeds = read_seed_tasks()
    assert len(seeds.tasks) >= 60
    assert seeds.skipped == ()
    labelled = [task for task in seeds.tasks if task.is_classification]
    assert len(labelled) >= 20
    assert all(len({item.output for item in task.instances}) >= 2 or len(task.instances) >= 2 for task in labelled)
    texts = [task.instruction for task in seeds.tasks]
    assert max(rouge_l_f1(a, b) for i, a in enumerate(texts) for b in texts[:i]) <= 0.7
    assert all(refuse_instruction(text) is None for text in texts)


def test_shipped_seeds_are_not_the_papers(data_pack: Path) -> None:
    theirs = [task.instruction for task in read_seed_tasks(data_pack / "selfinstruct" / "seed_tasks.jsonl").tasks]
    assert len(theirs) == 175
    for task in read_seed_tasks().tasks:
        assert max(rouge_l_f1(task.instruction, other) for other in theirs) <= 0.8


def test_files_round_trip(tmp_path: Path, data_pack: Path) -> None:
    """The data pack's files, and what a run wrote, are read back to the same values."""
    seeds = read_seed_tasks(data_pack / "selfinstruct" / "seed_tasks.jsonl")
    lines = (data_pack / "selfinstruct" / "seed_tasks.jsonl").read_text().splitlines()
    assert [asdict(task) for task in seeds.tasks] == [
        asdict(task) | {key: value for key, value in json.loads(line).items() if key in ("id", "name", "instruction")}
        for task, line in zip(seeds.tasks, lines, strict=True)
    ]
    with gzip.open(data_pack / "selfinstruct" / "alpaca_5k.jsonl.gz", "rt") as packed:
        (tmp_path / "five.jsonl").write_text(packed.read())
    rows = read_instances(tmp_path / "five.jsonl")
    assert len(rows) == 5000
    write_alpaca(rows, tmp_path / "alpaca.json")
    with (tmp_path / "all_generated_instances.jsonl").open("w") as file:
        for row in rows:
            append_instance(row, file)
    for name in ("alpaca.json", "all_generated_instances.jsonl"):
        assert read_instances(tmp_path / name) == rows
        again = read_seed_tasks(tmp_path / name)
        assert len(again.tasks) + len(again.skipped) == 5000
        assert again.tasks[0].instruction == rows[0].instruction
        assert again.tasks[0].instances[0].output == rows[0].output


def test_a_run_leaves_self_instructs_files(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        options = GenerationOptions(rows=12, window=2)
        result = generate_rows(SPEC, Asker(Tutor(), ledger), options, out=tmp_path / "datagen")
    instances = read_instances(tmp_path / "datagen" / "all_generated_instances.jsonl")
    assert instances == read_instances(tmp_path / "datagen" / "alpaca.json")
    assert [row.output for row in instances] == result.rows["output"][:]
    lines = (tmp_path / "datagen" / "machine_generated_instructions.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert {row.instruction for row in instances} <= {item["instruction"] for item in told}
    for number, item in enumerate(told):
        assert list(item) == ["instruction", "most_similar", "avg_similarity_score", "metadata", "request_idx"]
        assert len(item["most_similar"]) == 10
        text, score = next(iter(item["most_similar"].items()))
        assert score == pytest.approx(rouge_l_f1(text, item["instruction"]), abs=1e-6)
        assert score == max(item["most_similar"].values()) <= 0.7
        assert item["request_idx"] >= (told[number - 1]["request_idx"] if number else 0)


def test_seeds_with_missing_fields_are_left_out_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    good = {"instruction": "Name a colour.", "instances": [{"input": "", "output": "red"}], "is_classification": False}
    path.write_text("\n".join([json.dumps(good), "{", "[]", '{"instruction": "x"}', "null", '{"instances": 3}']))
    seeds = read_seed_tasks(path)
    assert len(seeds.tasks) == 1
    assert len(seeds.skipped) == 5
    assert "line 4: no instance with an output" in seeds.skipped
    path.write_text("{}")
    with pytest.raises(DataError, match=r"no usable seed task in .* line 1: no instruction"):
        read_seed_tasks(path)
    with pytest.raises(DataError, match="check `seed_tasks` in the task file"):
        read_seed_tasks(tmp_path / "absent.jsonl")


def test_lists_are_split_at_the_starts_of_lines() -> None:
    text = "9. Name the winners of 2016. Then those of 16. May.\n10. Explain what NASA is.\n11) list three\n12. cut o"
    assert split_instructions(text, 7, True) == [
        "Name the winners of 2016. Then those of 16. May.",
        "Explain what NASA is.",
        "List three",
    ]
    assert len(split_instructions("\n".join(f"{i}. task number {i} here" for i in range(20)), 7, False)) == 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Describe the plot of your favourite movie.", None),
        ("Draw a conclusion from the two statements.", None),
        ("Explain how the map function works in Python.", None),
        ("Summarise the file format of JPEG in a sentence.", None),
        ("Describe what you see in the following picture.", "instruction_not_text"),
        ("Draw a picture of a house by the sea.", "instruction_not_text"),
        ("Plot a graph of the function over time.", "instruction_not_text"),
        ("Create a map of the old town of Bern.", "instruction_not_text"),
        ("Go to the website and copy its title.", "instruction_not_text"),
        ("Name it.", "instruction_length"),
        ("word " * 151, "instruction_length"),
        ("Write a program that sorts a list of names.", "instruction_program"),
        ("- list the four seasons of the year", "instruction_start"),
        ("As an AI language model I list nothing.", "refusal"),
    ],
)
def test_instruction_heuristics(text: str, reason: str | None) -> None:
    found = refuse_instruction(text)
    assert (None if found is None else found.reason) == reason


def test_instances_are_read_label_first_and_input_first() -> None:
    labelled = "Class label: positive\nInput: Lovely place.\nClass label: negative\nNever again.\nClass label: mix"
    assert read_reply(labelled, True, False) == [
        Instance("Lovely place.", "positive"),
        Instance("Never again.", "negative"),
        Instance("", "mix"),
    ]
    assert len(read_reply(labelled, True, True)) == 2
    open_task = "Input: none\nOutput: A poem\nof two lines\n\nTask: another\nInput: x\nOutput: y"
    assert read_reply(open_task, False, False) == [Instance("", "A poem\nof two lines")]
    assert read_reply("no such thing", False, False) == []


def test_conflicts_copies_and_empty_outputs_go() -> None:
    kept, dropped = refuse_instances(
        [
            Instance("a", "1"),
            Instance("b", "2"),
            Instance("b", "3"),
            Instance("c", ""),
            Instance("d", "d"),
            Instance("e:", "x"),
            Instance("a", "1"),
        ]
    )
    assert kept == [Instance("a", "1")]
    assert sorted(item.reason for item in dropped) == [
        "conflicting_outputs",
        "conflicting_outputs",
        "duplicate_instance",
        "empty_output",
        "ends_with_colon",
        "output_is_input",
    ]


def test_yes_or_no() -> None:
    assert is_yes(" yes.") is True
    assert is_yes("No, it is open.") is False
    assert is_yes("maybe") is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.booleans(), st.booleans())
def test_no_reply_raises(text: str, classification: bool, cut: bool) -> None:
    for item in split_instructions("9." + text, 7, cut):
        refuse_instruction(item)
    refuse_instances(read_reply("Class label: a\nInput:" + text, classification, cut))
    is_yes(text)


class Tutor:
    """Writes instructions, classes and instances from word lists; some replies are faulty on purpose."""

    concurrency = 16
    name = "tutor"
    abilities = Abilities(prefill=True, choices=True)
    identity: Mapping[str, str] = {"backend": "tutor"}

    def __init__(self, shuffle: int = 0, broken: bool = False):
        self._order = Random(shuffle) if shuffle else None
        self._broken = broken
        self.asked: list[Request] = []

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        flying: list[Any] = []
        while True:
            flying += take(self.concurrency - len(flying))
            if not flying:
                return
            request = flying.pop(self._order.randrange(len(flying)) if self._order else 0)
            self.asked.append(request)
            yield request, self.answer(request)

    def answer(self, request: Request) -> Reply | Failure:
        if self._broken:
            return Reply(text="\x00<html>")
        random = Random(f"{request.seed} {request.messages[-1].content}")
        word = [f"{a}{b}" for a in ("ba", "ko", "ti", "lu", "me", "zo") for b in ("rn", "ld", "sk", "mp", "th")]
        if request.choices:
            return Reply(text=random.choice(["Yes", "No"]))
        if request.prefill.endswith("."):
            lines = []
            for i in range(9):
                lines.append(f"{i + 9}. Explain " + " ".join(random.sample(word, 7)))
            return Reply(text="\n".join(lines)[2:], finish=random.choice(["stop", "length"]))
        if request.prefill == "Class label:":
            return Reply(text=" good\nInput: fine " + random.choice(word) + "\nClass label: bad\nInput: poor one")
        return Reply(text=f" {random.choice(['none', 'some text'])}\nOutput: the {' '.join(random.sample(word, 4))}")

    def close(self) -> None:
        pass


def make(tmp_path: Path, teacher: Any, **options: Any) -> Any:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        return generate_rows(SPEC, Asker(teacher, ledger), GenerationOptions(**options))


def test_the_whole_of_it(tmp_path: Path) -> None:
    teacher = Tutor()
    result = make(tmp_path, teacher, rows=60, window=2)
    assert result.rows.num_rows == 60
    assert all(row["label"] is None and len(row["source"]["requests"]) == 3 for row in result.rows)
    texts = [item["instruction"] for item in result.report["instructions"]]
    everything = [*texts, *(seed.instruction for seed in read_seed_tasks().tasks)]
    assert max(rouge_l_f1(a, b) for i, a in enumerate(everything) for b in everything[:i]) <= 0.7
    prompts = [request.messages[-1].content for request in teacher.asked]
    first = next(p for p in prompts if "Come up with" in p)
    assert sum(line[:2] in {f"{i}." for i in range(1, 9)} for line in first.split("\n")) == 8
    later = [p for p in prompts if "Come up with" in p][-1]
    written = {p.split("\nTask: ")[-1].split("\n")[0] for p in prompts if "\nTask: " in p}
    assert sum(any(text and text in line for text in written) for line in later.split("\n")) == 2
    assert any(p.startswith("For each classification task") for p in prompts)
    assert any(p.startswith("For each task") for p in prompts)


def test_it_does_not_depend_on_the_order_of_replies(tmp_path: Path) -> None:
    made = []
    for shuffle in (0, 1, 2):
        folder = tmp_path / str(shuffle)
        folder.mkdir()
        result = make(folder, Tutor(shuffle), rows=40, window=16)
        made.append(json.dumps([result.rows.to_list(), [str(d) for d in result.dropped], result.report]))
    assert made[0] == made[1] == made[2]


def test_a_teacher_of_nonsense_ends_bounded(tmp_path: Path) -> None:
    teacher = Tutor(broken=True)
    with pytest.raises(TeacherError, match="tutor returned 0 usable rows of 60 requests"):
        make(tmp_path, teacher, rows=10)
    assert len(teacher.asked) <= 60
