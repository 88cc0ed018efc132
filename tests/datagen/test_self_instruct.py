"""Self-Instruct: its files, its heuristics, and the whole of it on scripted teachers."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.novelty import rouge_l_f1
from potstill.datagen.self_instruct_files import (
    Instance,
    Instructed,
    append_instance,
    read_instances,
    read_machine_instructions,
    read_seed_tasks,
    write_alpaca,
    write_machine_instructions,
    write_seed_tasks,
)
from potstill.datagen.self_instruct_steps import encoded, kinds_file, write_finetuning
from potstill.datagen.self_instruct_text import (
    Found,
    is_yes,
    refuse_instances,
    refuse_instruction,
    split_instructions,
    squeezed,
)
from potstill.datagen.self_instruct_text import read_instances as read_reply
from potstill.datagen.self_instruct_trust import seeds_to_ask
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import DataError, TeacherError
from potstill.task import Example, TaskSpec

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
    write_seed_tasks(seeds.tasks, tmp_path / "seed_tasks.jsonl")
    assert [list(json.loads(line).items()) for line in (tmp_path / "seed_tasks.jsonl").read_text().splitlines()] == [
        list(json.loads(line).items()) for line in lines
    ]
    assert read_seed_tasks(tmp_path / "seed_tasks.jsonl") == seeds
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
    names = ("seed_tasks.jsonl", "machine_generated_instructions.jsonl")
    lines = (tmp_path / "datagen" / names[1]).read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert [asdict(item) for item in read_machine_instructions(tmp_path / "datagen" / names[1])] == told
    assert read_seed_tasks(tmp_path / "datagen" / names[0]).tasks == read_seed_tasks().tasks
    assert {row.instruction for row in instances} <= {item["instruction"] for item in told}
    for number, item in enumerate(told):
        assert list(item) == ["instruction", "most_similar", "avg_similarity_score", "metadata", "request_idx"]
        assert len(item["most_similar"]) == 10
        text, score = next(iter(item["most_similar"].items()))
        assert score == pytest.approx(rouge_l_f1(text, item["instruction"]), abs=1e-6)
        assert score == max(item["most_similar"].values()) <= 0.7
        assert item["request_idx"] >= (told[number - 1]["request_idx"] if number else 0)


def test_a_run_leaves_the_files_of_each_step(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        options = GenerationOptions(rows=12, window=2)
        result = generate_rows(SPEC, Asker(Tutor(), ledger), options, out=tmp_path / "datagen")
    folder = tmp_path / "datagen"
    assert not list(folder.glob("*.part"))

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    kinds = lines("is_clf_or_not_tutor_template_1.jsonl")
    assert [list(item) for item in kinds] == [["instruction", "is_classification"]] * len(kinds)
    assert {item["instruction"]: item["is_classification"] == "Yes" for item in kinds} == {
        item["instruction"]: item["is_classification"] for item in result.report["instructions"]
    }
    raw = lines("machine_generated_instances.jsonl")
    assert [list(item) for item in raw] == [
        [
            "instruction", "raw_instances", "instance_metadata", "instruction_metadata", "most_similar",
            "avg_similarity_score",
        ]
    ] * len(raw)  # fmt: skip
    assert [item["instruction"] for item in raw] == [item["instruction"] for item in kinds]
    replies = {item["instruction"]: item for item in raw}
    for row in read_instances(folder / "all_generated_instances.jsonl"):
        assert row.output in replies[row.instruction]["raw_instances"]
    assert all(item["raw_instances"].startswith(("Input:", "Class label:")) for item in raw)
    told = {item["instruction"]: item for item in lines("machine_generated_instructions.jsonl")}
    assert all(item["most_similar"] == told[item["instruction"]]["most_similar"] for item in raw)
    pairs = lines("gpt3_finetuning_data_12.jsonl")
    assert len(pairs) == 12
    rows = zip(read_instances(folder / "all_generated_instances.jsonl"), pairs, strict=True)
    assert all(pair["completion"].strip() == f"{row.output}<|endoftext|>" for row, pair in rows)


def test_pairs_for_finetuning_hold_what_the_instance_says(tmp_path: Path) -> None:
    row = Instructed("Fill in {input} or {instruction} here.", "text: It {input}\n\nrained.", "wet")
    pairs = {encoded(row, seed) for seed in range(400)}
    prompts = {prompt for prompt, _ in pairs}
    assert len(prompts) == 7 * 4, "seven templates, with and without the field's name, blank lines whole and halved"
    assert all(row.instruction in prompt for prompt in prompts)
    assert all(re.search(r"It \{input\}\n\n?rained\.", prompt) for prompt in prompts)
    assert all(text == (" wet<|endoftext|>" if p.endswith(":") else "wet<|endoftext|>") for p, text in pairs)
    alone = {encoded(replace(row, input=""), seed) for seed in range(200)}
    assert len(alone) == 6
    path = write_finetuning([row, row, replace(row, output="dry")], tmp_path)
    assert path.name == "gpt3_finetuning_data_2.jsonl"
    assert len(path.read_text().splitlines()) == 2
    assert write_finetuning([], tmp_path).read_text() == ""


def test_a_file_of_kinds_has_a_name_that_any_folder_takes() -> None:
    assert kinds_file("openai:http://h:8000/v1#m") == "is_clf_or_not_openai_http_h_8000_v1_m_template_1.jsonl"


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


def test_machine_instructions_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"instruction": "Name a river."}\n\n')
    assert [item.instruction for item in read_machine_instructions(path)] == ["Name a river."]
    for text in ("{", "[]", '{"text": 1}', '{"instruction": "x", "most_similar": [1]}'):
        path.write_text(text)
        with pytest.raises(DataError, match="holds no machine-generated instructions"):
            read_machine_instructions(path)


def test_nearest_instructions_are_told_at_a_bounded_cost(tmp_path: Path) -> None:
    random = Random(3)
    words = [f"w{number}" for number in range(60)]
    made = [" ".join(random.choices(words, k=random.randint(4, 9))) for _ in range(700)]
    seeds, written = [*made[:20], "сколько будет два плюс два", "!?"], [*made[20:], "назови столицу страны", "..."]
    path = tmp_path / "m.jsonl"
    write_machine_instructions(seeds, written, range(len(written)), "t", path)
    told = [json.loads(line) for line in path.read_text().splitlines()]
    for number in (0, 1, 300, 679):
        scores = [rouge_l_f1(other, written[number]) for other in [*seeds, *written[:number]]]
        assert told[number]["avg_similarity_score"] == pytest.approx(sum(scores) / len(scores), abs=1e-6)
        best = sorted(scores, reverse=True)[:10]
        assert list(told[number]["most_similar"].values()) == pytest.approx(best, abs=1e-6)
        assert told[number]["metadata"] == {"teacher": "t", "compared_with": len(scores)}
    assert next(iter(told[680]["most_similar"])) == seeds[20], "other scripts are compared letter by letter"
    assert told[681]["avg_similarity_score"] == 0.0, "two texts without a token are not alike"

    write_machine_instructions(seeds, written, range(len(written)), "t", path, compared=100)
    fewer = [json.loads(line) for line in path.read_text().splitlines()]
    assert [item["instruction"] for item in fewer] == written
    assert fewer[-1]["metadata"]["compared_with"] == 100
    assert max(item["metadata"]["compared_with"] for item in fewer) < 500
    assert set(fewer[680]["most_similar"]) & set(seeds)
    assert abs(fewer[600]["avg_similarity_score"] - told[600]["avg_similarity_score"]) < 0.05


def test_lists_are_split_at_the_starts_of_lines() -> None:
    text = "9. Name the winners of 2016. Then those of 16. May.\n10. Explain what NASA is.\n11) list three\n12. cut o"
    assert split_instructions(text, 7, True) == [
        "Name the winners of 2016. Then those of 16. May.",
        "Explain what NASA is.",
        "List three",
    ]
    assert len(split_instructions("\n".join(f"{i}. task number {i} here" for i in range(20)), 7, False)) == 7


TWO = ["Explain the word tide.", "Name two rivers."]


@pytest.mark.parametrize(
    "text",
    [
        "9. Explain the word tide.\n10. Name two rivers.",
        "9.Explain the word tide.\n10.Name two rivers.",
        "Sure! Here are more tasks:\n\n9. Explain the word tide.\n\n10. Name two rivers.\n\nLet me know if you want!",
        "Sure! Here are more tasks:\nExplain the word tide.\nName two rivers.\nLet me know if you need more!",
        "Here are seven new tasks\nExplain the word tide.\nName two rivers.\nI hope this helps!",
        "Absolutely! I'd be happy to help.\n- Explain the word tide.\n- Name two rivers.\nThese tasks need no files.",
        "* **Explain the word tide.**\n* **Name two rivers.**",
        "**9.** Explain the word tide.\n**10.** Name two rivers.",
        "**9. Explain the word tide.**\n**10. Name two rivers.**",
        "Task 9: Explain the word tide.\nTask 10: Name two rivers.",
        "9. Task: explain the word tide.\n10. Instruction: name two rivers.",
        "9. Explain the word tide.\nThe tide is the rise of the sea.\n10. Name two rivers.\nRhine and Rhône.",
        "9. Explain the word tide.\n  1. first the moon\n  2. then the sun\n10. Name two rivers.",
        "9. Explain the word tide.\n1. First the moon.\n2. Then the sun.\n10. Name two rivers.",
        "1. Explain the word tide.\n2. Name two rivers.",
        "Okay.\nExplain the word tide.\nName two rivers.\nYes, I can do this. I can write more.\nFeel free to ask.",
    ],
)
def test_only_the_tasks_of_a_list_are_read(text: str) -> None:
    assert split_instructions(text, 7, False) == TWO


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(read_seed_tasks().tasks), min_size=1, max_size=7, unique=True),
    st.sampled_from(["{}. {}", "{}.{}", "{}) {}", "**{}.** {}", "{}: {}", "Task {}: {}"]),
    st.sampled_from(["", "Sure, here are some more:\n", "Certainly!\n\n"]),
    st.sampled_from(["", "\n\nLet me know if you want others.", "\nThese tasks can be done with text alone."]),
    st.sampled_from(["\n", "\n\n"]),
)
def test_a_list_is_read_back_whatever_its_form(tasks: list[Any], form: str, lead: str, end: str, gap: str) -> None:
    texts = [task.instruction for task in tasks]
    reply = lead + gap.join(form.format(number, text) for number, text in enumerate(texts, 9)) + end
    assert split_instructions(reply, 7, False) == texts


def test_case_is_kept() -> None:
    assert split_instructions("9. iPhone or NASA: which is older?\n10. define pH in a line", 7, False) == [
        "iPhone or NASA: which is older?",
        "Define pH in a line",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Describe the plot of your favourite movie.", None),
        ("Draw a conclusion from the two statements.", None),
        ("Describe what you see in the following picture.", "instruction_not_text"),
        ("Draw a picture of a house by the sea.", "instruction_not_text"),
        ("Name it.", "instruction_length"),
        ("word " * 151, "instruction_length"),
        ("写一首关于秋天的短诗。", None),
        ("写诗。", "instruction_length"),
        ("秋" * 400, "instruction_length"),
        ("Напиши короткое стихотворение об осени.", None),
        ("¿Cuál es la capital de Mongolia?", None),
        ("«Liberté» : donne trois synonymes du mot.", None),
        ('"Break the ice": explain the saying.', None),
        ("Übersetze den Satz ins Englische.", None),
        ("3 tips for better sleep are wanted.", None),
        ("2016 was a leap year: true or false?", None),
        ("- list the four seasons of the year", "instruction_start"),
        ("... and then list the four seasons", "instruction_start"),
        ("Write a program that sorts a list of names.", "instruction_program"),
        ("Write a program to compute the sum of the integers from k to n.", "instruction_program"),
        ("write a simple computer program for finding primes", "instruction_program"),
        ("Write a program to go through a list of names.", "instruction_program"),
        ("Write a program in Go that goes through a list of names.", None),
        ("Write a program in Python that sorts a list of names.", None),
        ("Write a program that sorts names, using C++.", None),
        ("Write a program for the spring concert of a choir.", None),
        ("Write a programme note about a string quartet.", None),
        ("As an AI language model I list nothing.", "refusal"),
        ("I'm sorry, but I cannot create tasks.", "meta_talk"),
        ("Answer a mail that says: sorry, I am late.", None),
        ("Let me know if you need more tasks.", "meta_talk"),
        ("Read the sentence and let me know if it is correct.", None),
        ("Here is a list of words. Sort them by length.", None),
        ("Here are three more tasks for you.", "meta_talk"),
        ("Name the capital of <insert name of a country>.", "meta_talk"),
        ("Write a letter to [Name of the company].", "meta_talk"),
        ("Yes, I can do that.", "meta_talk"),
        ("No one was there: explain the saying.", None),
        ("Decide what the category is: fruit or tool.", None),
        ("I bought two shirts at $10 each. What did I pay?", None),
        ("sing sing sing sing sing sing sing sing sing", "repetition"),
    ],
)
def test_instruction_heuristics(text: str, reason: str | None) -> None:
    found = refuse_instruction(text)
    assert (None if found is None else found.reason) == reason


def test_instructions_of_people_are_kept(data_pack: Path) -> None:
    """The paper's own rules on them: at most 150 words, at least four, no bare "Write a program"."""
    folder = data_pack / "selfinstruct"
    refused = []
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        lines = [json.loads(line)["instruction"] for line in (folder / name).read_text().splitlines()]
        refused += [found.reason for text in lines if (found := refuse_instruction(text)) is not None]
    assert sorted(refused) == ["instruction_length"] * 3 + ["instruction_not_text", "instruction_program"]


