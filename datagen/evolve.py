"""Instructions and inputs made harder, or others made of them, in rounds (Evol-Instruct, arXiv:2304.12244 §2).

A row that was kept is taken up again: a drawn operation goes deeper, adds a condition, makes it more specific, asks for
more steps of thought, or makes another text of the same field. What comes is answered as any other, and in the next
round it is evolved in its turn. What the eliminator refuses makes no row, and the text that it came of goes on to the
next round. Both stay, the text and what it became, so of n rounds about one row in n + 1 is as it was first written.

In: kept texts. Out: requests, the texts of their replies, and why one is refused. A request is a function of the text
and its round alone, so that a run that goes on asks for nothing again.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

from potstill import prompts
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.asking.token_estimate import likely_tokens
from potstill.datagen import filters
from potstill.datagen.novelty import rouge_l_f1
from potstill.datagen.options import GenerationOptions
from potstill.datagen.parse import clean_text, lacks_end, last_full_sentence, plain, within_quotes
from potstill.datagen.self_instruct_text import squeezed
from potstill.datagen.wording import input_noun, with_article
from potstill.datagen.writing import STOPS, Written, language_of, rng
from potstill.rows import Dropped
from potstill.task import TaskSpec

OPERATIONS = ("deepen", "constrain", "concretise", "reason", "widen")
# Most new tokens of an evolved instruction: as many as a long one has.
_INSTRUCTION_TOKENS = 160
# An answer that is sorry is none where it is as short as this, in words (arXiv:2304.12244 §2).
_SORRY_WORDS = 80
_NAMES = r"(?:prompt|instruction|task|text|version|input)"
# Not "the given text" nor "rewrite the sentence", which one in thirty instructions of people say.
_PROMPT_WORDS = re.compile(
    rf"#+ ?\w+ {_NAMES} ?#+|\b(?:rewritten|evolved|created|revised) {_NAMES}\b"
    r"|\b(?:given|original|new|previous|above) (?:prompt|instruction)\b"
    r"|\brewrit(?:e|ing) it so that\b|\A\W*(?:re)?write another\b|\bat most twenty words\b",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"\A\W*(?:here(?: is|'s)[^:\n]{0,60}|(?:the )?(?:new|rewritten|revised|evolved)[^:\n]{0,30}):\W*",
    re.IGNORECASE,
)
# The commonest words of English, of which alone an answer says nothing.
_SAYS_NOTHING = re.compile(
    r"\W*(?:\b(?:an?|the|and|or|but|if|of|to|in|on|at|by|for|with|from|as|is|are|was|were|be|been|it|its|this|that|these"
    r"|those|i|you|he|she|we|they|me|him|her|us|them|my|your|his|our|their|have|has|had|will|would|can|could|there|here)"
    r"\b\W*)*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Chain:
    """A kept text on its way through the rounds.

    Attributes:
        text: As it is now.
        round: Rounds that it has been through.
        keys: Of the requests that led to it.
    """

    text: str
    round: int
    keys: tuple[str, ...] = ()


@dataclass
class Evolution:
    """Which texts are to be evolved, and what became of those that were.

    Args:
        spec: The task.
        options: Rounds, seed, temperatures.
        abilities: Of the teacher.
    """

    spec: TaskSpec
    options: GenerationOptions
    abilities: Abilities
    _waiting: deque[Chain] = field(default_factory=deque)
    _asked: int = 0
    _ended: int = 0
    _passed: int = 0
    _kept: int = 0
    _rounds_left: int = 0
    _operations: Counter[str] = field(default_factory=Counter)
    _eliminated: Counter[str] = field(default_factory=Counter)

    @property
    def on(self) -> bool:
        """Whether anything is evolved at all."""
        return self.options.evolve > 0

    @property
    def waiting(self) -> bool:
        """Whether a text is there to be evolved."""
        return bool(self._waiting)

    @property
    def passing(self) -> float:
        """Share of evolved texts that go on to be answered, as far as is known."""
        return (self._passed + 1) / (self._ended + 2) if self.on else 0.0

    @property
    def in_flight(self) -> float:
        """Texts to be answered that will come of the requests without an answer."""
        return self.passing * (self._asked - self._ended)

    @property
    def expected(self) -> float:
        """Texts to be answered that will come of those that wait or are in flight, in all their rounds."""
        return self.passing * self._rounds_left

    @property
    def a_text(self) -> float:
        """Texts to be answered that will come of one more."""
        return self.passing * self.options.evolve

    def add(self, text: str, keys: tuple[str, ...], came_of: Chain | None) -> None:
        """Take a kept text up: a first one, or one that came of another."""
        self._kept += came_of is not None
        self._go_on(Chain(text, came_of.round + 1 if came_of else 0, keys))

    def eliminate(self, chain: Chain, reason: str) -> None:
        """Count what came of a text and makes no row; the text goes on to the next round."""
        self._eliminated[reason] += 1
        self._go_on(replace(chain, round=chain.round + 1))

    def _go_on(self, chain: Chain) -> None:
        left = self.options.evolve - chain.round
        if left > 0:
            self._rounds_left += left
            self._waiting.append(chain)

    def next_request(self) -> tuple[Request, Chain]:
        """The request for the text that has waited longest. Only where one is `waiting`."""
        chain = self._waiting.popleft()
        self._asked += 1
        return evolve_request(self.spec, self.options, self.abilities, chain), chain

    def read(self, chain: Chain, request: Request, reply: Reply) -> Written:
        """What a reply makes of a text, or why it is refused; what is read still has to pass the filters."""
        self.end(chain)
        written = read_evolved(self.spec, request, reply)
        if written.fault:
            return written
        fault = refuse_evolved(chain.text, written.text, self.options.novelty)
        fault = fault or filters.prompt_echo(written.text, _words_around(self.spec, self.options, chain))
        return Written(written.text, fault.reason, fault.detail) if fault else written

    def end(self, chain: Chain) -> None:
        """A request is answered, or failed; what becomes of its text is told by `add` or `eliminate`."""
        self._ended += 1
        self._operations[operation_for(self.options.seed, chain)] += 1
        self._rounds_left -= self.options.evolve - chain.round

    def passed(self) -> None:
        """An evolved text passed the filters and is answered."""
        self._passed += 1

    def to_json(self) -> dict[str, Any]:
        """JSON types, for the report."""
        return {
            "rounds": self.options.evolve,
            "requests": self._ended,
            "answered": self._passed,
            "kept": self._kept,
            "operations": dict(sorted(self._operations.items())),
            "eliminated": dict(sorted(self._eliminated.items())),
        }


def assumed_shares(rounds: int) -> tuple[float, float]:
    """What a plan assumes: the share of rows as first written, and the evolving requests that a row takes.

    Half of what is evolved is taken to be kept.

    Examples:
        >>> assumed_shares(0), assumed_shares(2)
        ((1.0, 0.0), (0.5, 1.0))
    """
    return 1 / (1 + rounds / 2), rounds / (1 + rounds / 2)


def operation_for(seed: int, chain: Chain) -> str:
    """The operation that is drawn for a text in its round."""
    return rng(seed, chain.round, f"operation {chain.text}").choice(OPERATIONS)


def _rendered(spec: TaskSpec, options: GenerationOptions, chain: Chain, text: str) -> str:
    instructions = spec.kind == "instructions"
    noun = "instruction" if instructions else input_noun(spec)
    return prompts.load("evolve").render(
        operation=operation_for(options.seed, chain),
        instructions=instructions,
        noun=noun,
        article=with_article(noun).split()[0],
        instruction=" ".join(spec.instruction.split()),
        language=language_of(spec, 0, "", options.seed) if len(spec.languages) < 2 else "its own language",
        text=text,
    )


def _words_around(spec: TaskSpec, options: GenerationOptions, chain: Chain) -> str:
    """The prompt without the text that is evolved, which what comes of it may repeat."""
    return _rendered(spec, options, chain, "")


def evolve_request(spec: TaskSpec, options: GenerationOptions, abilities: Abilities, chain: Chain) -> Request:
    """The request for what a text becomes in its next round."""
    random = rng(options.seed, chain.round, f"evolve {chain.text}")
    noun = "instruction" if spec.kind == "instructions" else input_noun(spec)
    opened = abilities.prefill
    most = _INSTRUCTION_TOKENS if spec.kind == "instructions" else options.input_tokens(opened)
    return Request(
        messages=(Message("user", _rendered(spec, options, chain, chain.text)),),
        prefill=f'Here is the new {noun}:\n\n"' if opened else "",
        # Twenty words more, and room for a text that takes more tokens than others do.
        max_tokens=max(most, round(1.5 * likely_tokens(chain.text)) + 40),
        temperature=options.temperature,
        top_p=options.top_p,
        stop=STOPS if opened and "\n\n" not in chain.text else (),
        seed=random.randrange(2**31),
    )


def read_evolved(spec: TaskSpec, request: Request, reply: Reply) -> Written:
    """The text of a reply to `evolve_request`, or why there is none."""
    raw = reply.text
    if reply.finish == "refused":
        return Written(plain(raw)[:500], "refusal", "stopped by the teacher's own filter")
    alone = within_quotes(raw) if request.prefill.endswith('"') else raw
    cut = lacks_end(reply) and len(alone) >= len(raw)
    text = _LEAD.sub("", clean_text(alone, ""), count=1).strip()
    if not text:
        return Written("", "empty", "nothing came of it")
    if not cut:
        return Written(text)
    whole = "" if spec.kind == "instructions" else last_full_sentence(text)
    return Written(whole) if whole else Written(text, "truncated", "the text did not end")


def refuse_evolved(parent: str, text: str, novelty: float) -> Dropped | None:
    """The eliminator's reason against an evolved text, or None: it says the same, or words of the prompt are in it.

    Args:
        parent: What it came of.
        text: What it became.
        novelty: ROUGE-L F1 with the parent above which it is the same.

    Examples:
        >>> refuse_evolved("Name a tree.", "Name a tree!", 0.7).reason
        'not_evolved'
        >>> refuse_evolved("Name a tree.", "The rewritten prompt is: Name two trees of the Alps.", 0.7).reason
        'evolve_prompt_words'
    """
    if squeezed(parent) == squeezed(text) or (f1 := rouge_l_f1(parent, text)) > novelty:
        told = "" if squeezed(parent) == squeezed(text) else f"ROUGE-L {f1:.2f} with what it came of"
        return Dropped("not_evolved", told, text)
    found = _PROMPT_WORDS.search(text)
    if found and found[0].lower() not in parent.lower():
        return Dropped("evolve_prompt_words", found[0][:60], text)
    return None


def refuse_answer(text: str, output: str) -> Dropped | None:
    """The eliminator's reason against the answer to an evolved text, or None: it is sorry, or says nothing.

    Examples:
        >>> refuse_answer("Name a tree of the moon.", "Sorry, there are none.").reason
        'evolved_unanswered'
    """
    said = filters.words(output)
    if "sorry" in said and len(said) < _SORRY_WORDS:
        return Dropped("evolved_unanswered", "the answer is sorry", text, output)
    if _SAYS_NOTHING.fullmatch(output):
        return Dropped("evolved_unanswered", "the answer says nothing", text, output)
    return None
