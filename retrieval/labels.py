"""Foreign labels → the task's labels, or none.

A wrong label hurts more than a missing row, so each step must be sure or leave the label to the next one, and what
no step is sure of stays unmapped:

1. Equal names, ignoring case, spaces and punctuation.
2. The same word in another form: `happiness` and `joy`, `pos` and `positive` (a short list), and codes, `ENTY` and
   `entity`: in capitals, or in a set that is of codes throughout. A short name alone is no code: `war` begins
   `warning`, and `fear` has its letters in `feature`.
3. What the column says: `is_spam` with 0 and 1, `stars` from 1 to 5. Yes and no in a column of a name that says
   something go by that name alone, before step 2: `is_fake` with true does not mean genuine.
4. Negations: a foreign `not X` beside `X` is the other label of a task with two, and *several* labels of a task with
   more. An encoder cannot tell `hate` from `no hate`, so a negated name is never matched by meaning.
5. Meaning: the embedding of the foreign name, and of the texts that carry it, against the task's labels with their
   descriptions; with a floor, and a margin over the second best.
6. The teacher, where it can follow a schema, for what is left; its answer counts only where the embedding does not
   contradict it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from potstill.retrieval.label_names import LabelNames, plain_label
from potstill.task import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker
    from potstill.models import TextEncoder

FLOOR = 0.60
MARGIN = 0.08
TEACHER_FLOOR = 0.25
_SAME = tuple(
    frozenset(group.split("|"))
    for group in (
        "positive|pos|good|favourable|favorable|plus",
        "negative|neg|bad|unfavourable|unfavorable|minus",
        "neutral|neu|no impact",
        "yes|true|y",
        "no|false|n",
        "entailment|entails|entailed|entail",
        "contradiction|contradicts|contradict|contradictory",
        "joy|happiness|happy|joyful",
        "sadness|sad",
        "anger|angry",
        "fear|afraid|fearful|scared",
        "disgust|disgusted",
        "surprise|surprised",
        "neutral|no emotion",
        "spam|junk|unwanted",
        "ham|legitimate|wanted",
        "sport|sports",
        "business|economy|economics|finance|financial|money",
        "sci tech|science|technology|tech|science and technology|sci|science technology|scitech",
        "world|international|world news|foreign",
        "human|person|people",
        "location|place|where",
        "number|numeric|quantity|count",
        "entity|object|thing",
        "question|interrogative",
        "genuine|real|true|authentic|legitimate",
        "fake|false",
        "supported|supports|support",
        "refuted|refutes|refute",
        "for|favor|favour|in favor|pro|agree",
        "against|anti|contra|disagree",
    )
)
_REST = frozenset({
    "other", "others", "misc", "miscellaneous", "none", "unknown", "skip", "idk", "na", "neither", "rest",
    "unrelated", "undefined", "null", "unclear",
})  # fmt: skip
_NEGATED = re.compile(r"^(?:not|no|non|none|without|isn t|is not)\b ?(.*)$")
_FLAGS = {"1": True, "true": True, "yes": True, "y": True, "0": False, "false": False, "no": False, "n": False}
# Names of columns that say that there are labels, and not which.
_SAYS_NOTHING = frozenset({
    "", "is", "has", "label", "labels", "flag", "class", "target", "gold", "answer", "output", "value", "verdict",
    "truth", "veracity", "category", "type", "result", "binary", "final", "majority", "fact", "check", "news", "text",
    "sentence", "claim", "statement", "review", "tweet", "message", "comment", "article", "post",
})  # fmt: skip
_ENDINGS = ("es", "ed", "ing", "ful", "ive", "ation", "ness", "al")
_CODE = 4  # letters of the longest code
_RATED = re.compile(r"(?i)\b(stars?|ratings?|review_score|overall)\b")


@dataclass(frozen=True)
class LabelMap:
    """Where each foreign label goes.

    Attributes:
        target: Foreign name → the task's label, or None.
        score: Foreign name → similarity of its best match (1.0 where a rule decided).
        exact: Share of mapped labels that matched by name.
        several: Foreign name → the labels that it may mean, where it is more than one; `target` is None there.
        how: Foreign name → what decided: `name`, `form`, `column`, `negation`, `meaning`, `teacher`.
    """

    target: Mapping[str, str | None]
    score: Mapping[str, float]
    exact: float
    several: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    how: Mapping[str, str] = field(default_factory=dict)

    @property
    def covered(self) -> tuple[str, ...]:
        """The task's labels that some foreign label maps to, sorted."""
        return tuple(sorted({name for name in self.target.values() if name is not None}))