def test_instances_are_read_label_first_and_input_first() -> None:
    labelled = "Class label: positive\nInput: Lovely place.\nClass label: negative\nNever again.\nClass label: mix"
    assert read_reply(labelled, True, False) == [
        Found("Lovely place.", "positive"),
        Found("Never again.", "negative"),
        Found(None, "mix"),
    ]
    assert len(read_reply(labelled, True, True)) == 2
    open_task = "Input: none\nOutput: A poem\nof two lines\n\nTask: another\nInput: x\nOutput: y"
    assert read_reply(open_task, False, False) == [Found("", "A poem\nof two lines")]
    assert read_reply("no such thing", False, False) == []
    assert read_reply("", True, True) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Class label: yes\nInput: one\ntwo\n\nthree\nClass label: no\nInput: four", ["one\ntwo\n\nthree", "four"]),
        ("Class label: yes Input: one\nClass label: no Input: four", ["one", "four"]),
        ("**Class label:** yes\n**Input:** one\n\n**Class label:** no\n**Input:** four", ["one", "four"]),
        ("### Class Label 1: yes\nInput 1: one\n### Class Label 2: no\nInput 2: four", ["one", "four"]),
        ("Sure! Here are the labels:\nClass label: yes\nInput: one\nClass label: no\nInput: four", ["one", "four"]),
        ("Task: Is it so?\nClass label: yes\nInput: one\nClass label: no\nInput: four", ["one", "four"]),
        ("Class label: yes\nInput: one\nClass label: no\nInput: four\n\nTask: Next\nClass label: x", ["one", "four"]),
        (
            "Class label: yes\nInput: one\nOutput: yes\nClass label: no\nInput: four\n\nThe answer is: no",
            ["one", "four"],
        ),
        ("Class label: yes\nInput: one\nExplanation: it is.\nClass label: no\nInput: four\n---\nDone", ["one", "four"]),
        ("Label: “yes.”\nInput: one\nLabel: no\nInput: four", ["one", "four"]),
    ],
)
def test_labels_are_read_whatever_their_form(text: str, found: list[str]) -> None:
    assert read_reply(text, True, False) == [Found(found[0], "yes"), Found(found[1], "no")]


