"""Coverage-guided fuzzing of everything that reads a teacher's reply or a user's file. Run by `test_fuzz.py`.

python tests/datagen/fuzz_parsers.py SECONDS [CORPUS]
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["potstill.datagen"], enable_loader_override=False):
    from potstill.datagen import filters, parse, self_instruct_files, self_instruct_text
    from potstill.datagen.novelty import NoveltyFilter, rouge_l_f1
from potstill.errors import DataError

SEEDS = Path(tempfile.mkdtemp(prefix="potstill-fuzz-")) / "seeds.jsonl"
SLOWEST_S = 5.0
NAMES = ["Sports", "Sci/Tech", "card_arrival", "hate speech"]


def one(data: bytes) -> None:
    """Read one input in every way; anything that raises, or takes too long, ends the fuzzing."""
    started = time.perf_counter()
    given = atheris.FuzzedDataProvider(data)
    cut, classification, count = given.ConsumeBool(), given.ConsumeBool(), given.ConsumeIntInRange(1, 9)
    text = given.ConsumeUnicode(len(data))
    for made in (parse.plain(text), parse.clean_text(text), *parse.split_list(text, count)):
        made.encode("utf-8")
        assert "\x00" not in made
    assert len(parse.split_list(text, count)) <= count
    fields = parse.read_fields(text, ["premise", "hypothesis"])
    assert fields is None or all(fields.values())
    parse.strings_in(parse.read_json(text), "texts")
    parse.last_full_sentence(text)
    self_instruct_text.is_yes(text)
    for item in self_instruct_text.split_instructions(text, count, cut):
        self_instruct_text.refuse_instruction(item)
    self_instruct_text.refuse_instances(self_instruct_text.read_instances(text, classification, cut))
    clean = parse.clean_text(text)
    for found in (
        filters.too_short(clean, 2), filters.refusal(clean), filters.meta_talk(clean), filters.repetition(clean),
        filters.label_leak(clean, NAMES), filters.prompt_echo(clean, text), filters.wrong_language(clean, ("en",)),
    ):  # fmt: skip
        assert found is None or found.reason
    novelty = NoveltyFilter(0.7)
    for line in clean.split("\n")[:8]:
        match = novelty.admit(line)
        assert match is None or match.f1 > 0.7
    if len(clean) < 200:
        assert 0 <= rouge_l_f1(clean, text[:200]) <= 1
    SEEDS.write_bytes(json.dumps({"instruction": text[:50]}).encode() + b"\n" + data)
    with contextlib.suppress(DataError):
        self_instruct_files.read_seed_tasks(SEEDS)
    assert time.perf_counter() - started < SLOWEST_S, "a reply took too long to read"


if __name__ == "__main__":
    seconds, *corpus = sys.argv[1:]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-verbosity=0", *corpus], one)
    atheris.Fuzz()
