"""What the questions of a task's rules will take: one request for each text without a label and each wording."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from potstill.asking.token_estimate import likely_tokens
from potstill.plan.steps import Size, Step

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.datagen.soft_options import SoftOptions
    from potstill.task import TaskSpec

_STAGE = "weak"
_A_MESSAGE = 8.0  # what a chat template adds
_A_WORD = 8.0  # what an answer takes that is written
_LOOKED_AT, _PROBED, _LEAST_TIMED = 50, 16, 8


def rules_requests(spec: TaskSpec, asker: Asker, options: SoftOptions) -> tuple[int, list[str]]:
    """How many requests the questions of rules take, and the texts that they are asked about; 0 without either.

    Raises:
        DataError: The texts cannot be read.
    """
    if not spec.questions or spec.unlabelled is None:
        return 0, []
    from potstill.datagen.weak import usable_texts
    from potstill.retrieval.load import read_texts

    texts = [text for _, text in usable_texts(read_texts(spec.unlabelled, spec), spec.unlabelled.path)[0]]
    votes = options.votes if options.votes and not (asker.abilities.scores or asker.abilities.token_texts) else 1
    return len(texts) * spec.questions * votes, texts


def rules_step(
    spec: TaskSpec, asker: Asker, options: SoftOptions, *, earlier: Size | None = None, probe: bool = False
) -> list[Step]:
    """The questions of rules as a step of a plan; none where no rule asks.

    Args:
        spec: The task.
        asker: The teacher.
        options: How it is asked.
        earlier: Of the requests that an earlier run in the folder made.
        probe: Whether the first texts may be asked about now; the run finds the replies in its ledger.

    Raises:
        DataError: The texts cannot be read.
        TeacherError: A probe was asked for and the teacher refused or stayed away.
    """
    from potstill.datagen.asked_rules import ask_rules, rule_question

    requests, texts = rules_requests(spec, asker, options)
    if not requests:
        return []
    asking = [rule for rule in spec.rules if rule.kind == "prompt"]
    if earlier is None and probe:
        before = replace(asker.counts)
        ask_rules(asking, texts[: max(1, _PROBED // spec.questions)], spec.label_names, asker, options)
        asked, counts = asker.counts.fresh - before.fresh, asker.counts
        if asked:
            seconds = (counts.seconds - before.seconds) / asked if asked >= _LEAST_TIMED else None
            read, written = counts.prompt_tokens - before.prompt_tokens, counts.completion_tokens
            size = Size(read / asked, (written - before.completion_tokens) / asked, seconds, "probe")
            return [size.times(_STAGE, requests)]
    if earlier is None:
        shown = [text[: options.max_chars] for text in texts[:: max(1, len(texts) // _LOOKED_AT)]]
        chats = [
            rule_question(text, wording, [answer.text for answer in rule.choices])
            for text in shown
            for rule in asking
            for wording in rule.patterns
        ]
        read_tokens = sum(likely_tokens(message.content) + _A_MESSAGE for chat in chats for message in chat)
        earlier = Size(read_tokens / len(chats), 0.0 if asker.abilities.scores else _A_WORD, None, "assumed")
    return [earlier.times(_STAGE, requests)]