@pytest.mark.parametrize(
    "text",
    [
        "Input: one\nOutput: two",
        "**Input:** one\n**Output:** two",
        "Input:\none\n\nOutput:\ntwo",
        "Input: one\nAnswer: two",
        "Sure, here is an example:\nInput: one\nOutput: two",
        "Task: Do it.\nInput: one\nOutput: two",
        "Example 1:\nInput: one\nOutput: two",
        "Input: one\nOutput: two\n\nOutput: two\n\nOutput: two",
        "Input: one\nOutput: two\n---",
        "one\nOutput: two",
    ],
)
def test_open_instances_are_read_whatever_their_form(text: str) -> None:
    assert read_reply(text, False, False) == [Found("one", "two")]


@pytest.mark.parametrize("rule", ["\n---\n", "\n\n---\n\n", "\n\n***  \n \n\n", "\n====\n\n", "\n\n##\n"])
def test_a_rule_between_instances_is_no_part_of_an_output(rule: str) -> None:
    text = f"Input: a\nOutput: y{rule}Input: z\nOutput: - w\n\n---\nx{rule}"
    assert read_reply(text, False, False) == [Found("a", "y"), Found("z", "- w\n\n---\nx")]


@pytest.mark.parametrize(
    "word", ["none", "None.", "N/A", "(none)", "<noinput>", "No input needed", "-", "not required."]
)
def test_a_stated_lack_of_input_is_none(word: str) -> None:
    assert read_reply(f"Input: {word}\nOutput: two", False, False) == [Found("", "two")]
    assert read_reply(f"Class label: yes\nInput: {word}", True, False) == [Found("", "yes")]


