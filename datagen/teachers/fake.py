"""A teacher without a model: for dry runs, tests and load measurements.

What enters is any request; what leaves is decided by the request alone (its hash), so the same question always
has the same answer, in any order and any process. The text reads like English and is varied, follows a JSON
schema or a list of choices where one is given, and leans on the words of the topic that the prompt names: texts
written for two labels differ, and the scores of labels lean to the one whose words a text uses. So a student can
learn something from it, and every stage after it has work to do. Faults can be injected at fixed rates.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any
from zlib import crc32

from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, ScoreRequest, Take, TokenTop


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


# A line of the form that the prompts for inputs of several fields show.
_FORM = re.compile(r"^(\S.{0,60}?): \.\.\.$", re.MULTILINE)
# A reply that was opened with a mark and a word, which only questions are (`field_by_field`).
_BEGUN = re.compile(r'"[A-Z][a-z]+\Z')
_SUBJECTS = _list(
    "The company|A customer|My neighbour|The report|Our team|The city council|A recent study|The new device|"
    "An engineer|The local museum|Her colleague|The delivery|This winter|A small bakery|The minister|The airline|"
    "The coach|Their landlord|The software update|A group of students|The hospital|Last night's match|The market|"
    "The old bridge|One of the players|The committee|A young writer|The garden|That afternoon|The train"
)
_VERBS = _list(
    "announced|described|lost|found|delivered|repaired|questioned|opened|changed|explained|missed|praised|won|"
    "delayed|bought|rejected|improved|cancelled|ordered|discovered|reported|borrowed|noticed|planned|finished"
)
_OBJECTS = _list(
    "a plan for the summer|the missing order|three new rules|an unusual result|the second invoice|a long letter|"
    "the final round|a better price|the broken window|several old books|the main road|a surprising number|"
    "an early warning|the whole account|a quiet place|the first version|two large boxes|the wrong address|"
    "a simple answer|the annual budget|some fresh ideas|a small mistake|the last page|an open question"
)
_ENDINGS = _list(
    "before the end of the week|without saying why|after a long wait|for the third time this year|in the rain|"
    "with little effort|as nobody had expected|near the river|on Monday morning|despite the warnings|at half price|"
    "because the old one failed|while everyone was away|in front of the office|during the holidays|once again"
)
_TOPIC_WORDS = _list(
    "amber|anchor|apron|arrow|aspen|attic|badge|bamboo|barley|basil|beacon|bishop|blanket|bottle|branch|bronze|"
    "bucket|butter|cabin|cactus|camera|candle|canvas|canyon|carbon|carpet|castle|cellar|cement|chapel|cherry|"
    "clover|cobalt|comet|copper|coral|cotton|cradle|crystal|dagger|daisy|desert|diesel|dragon|drawer|eagle|ember|"
    "engine|falcon|feather|fiddle|forest|fossil|fountain|garlic|ginger|glacier|granite|guitar|hammer|harbor|"
    "hazel|helmet|hockey|honey|indigo|island|ivory|jacket|jasmine|jungle|kernel|kettle|ladder|lagoon|lantern|"
    "lemon|linen|lizard|magnet|maple|marble|meadow|mirror|mosaic|mustard|needle|nickel|oyster|paddle|pebble|"
    "pepper|pillow|planet|pocket|quartz|rabbit|raven|ribbon|rocket|saddle|saffron|salmon|scarf|shovel|silver|"
    "spider|summit|tailor|temple|thistle|timber|tunnel|turtle|valley|velvet|violin|walnut|willow|window|zebra"
)
_NAMED = re.compile(
    r"(?im)(?:\b(?:label|class|category|topic|intent)\b[^\n:\"'`*]{0,30}(?:[:=]|\bis\b)\s*[\"'`*]*([^\n\"'`*.,;]{1,60}))"
    r"|[\"“`*]{1,2}([^\n\"”`*]{1,60})[\"”`*]{1,2}"
)
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class FakeOptions:
    """How the fake teacher behaves.

    Attributes:
        concurrency: Requests that it takes at a time.
        seed: Another seed gives other texts.
        delay_s: Seconds to wait before each reply.
        failing: Share of requests that end as a failure.
        truncating: Share of text requests that end at `max_tokens`.
        refusing: Share of text requests that a filter stops.
        garbling: Share of schema requests whose reply is cut JSON.
        shuffle: Whether replies overtake each other.
        top_logprobs: Most log-probs of a token. Its tokens are those of no tokenizer, so that a student of texts cannot
            learn from them.
    """

    concurrency: int = 64
    seed: int = 0
    delay_s: float = 0.0
    failing: float = 0.0
    truncating: float = 0.0
    refusing: float = 0.0
    garbling: float = 0.0
    shuffle: bool = False
    top_logprobs: int = 0


class FakeTeacher:
    """Answers from word lists; see the module's text.

    Attributes:
        options: How it behaves.
        asked: Requests answered so far, for tests that count them.
    """

    def __init__(self, options: FakeOptions | None = None):
        self.options = options or FakeOptions()
        self.asked = 0

    @property
    def name(self) -> str:
        """Short name for people."""
        return "fake"

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a reply."""
        o = self.options
        return {
            "backend": "fake",
            "version": "1",
            "seed": str(o.seed),
            "faults": f"{o.failing}/{o.truncating}/{o.refusing}/{o.garbling}",
        }

    @property
    def abilities(self) -> Abilities:
        """Everything, but for log-probs where none are wanted."""
        most = self.options.top_logprobs
        return Abilities(prefill=True, json_schema=True, choices=True, top_logprobs=most, scores=True, user_turn=True)

    @property
    def concurrency(self) -> int:
        """Requests in flight at a time."""
        return self.options.concurrency

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives."""
        flying: deque[AnyRequest] = deque()
        order = Random(self.options.seed)
        while True:
            room = self.options.concurrency - len(flying)
            if room > 0:
                flying.extend(take(room))
            if not flying:
                return
            if self.options.shuffle:
                flying.rotate(-order.randrange(len(flying)))
            request = flying.popleft()
            if self.options.delay_s:
                time.sleep(self.options.delay_s)
            self.asked += 1
            yield request, self.answer(request)

    def answer(self, request: AnyRequest) -> Reply | Failure:
        """The one answer to a request."""
        random = Random(self._hash(request))
        o = self.options
        if random.random() < o.failing:
            return Failure("fake fault: no reply", attempts=3)
        prompt_tokens = sum(len(message.content.split()) + 4 for message in request.messages)
        if isinstance(request, ScoreRequest):
            return self._scored(request, prompt_tokens)
        if random.random() < o.refusing:
            return Reply(finish="refused", prompt_tokens=prompt_tokens)
        text = self._write(request, random)
        for stop in request.stop:
            text = text.split(stop)[0] if stop else text
        words = re.findall(r"\s*\S+", text)
        cut = len(words) > request.max_tokens
        if cut or random.random() < o.truncating:
            words = words[: min(request.max_tokens, max(1, len(words) // 2) if not cut else request.max_tokens)]
            text, cut = "".join(words), True
        return Reply(
            text=text,
            finish="length" if cut else "stop",
            prompt_tokens=prompt_tokens,
            # A truncated reply has used its bound.
            completion_tokens=request.max_tokens if cut else len(words),
            top=_tops(words, request.top_logprobs) if request.top_logprobs else (),
        )

    def close(self) -> None:
        """Nothing to free."""

    def _hash(self, request: AnyRequest) -> bytes:
        if isinstance(request, Request):
            parts: list[object] = [request.prefill, request.temperature, request.top_p, request.stop]
            parts += [request.turn] if request.turn != "assistant" else []
            if request.temperature > 0:
                parts += [request.seed, request.sample]
            parts += [json.dumps(request.schema, sort_keys=True), request.choices]
        else:
            parts = [request.prefill, request.continuations]
        parts += [(message.role, message.content) for message in request.messages]
        return hashlib.sha256(repr((self.options.seed, parts)).encode("utf-8", "surrogatepass")).digest()

    def _write(self, request: Request, random: Random) -> str:
        prompt = request.messages[-1].content if request.messages else ""
        if request.choices:
            scores = [_score(prompt, choice)[0] for choice in request.choices]
            return request.choices[max(range(len(scores)), key=scores.__getitem__)]
        topic = _topic(prompt)
        if request.schema is not None:
            text = json.dumps(_instance(request.schema, request.schema, topic, random), ensure_ascii=False)
            return text[: len(text) // 2] if random.random() < self.options.garbling else text
        if _BEGUN.search(request.prefill):
            return f" {_prose(topic, random, 1).removesuffix('.')}?"
        fields = _FORM.findall(prompt)
        lines = [f"{name}: {_prose(topic, random, 1)}" for name in fields]
        # An opened reply goes on behind the name of the first field.
        opened = bool(fields) and request.prefill.rstrip().endswith(f"{fields[0]}:")
        return "\n".join(lines).removeprefix(f"{fields[0]}:" if opened else "") if lines else _prose(topic, random)

    def _scored(self, request: ScoreRequest, prompt_tokens: int) -> Reply:
        prompt = request.messages[-1].content if request.messages else ""
        scored = [_score(prompt, continuation) for continuation in request.continuations]
        top: tuple[TokenTop, ...] = ()
        if request.top_logprobs and len(request.continuations) == 1:
            top = _tops(re.findall(r"\s*\S+", request.continuations[0]), request.top_logprobs)
        return Reply(
            prompt_tokens=prompt_tokens,
            scores=tuple(score for score, _ in scored),
            score_tokens=tuple(count for _, count in scored),
            top=top,
        )


@lru_cache(maxsize=4096)
def _topic(prompt: str) -> str:
    """The label or theme that a prompt names last (`label: x`, or a word in quotes), or a hash of the prompt."""
    named = [first or second for first, second in _NAMED.findall(prompt)]
    return (named[-1] if named else hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()).strip()


@lru_cache(maxsize=4096)
def _words_of(topic: str) -> tuple[str, ...]:
    return tuple(Random(crc32(topic.lower().strip().encode("utf-8", "surrogatepass"))).sample(_TOPIC_WORDS, 12))


def _prose(topic: str, random: Random, sentences: int | None = None) -> str:
    words = _words_of(topic)
    made = []
    for _ in range(sentences or random.randint(1, 3)):
        made.append(
            f"{random.choice(_SUBJECTS)} {random.choice(_VERBS)} {random.choice(_OBJECTS)} with the "
            f"{random.choice(words)} and the {random.choice(words)} {random.choice(_ENDINGS)}."
        )
    return " ".join(made)


def _score(prompt: str, continuation: str) -> tuple[float, int]:
    """Log-prob and token count of a continuation; higher where the prompt uses the continuation's topic words."""
    tokens = max(1, len(_WORD.findall(continuation)))
    present = set(prompt.lower().split()) | set(_WORD.findall(prompt.lower()))
    shared = sum(word in present for word in _words_of(continuation.strip()))
    noise = crc32(f"{continuation}\0{prompt}".encode("utf-8", "surrogatepass")) / 2**32
    return -2.0 * tokens - 4.0 * noise / (1 + shared) - 6.0 / (1 + shared), tokens