def map_labels(
    foreign: Mapping[str, Sequence[str]],
    spec: TaskSpec,
    encoder: TextEncoder,
    *,
    floor: float = FLOOR,
    margin: float = MARGIN,
    column: str = "",
    asker: Asker | None = None,
) -> LabelMap:
    """Map foreign labels onto the task's.

    Args:
        foreign: Foreign label → some texts that carry it (up to 20 are used).
        spec: The task with its labels.
        encoder: Sentence encoder.
        floor: Least similarity of a match by meaning.
        margin: Least distance to the second best label.
        column: Name of the foreign column, which may say what its numbers mean.
        asker: The teacher, for what rules and embedding leave open.
    """
    names = list(foreign)
    known = LabelNames(spec.label_names)
    target: dict[str, str] = {}
    how: dict[str, str] = {}

    def settle(found: Mapping[str, str], why: str) -> None:
        for name, label in found.items():
            if name not in target:
                target[name], how[name] = label, why

    settle({name: label for name in names if (label := known.get(name)) is not None}, "name")
    exact = len(target)
    score = dict.fromkeys(target, 1.0)
    several: dict[str, tuple[str, ...]] = {}
    asked = _flags_of_a_named_column(names, spec.label_names, column)
    if not asked:
        codes = _codes(names, spec.label_names) | _codes(spec.label_names, names)
        settle(_by_form([n for n in names if n not in target], spec.label_names, codes), "form")
    settle(_by_column(names, spec.label_names, column), "column")
    decided, several = _by_negation(names, target, spec.label_names)
    settle(decided, "negation")
    score |= dict.fromkeys(target, 1.0)
    # When most of the task's names are there, what is left over is another class, not a synonym.
    if exact < max(2, (len(spec.labels) + 1) // 2) or exact < len(spec.labels) <= 2:
        rest = [name for name in names if name not in target and name not in several and _has_meaning(name)]
        if rest and len(set(target.values())) < len(spec.labels):
            near = _by_meaning(rest, foreign, spec, encoder)
            settle(near.matches(floor, margin, taken=set(target.values())), "meaning")
            score |= near.best
            left = [name for name in rest if name not in target]
            if left and asker is not None and asker.abilities.json_schema:
                settle(_by_teacher(left, foreign, spec, asker, near), "teacher")
            # A foreign `not X` can follow an X that only its meaning gave away.
            decided, more = _by_negation(names, target, spec.label_names)
            settle(decided, "negation")
            several |= {name: labels for name, labels in more.items() if name not in target}
    full = {name: target.get(name) for name in names}
    for name in names:
        score.setdefault(name, 0.0)
    return LabelMap(full, score, exact / len(target) if target else 0.0, several, how)


def _has_meaning(name: str) -> bool:
    """Whether a name alone may be compared by meaning: no number, no single letter, no negation, no left-over class."""
    plain = plain_label(name)
    return not (
        len(plain) < 2
        or not any(letter.isalpha() for letter in plain)
        or _NEGATED.match(plain)
        or set(plain.split()) & _REST
    )


def _forms(name: str) -> frozenset[str]:
    plain = plain_label(name)
    return frozenset({plain}.union(*(group for group in _SAME if plain in group)))


def _by_form(names: Iterable[str], labels: Sequence[str], codes: frozenset[str] = frozenset()) -> dict[str, str]:
    """The same word in another form; only where exactly one of the task's labels fits.

    Args:
        names: Foreign names.
        labels: The task's labels.
        codes: Names and labels that are codes, see `_codes`.
    """
    found = {}
    for name in names:
        plain = plain_label(name)
        fits = [label for label in labels if _forms(label) & _forms(name)]
        if not fits:
            # `HUM` may be cut from a synonym of `person`; a longer word that begins with a synonym is another word.
            fits = [
                label
                for label in labels
                if _shortened(plain, plain_label(label))
                or (label in codes and _cut(plain_label(label), plain))
                or (name in codes and any(_cut(plain, form) for form in _forms(label)))
                or any(len(plain) < len(form) and _shortened(plain, form) for form in _forms(label))
            ]
        if len(fits) == 1:
            found[name] = fits[0]
    return found


def _codes(names: Sequence[str], words: Sequence[str]) -> frozenset[str]:
    """Those of `names` that are evidently cut from words, as `ENTY` is, and no words themselves.

    In capitals, where longer names are not in capitals too; or every name of the set is short, and three or more, most
    of them, begin each another of `words`: who cuts one name cuts them all (`ang`, `hap`, `sad`, `neu`).
    """
    short = [name for name in names if name.isalpha() and len(name) <= _CODE]
    capitals = [name for name in short if name.isupper()]
    if any(name.isupper() and name not in short for name in names):
        capitals = []
    begun = {
        name: fits
        for name in short
        if (plain := plain_label(name)) not in {form for word in words for form in _forms(word)}
        and len(fits := [word for word in words if any(_cut(plain, form, whole=True) for form in _forms(word))]) == 1
    }
    apart = len({fits[0] for fits in begun.values()}) == len(begun)
    if len(short) == len(names) and apart and len(begun) >= 3 and 2 * len(begun) >= len(names):
        return frozenset(names)
    return frozenset(capitals)


def _cut(code: str, word: str, *, whole: bool = False) -> bool:
    """Whether a code begins a word or, unless `whole`, has its letters in it after two equal ones: `neg`, `ENTY`."""
    if not 3 <= len(code) <= min(_CODE, len(word) - 2) or not word.isalpha():
        return False
    letters = iter(word)
    return word.startswith(code) or (not whole and word[:2] == code[:2] and all(letter in letters for letter in code))


def _shortened(first: str, second: str) -> bool:
    """Whether the longer of two words is the shorter one with an ending: `support` and `supported`."""
    short, long = sorted((first, second), key=len)
    return len(short) > 3 and long.startswith(short) and long[len(short) :] in _ENDINGS


def _by_column(names: Sequence[str], labels: Sequence[str], column: str) -> dict[str, str]:
    """Values whose meaning stands in the column's name: `is_spam`, `stars`."""
    if len(names) <= 2 and len(labels) == 2 and all(plain_label(name) in _FLAGS for name in names):
        words = _words_of(column)
        fits = set(_by_form([" ".join(words)], labels).values()) or set(_by_form(words, labels).values())
        if len(fits) == 1:
            (yes,) = fits
            (no,) = (label for label in labels if label != yes)
            turned = bool({"not", "non", "no"} & set(re.split(r"[^a-z0-9]+", column.lower())))
            return {name: yes if _FLAGS[plain_label(name)] != turned else no for name in names}
    plain = [plain_label(name) for name in names]
    counts = [(name, re.fullmatch(r"(\d)(?: stars?)?(?: 0)?", plain_label(name))) for name in names]
    stars = {name: int(match[1]) for name, match in counts if match}
    rated = bool(_RATED.search(column.replace("_", " "))) or all("star" in value for value in plain)
    if rated and len(stars) == len(names) and set(stars.values()) <= set(range(1, 6)) and max(stars.values()) == 5:
        sides = _by_form(["positive", "negative", "neutral"], labels)
        if {"positive", "negative"} <= set(sides):
            side = {1: "negative", 2: "negative", 3: "neutral", 4: "positive", 5: "positive"}
            return {name: sides[side[count]] for name, count in stars.items() if side[count] in sides}
    return {}


def _words_of(column: str) -> list[str]:
    """What a column's name says: `is_spam` → `spam`."""
    return [
        word for word in re.split(r"[^a-z0-9]+", column.lower()) if word not in {*_SAYS_NOTHING, "not", "non", "no"}
    ]


def _flags_of_a_named_column(names: Sequence[str], labels: Sequence[str], column: str) -> bool:
    """Whether values are yes and no to what a column's name asks, and the task's labels are not."""
    flags = all(plain_label(name) in _FLAGS for name in names)
    return flags and bool(_words_of(column)) and not any(plain_label(label) in _FLAGS for label in labels)


def _by_negation(
    names: Sequence[str], target: Mapping[str, str], labels: Sequence[str]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """What `not X` means where X is known: the other of two labels, or one of several.

    Returns:
        Labels for names, and several labels for names.
    """
    found: dict[str, str] = {}
    several: dict[str, tuple[str, ...]] = {}
    for bare, negated in _negated_pairs(names):
        one, other = (bare, negated) if bare in target else (negated, bare)
        if one not in target or other in target:
            continue
        rest = tuple(label for label in labels if label != target[one])
        if len(rest) == 1:
            found[other] = rest[0]
        elif len(names) == 2 and one == bare:
            several[other] = rest
    return found, several


def _negated_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (X, not X) among foreign labels: `hate` and `noHate`, `acceptable` and `unacceptable`, `OFF` and `NOT`."""
    pairs = []
    plain = {name: plain_label(name) for name in names}
    for negated, text in plain.items():
        match = _NEGATED.match(text)
        for bare, word in plain.items():
            if bare == negated:
                continue
            alone = match is not None and not match[1] and len(names) == 2
            said = match is not None and bool(match[1]) and (match[1] == word or _shortened(match[1], word))
            grown = text in (f"un{word}", f"in{word}", f"non{word}", f"dis{word}", f"im{word}")
            if alone or said or grown:
                pairs.append((bare, negated))
    return pairs


@dataclass(frozen=True)
class _Near:
    """Similarities of the names that are left, (n, labels): by name, and with what their texts add."""

    names: list[str]
    labels: tuple[str, ...]
    by_name: NDArray[np.float32]
    by_text: NDArray[np.float32]

    @property
    def best(self) -> dict[str, float]:
        return {name: float(self.by_name[row].max()) for row, name in enumerate(self.names)}

    def of(self, name: str, label: str) -> float:
        """Similarity of one name and label."""
        return float(self.by_name[self.names.index(name), self.labels.index(label)])

    def matches(self, floor: float, margin: float, taken: set[str]) -> dict[str, str]:
        """Names whose best label is near enough and far enough from the second best.

        Args:
            floor: Least cosine of the names.
            margin: Least distance to the second best label, of names and texts together.
            taken: Labels that a rule has given away already: they stay open for another name only when it is as near
                as can be, since a foreign set rarely says one thing twice.
        """
        import numpy as np

        found = {}
        both = self.by_name + self.by_text
        for row, name in enumerate(self.names):
            order = np.argsort(-both[row])
            best = int(order[0])
            second = float(both[row, order[1]]) if len(order) > 1 else -1.0
            need = floor + 0.15 * (self.labels[best] in taken)
            near = self.by_name[row, best] >= need and both[row, best] - second >= margin
            if near and self.by_text[row, best] >= 0:
                found[name] = self.labels[best]
        return found


def _by_meaning(rest: list[str], foreign: Mapping[str, Sequence[str]], spec: TaskSpec, encoder: TextEncoder) -> _Near:
    import numpy as np

    described = [f"{plain_label(label.name)}: {label.description}".rstrip(": ") for label in spec.labels]
    labels = encoder.encode(described)
    bare = encoder.encode([plain_label(label.name) for label in spec.labels])
    names = encoder.encode([plain_label(name) for name in rest])
    by_name = np.maximum(names @ labels.T, names @ bare.T)
    by_text = np.stack([_text_similarity(foreign[name], labels, encoder) for name in rest])
    # Texts of one dataset share its domain; only how they differ from label to label says something.
    by_text = by_text - by_text.mean(axis=0, keepdims=True)
    return _Near(rest, spec.label_names, by_name, by_text)


def _text_similarity(texts: Sequence[str], labels: NDArray[np.float32], encoder: TextEncoder) -> NDArray[np.float32]:
    import numpy as np

    sample = [text[:500] for text in texts[:20] if text.strip()]
    if not sample:
        return np.zeros(len(labels), dtype=np.float32)
    mean = encoder.encode(sample).mean(axis=0)
    similarity: NDArray[np.float32] = labels @ mean
    return similarity


def _by_teacher(
    left: Sequence[str], foreign: Mapping[str, Sequence[str]], spec: TaskSpec, asker: Asker, near: _Near
) -> dict[str, str]:
    """The teacher's label for names that are left; kept where the name's embedding is not far from that label."""
    from potstill.asking.teacher import Failure, Message, Request
    from potstill.prompts import load

    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": [*spec.label_names, "none of these"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    requests = []
    for name in left:
        text = load("map_label").render(
            instruction=spec.instruction,
            labels=[{"name": label.name, "description": label.description} for label in spec.labels],
            foreign=plain_label(name),
            others=[plain_label(other) for other in foreign if other != name][:30],
            texts=[" ".join(item[:200].split()) for item in foreign[name][:3]],
        )
        requests.append(
            Request(messages=(Message("user", text),), max_tokens=60, temperature=0.0, schema=schema, tag=name)
        )
    found = {}
    for request, answer in zip(requests, asker.ask(requests, "map_label")):
        reply = answer.reply
        if isinstance(reply, Failure) or reply.finish != "stop":
            continue
        try:
            label = str(json.loads(reply.text)["label"])
        except (ValueError, KeyError, TypeError):
            continue
        if label in spec.label_names and near.of(request.tag, label) >= TEACHER_FLOOR:
            found[str(request.tag)] = label
    return found