def test_what_is_cut_is_left_out_and_what_came_before_it_stays() -> None:
    assert read_reply("Input: a\nOutput: b\nInput: c\nOutput: d an", False, True) == [Found("a", "b")]
    assert read_reply("Input: a\nOutput: b\nInput: c and", False, True) == [Found("a", "b")]
    assert read_reply("Input: a\nOutput: b\n\nOutput: b\n\nOut", False, True) == [Found("a", "b")]
    assert read_reply("Input: a\nOutput: b an", False, True) == []
    assert read_reply("Class label: a\nInput: b\nClass label: c\nInput: d an", True, True) == [Found("b", "a")]
    assert read_reply("Class label: a\nInput: b\nInput: c an", True, True) == [Found("b", "a")]


def test_a_label_may_have_several_inputs() -> None:
    text = "Class label: U.S.\nInput: Boston\nInput: Chicago\nClass label: Canada.\nInput: Calgary"
    assert read_reply(text, True, False) == [
        Found("Boston", "U.S."),
        Found("Chicago", "U.S."),
        Found("Calgary", "Canada"),
    ]


def test_conflicts_copies_and_empty_outputs_go() -> None:
    kept, dropped = refuse_instances(
        [
            Found("a", "1"),
            Found("b", "2"),
            Found("b", "3"),
            Found("c", ""),
            Found("d", "d"),
            Found("e:", "x"),
            Found("a", "1"),
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


def test_only_sound_instances_conflict() -> None:
    kept, _ = refuse_instances([Found("a", ""), Found("a", "1"), Found("a", "a"), Found("a", "1:"), Found("a ", "1")])
    assert kept == [Instance("a", "1")]


def test_instances_without_an_input() -> None:
    """Two poems are two poems; two labels for nothing are a conflict, and one that no input follows is unfinished."""
    poems = [Found("", "one poem"), Found("", "another poem")]
    assert len(refuse_instances(poems)[0]) == 2
    assert refuse_instances(poems, classification=True)[0] == []
    kept, dropped = refuse_instances([Found(None, "yes"), Found("a lamp", "no")], classification=True)
    assert (kept, [item.reason for item in dropped]) == ([Instance("a lamp", "no")], ["no_input"])
    assert refuse_instances([Found("", "geese")], classification=True)[0] == [Instance("", "geese")]


def test_echoes_are_dropped() -> None:
    instruction = "Name a river in Asia."
    found = [Found("Name a river  in asia.", "Mekong"), Found("x", instruction), Found("The mill was built.", "1846")]
    kept, dropped = refuse_instances(found, instruction=instruction, echoes={squeezed("the mill was built.")})
    assert kept == [Instance("", "Mekong")]
    assert [item.reason for item in dropped] == ["output_is_input", "example_echo"]


def test_an_output_that_says_nothing_is_none() -> None:
    assert refuse_instances([Found("", "None")])[1][0].reason == "empty_output"
    assert refuse_instances([Found("Which of 4 and 6 is odd?", "None")])[1] == []
    assert refuse_instances([Found("Halal", "halal")], classification=True)[1][0].reason == "output_is_input"
    assert refuse_instances([Found("halal", "Halal")])[1] == [], "to write it with a capital may be the task"


def test_a_note_that_says_sorry_is_no_refusal() -> None:
    note = Found("the party", "Sorry, I can't make it on Friday, my train is late.")
    declined = Found("the party", "I'm sorry, but I can't help with that request.")
    assert refuse_instances([note])[0] == [Instance(note.input or "", note.output)]
    assert [item.reason for item in refuse_instances([declined])[1]] == ["refusal"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.builds(Found, st.sampled_from([None, "", "a", "b", "c:"]), st.sampled_from(["", "a", "x", "y", "z:"]))),
    st.booleans(),
    st.randoms(),
)
def test_the_order_of_instances_does_not_matter(found: list[Found], classification: bool, random: Random) -> None:
    kept, dropped = refuse_instances(found, classification=classification)
    assert len(kept) + len(dropped) == len(found)
    shuffled = list(found)
    random.shuffle(shuffled)
    again, _ = refuse_instances(shuffled, classification=classification)
    assert set(again) == set(kept)
    with_input = [item.input for item in kept if item.input]
    assert len(set(with_input)) == len(with_input)


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


KINDS = {seed.instruction: seed.is_classification for seed in read_seed_tasks().tasks}


def asked_about(request: Request) -> str:
    """The instruction whose kind a request asks for."""
    return request.messages[-1].content.rpartition("\nTask: ")[2].partition("\n")[0]


class Tutor:
    """Writes instructions, classes and instances from word lists, and knows the seeds; some replies are faulty."""

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
            return Reply(text="Yes" if KINDS.get(asked_about(request), random.random() < 0.5) else "No")
        if request.prefill.endswith("."):
            lines = []
            for i in range(9):
                lines.append(f"{i + 9}. Explain " + " ".join(random.sample(word, 7)))
            return Reply(text="\n".join(lines)[2:], finish=random.choice(["stop", "length"]))
        if request.prefill.endswith("Class label:"):
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
    begun = [request for request in teacher.asked if "Come up with" in request.messages[-1].content]
    assert all(
        [line.split(". ")[0] for line in request.prefill.split("\n")] == [*"12345678", "9."] for request in begun
    )
    assert begun[0].stop == ("\n\n", "\n16.")
    prompts = [request.messages[-1].content for request in teacher.asked]
    written = {p.split("\nTask: ")[-1].split("\n")[0] for p in prompts if "\nTask: " in p} - set(KINDS)
    worked = [request.prefill for request in teacher.asked if request.prefill.endswith(("Class label:", "Input:"))]
    assert {text.count("Task: ") for text in worked} == {4}, "three seeds and the new task"
    assert sum(any(text and text in line for text in written) for line in begun[-1].prefill.split("\n")) == 2
    assert any(p.startswith("For each classification task") for p in prompts)
    assert any(p.startswith("For each task") for p in prompts)


class Brief(Tutor):
    """Asks for outputs of three words, and writes four of them in two sentences, or too many in one."""

    def answer(self, request: Request) -> Reply | Failure:
        reply = super().answer(request)
        if not isinstance(reply, Reply) or request.choices:
            return reply
        if request.prefill.endswith("."):
            return replace(reply, text=re.sub("(?<=Explain )", "in one sentence of at most three words ", reply.text))
        output = "Two words. Two more." if request.seed % 2 else "All of this is too long."
        return replace(reply, text=f" none\nOutput: {output}")


def test_outputs_are_held_to_the_form_of_their_instruction(tmp_path: Path) -> None:
    result = make(tmp_path, Brief(), rows=12, window=2)
    assert set(result.rows["output"]) == {"Two words."}
    assert result.report["cut_to_form"] >= 12
    assert result.report["dropped"]["off_form"] > 0
    assert {item.detail for item in result.dropped if item.reason == "off_form"} == {
        "6 words, where at most 3 are asked for"
    }


def test_a_teacher_that_cannot_be_opened_is_shown_the_list(tmp_path: Path) -> None:
    teacher = Tutor()
    teacher.abilities = Abilities()
    spec = replace(SPEC, instruction="Help in  a library.", languages=("de",))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        generate_rows(spec, Asker(teacher, ledger), GenerationOptions(rows=1))
    request = next(request for request in teacher.asked if "Come up with" in request.messages[-1].content)
    text = request.messages[-1].content
    assert "Most of them fit this purpose: Help in a library.\n" in text
    assert [line[:2] for line in text.split("\n") if line[:1].isdigit()] == [f"{number}." for number in range(1, 9)]
    assert text.endswith("Continue the list from 9 to 15. Write one task a line in German and nothing else.")
    assert (request.prefill, request.stop) == ("", ())


class Labeller(Tutor):
    """Calls all but open seeds classification, and writes three short inputs of three labels each."""

    def answer(self, request: Request) -> Reply | Failure:
        if request.choices:
            return Reply(text="Yes" if KINDS.get(asked_about(request), True) else "No")
        if request.prefill.endswith("Class label:"):
            random = Random(request.seed)
            low, middle, high = (f"{random.randrange(10**6)}" for _ in range(3))
            return Reply(
                text=f" low\nInput: {low}\nClass label: middle\nInput: {middle}\nClass label: high\nInput: {high}"
            )
        return super().answer(request)


def test_rows_are_no_near_duplicates_and_no_label_wins(tmp_path: Path) -> None:
    """Three rows whose instruction is the same are alike: one stays, not always that of the first label."""
    result = make(tmp_path, Labeller(), rows=90, window=8)
    texts = result.rows["input"][:]
    assert max(rouge_l_f1(a, b) for i, a in enumerate(texts) for b in texts[:i]) <= 0.7
    assert len(texts) == 90
    assert result.report["near_duplicate_rate"] == result.report["instructions_near_duplicate_rate"] == 0.0
    assert result.report["dropped"]["near_duplicate"] >= 170
    alike = [item for item in result.dropped if item.reason == "near_duplicate" and item.output]
    assert all(item.detail.startswith("ROUGE-L 0.") and item.input not in texts for item in alike)
    counts = Counter(result.rows["output"][:])
    assert set(counts) == {"low", "middle", "high"}
    assert min(counts.values()) >= 15


class Flatterer(Tutor):
    """Says Yes to whatever it is asked."""

    def answer(self, request: Request) -> Reply | Failure:
        return Reply(text="Yes") if request.choices else super().answer(request)


def test_a_teacher_that_calls_everything_classification_is_not_believed(tmp_path: Path) -> None:
    """Label first, it would write one word for an answer to an open task."""
    teacher = Flatterer()
    result = make(tmp_path, teacher, rows=40, window=4)
    told = result.report["kinds_of_seeds"]
    assert told == {
        "classification_seeds": 16,
        "called_classification": 16,
        "open_seeds": 16,
        "open_called_classification": 16,
        "believed": False,
    }
    assert {item["is_classification"] for item in result.report["instructions"]} == {False}
    assert all(output.startswith("the ") for output in result.rows["output"])
    assert sum(request.choices is not None for request in teacher.asked) == 32, "nothing is asked in vain"
    shown = Counter(asked_about(request) for request in teacher.asked if request.choices)
    assert set(shown) <= set(KINDS)
    assert max(shown.values()) == 1
    question = next(request for request in teacher.asked if request.choices).messages[-1].content
    assert not any(f"Task: {text}\nIs it classification? Yes" in question for text in shown)


def test_a_seed_that_gets_no_answer_is_not_counted(tmp_path: Path) -> None:
    class Silent(Tutor):
        def answer(self, request: Request) -> Reply | Failure:
            seed = request.choices and asked_about(request) in KINDS
            return Failure("busy") if seed else super().answer(request)

    result = make(tmp_path, Silent(), rows=5)
    assert result.report["kinds_of_seeds"]["believed"], "as without any question"
    assert all(item.input for item in result.dropped)


def test_few_seeds_of_a_kind_are_not_asked_about() -> None:
    seeds = read_seed_tasks().tasks
    labelled = tuple(seed for seed in seeds if seed.is_classification)
    free = tuple(seed for seed in seeds if not seed.is_classification)
    assert seeds_to_ask(labelled[:5] + free, ()) == []
    asked = seeds_to_ask(labelled[:9] + free, (labelled[0], free[0]))
    assert [seed.is_classification for seed in asked] == [True] * 8 + [False] * 8
    assert labelled[0] not in asked
    assert free[0] not in asked


def test_a_few_texts_are_compared_with_when_told_so(tmp_path: Path) -> None:
    result = make(tmp_path, Tutor(), rows=40, window=8, novelty_pool=5)
    assert result.rows.num_rows == 40


def test_the_counts_add_up(tmp_path: Path) -> None:
    report = make(tmp_path, Tutor(), rows=50, window=4).report
    assert report["texts"] == report["kept"] + sum(report["dropped"].values())
    assert 0 < report["yield"] <= 1
    assert report["bootstraps"]["used"] <= report["bootstraps"]["requests"]
    assert report["tasks"]["used"] <= report["tasks"]["answered"] <= report["tasks"]["written"]


class Unfit(Tutor):
    """Writes instructions without end, and no instance that can be used."""

    def answer(self, request: Request) -> Reply | Failure:
        return super().answer(request) if request.choices or request.prefill.endswith(".") else Reply(text=" nothing")


def test_instances_that_never_come_are_asked_for_a_bounded_number_of_times(tmp_path: Path) -> None:
    teacher = Unfit()
    with pytest.raises(TeacherError, match="0 usable rows"):
        make(tmp_path, teacher, rows=10, window=8)
    new = [request for request in teacher.asked if asked_about(request) not in KINDS]
    assert sum(request.choices is not None for request in new) == 60
    assert len(new) < 180


class Wordy(Tutor):
    """Takes 500 tokens for instances; with fewer they are cut."""

    def answer(self, request: Request) -> Reply | Failure:
        reply = super().answer(request)
        if isinstance(reply, Reply) and request.prefill.endswith("Input:") and request.max_tokens < 500:
            return replace(reply, text=reply.text[:20], finish="length")
        return reply


def test_cut_instances_are_asked_for_again_with_more_tokens_and_nothing_else_is(tmp_path: Path) -> None:
    """A long answer was cut at 350 tokens whatever the task file said, and nothing told how to allow more."""
    teacher = Wordy()
    short = make(tmp_path, teacher, rows=20, window=8)
    assert short.report["dropped"]["truncated"] > 5
    before = len(teacher.asked)
    longer = make(tmp_path, teacher, rows=20, window=8, max_tokens=600)
    assert "truncated" not in longer.report["dropped"]
    again = teacher.asked[before:]
    assert again
    assert {request.max_tokens for request in again} == {600}
    assert all(request.prefill.endswith("Input:") for request in again)


def test_where_all_instances_are_cut_the_mend_is_said(tmp_path: Path) -> None:
    class AllOpen(Wordy):
        def answer(self, request: Request) -> Reply | Failure:
            return Reply(text="No") if request.choices else super().answer(request)

    with pytest.raises(TeacherError, match=r"cut at the most tokens .*--set generation\.max_tokens=700"):
        make(tmp_path, AllOpen(), rows=10, window=8)


def test_examples_of_the_user_are_seeds(tmp_path: Path) -> None:
    teacher = Tutor()
    examples = (Example("Say when the desk opens.", "At nine."), Example("Answer the reader.\n\nIs tea sold?", "No."))
    spec = replace(SPEC, examples=examples)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        generate_rows(spec, Asker(teacher, ledger), GenerationOptions(rows=5))
    begun = [request.prefill for request in teacher.asked if "Come up with" in request.messages[-1].content]
    assert all("Say when the desk opens.\n" in text and "Answer the reader.\n" in text for text in begun)


def test_no_more_is_asked_than_the_rows_take(tmp_path: Path) -> None:
    """A bootstrap reply of the fake teacher brings one instruction, and that one row: two requests a row.

    It does not know the seeds' kinds, so it is not asked for those of new instructions.
    """
    teacher = FakeTeacher()
    result = make(tmp_path, teacher, rows=100)
    assert result.rows.num_rows == 100
    assert result.report["kinds_of_seeds"]["classification_seeds"] == 16
    assert teacher.asked <= 220 + 32
    assert result.report["tasks"]["written"] <= 105


def test_the_fake_teacher_writes_whole_instances(tmp_path: Path) -> None:
    result = make(tmp_path, FakeTeacher(), rows=40)
    assert result.rows.num_rows == 40
    assert all("\n\n" in text for text in result.rows["input"])
    assert not any(text.startswith("9.") for text in result.rows["input"])
    assert result.report["near_duplicate_rate"] == 0.0


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
    with pytest.raises(TeacherError, match="tutor returned 0 usable rows of 92 requests"):
        make(tmp_path, teacher, rows=10)
    assert len(teacher.asked) <= 92


PYTHON = "```python\ndef f(x):\n    return 2 * x\n\nprint(f(2))\n# Output: 4\n```"
LISTED = "```python\n# Input: a list of numbers\ndef total(xs):\n    return sum(xs)\n```"
SHELL = "~~~sh\n# Task: read the log\ncat app.log\n~~~"
YAML = "```yaml\ninput: a.csv\noutput: b.csv\n```"
RULED = "```markdown\n# Report\n\n---\n\n## Output:\nAll is well.\n```"


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (f"Output:\n{PYTHON}", [("", PYTHON)]),
        (f"Output:\n{LISTED}", [("", LISTED)]),
        (f"Output:\n{SHELL}", [("", SHELL)]),
        (f"Input: two files\nOutput:\n{YAML}", [("two files", YAML)]),
        (f"Output:\n{RULED}", [("", RULED)]),
        (f"Input: x = 2\nOutput:\n{PYTHON}\nInput: none\nOutput:\n{LISTED}", [("x = 2", PYTHON), ("", LISTED)]),
        (f"Input:\n{PYTHON}\nOutput: It doubles 2.", [(PYTHON, "It doubles 2.")]),
        (f"{LISTED}\nOutput: It adds numbers.", [(LISTED, "It adds numbers.")]),
        (f"Output: Here it is.\n{PYTHON}\nIt prints 4.", [("", f"Here it is.\n{PYTHON}\nIt prints 4.")]),
        (f"## Output:\n{PYTHON}\n\n## Task 2: Name a tree.\nOutput: An oak.", [("", PYTHON)]),
        # The whole reply in a fence.
        ("```\nInput: rain\nOutput: wet\n```", [("rain", "wet\n```")]),
        # A fence that is never closed ends at the next field, but not at a comment.
        ("Input: a\nOutput:\n```python\n# Output: 1\nprint(1)\nInput: b\nOutput: c",
         [("a", "```python\n# Output: 1\nprint(1)"), ("b", "c")]),
        ("Input: a\nOutput:\n```python\nprint(1)\nInput: b\nOutput:\n```python\nprint(2)\n```",
         [("a", "```python\nprint(1)"), ("b", "```python\nprint(2)\n```")]),
        # Code without a fence.
        ("Output:\nx = f(2)\nprint(x)\n# Output: 4", [("", "x = f(2)\nprint(x)\n# Output: 4")]),
        ("# Input: rain\n# Output: wet", [("rain", "wet")]),
        ("Input:\nx = 3\n**Output:** 9", [("x = 3", "9")]),
        ("Input:\nx = 3\n# Output: 9", [("x = 3", "9")]),
        ("Output:\nf(2)\n## Output:\nf(3)", [("", "f(2)")]),
        ("Output:\n```c\n/*\n * Input: a list\n */\n```", [("", "```c\n/*\n * Input: a list\n */\n```")]),
    ],
)  # fmt: skip
def test_what_stands_in_code_is_no_field(reply: str, found: list[tuple[str, str]]) -> None:
    read = read_reply(reply, False, False)
    assert [(item.input, item.output) for item in read] == found