def _tops(words: list[str], k: int) -> tuple[TokenTop, ...]:
    """Log-probs of a made-up tokenizer: a word is a token, its likelihood falls with its rank."""
    tops = []
    for word in words:
        token = crc32(word.encode("utf-8", "surrogatepass")) % 50_000
        ids = tuple((token + 7 * rank) % 50_000 for rank in range(k))
        logprobs = tuple(math.log(0.6 * 0.4**rank) for rank in range(k))
        tops.append(TokenTop(token, logprobs[0], ids, logprobs))
    return tuple(tops)


def _instance(schema: Mapping[str, Any], root: Mapping[str, Any], topic: str, random: Random, depth: int = 0) -> Any:
    """A value that satisfies the usual part of JSON Schema."""
    if "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        return None if depth > 8 else _instance(target, root, topic, random, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        named = [value for value in schema["enum"] if str(value).lower() == topic.lower()]
        return named[0] if named else random.choice(list(schema["enum"]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _instance(random.choice(list(schema[key])), root, topic, random, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _instance(item, root, topic, random, depth + 1) for name, item in properties.items()}
    if kind == "array":
        low = int(schema.get("minItems", 1))
        high = max(low, int(schema.get("maxItems", low + 2)))
        items = schema.get("items", {"type": "string"})
        return [_instance(items, root, topic, random, depth + 1) for _ in range(random.randint(low, high))]
    if kind == "boolean":
        return random.random() < 0.5
    if kind in ("integer", "number"):
        low_value = float(schema.get("minimum", 0))
        high_value = float(schema.get("maximum", low_value + 10))
        value = random.uniform(low_value, high_value)
        return round(value) if kind == "integer" else round(value, 3)
    if kind == "null":
        return None
    text = _prose(topic, random)
    longest = schema.get("maxLength")
    return text if longest is None else text[: int(longest)]