def test_labels_with_code_as_inputs_are_read_whole() -> None:
    read = read_reply(f"Class label: python\nInput:\n{PYTHON}\nClass label: sh\nInput:\n{SHELL}", True, False)
    assert [(item.input, item.output) for item in read] == [(PYTHON, "python"), (SHELL, "sh")]


@pytest.mark.parametrize("output", ["```python", "```", "~~~", "```python\n```", "```\n\n```", "````md\n````"])
def test_a_fence_without_content_is_no_output(output: str) -> None:
    kept, dropped = refuse_instances([Found("", output)])
    assert (kept, [item.reason for item in dropped]) == ([], ["empty_output"])


def test_many_open_fences_are_read_in_linear_time() -> None:
    started = time.monotonic()
    for part in ("```a\n", "```\n", "~~~~\n```\n", "# Output: 4\n", "Output:\n```\n"):
        read_reply("Output:\n" + part * (40_000 // len(part)), False, False)
    assert time.monotonic() - started < 5


class Evolving(Tutor):
    """Makes of an instruction another of seven words, and now and then the same."""

    def answer(self, request: Request) -> Reply | Failure:
        said = request.messages[-1].content
        if "Below is an instruction" not in said:
            return super().answer(request)
        random = Random(said)
        word = [f"{a}{b}" for a in ("vi", "gra", "ple", "dro", "nue", "sha") for b in ("rn", "ld", "sk", "mp", "th")]
        if random.random() < 0.3:
            return Reply(text=f'{said.splitlines()[-1]}"')
        return Reply(text=f'Compare {" ".join(random.sample(word, 7))}"\n')


def test_instructions_with_a_row_are_evolved(tmp_path: Path) -> None:
    result = make(tmp_path, Evolving(), rows=60, window=4, evolve=2)
    told = result.report["evolved"]
    rows = [text for text in result.rows["input"] if text.startswith("Compare")]
    assert result.rows.num_rows == 60
    assert told["kept"] > 5
    assert rows
    assert told["eliminated"]["not_evolved"] == result.report["dropped"]["not_evolved"] > 0
    instructions = [item["instruction"] for item in result.report["instructions"]]
    assert any(text.startswith("Compare") for text in instructions)
    again = Evolving()
    same = make(tmp_path, again, rows=60, window=4, evolve=2)
    assert again.asked == []
    assert same.rows["input"][:] == result.rows["input"][:]
    (tmp_path / "other").mkdir()
    shuffled = make(tmp_path / "other", Evolving(shuffle=3), rows=60, window=4, evolve=2)
    assert shuffled.rows["input"][:] == result.rows["input"][:]
