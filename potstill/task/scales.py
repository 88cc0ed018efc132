"""Whether labels stand in an order, and which: the points of a scale, or words from less to more.

Of such labels it matters how far an answer lies from the right one: "4 stars" for five is nearly right, "1 star" is
not. Accuracy and F1 count both alike, so that figures of distance stand beside them (`potstill.train.ordinal`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from potstill.language.label_words import is_scaled
from potstill.task import Inferred, readable
from potstill.task.fields import choice_of
from potstill.task.front_matter import Faults, Node

# Words from less to more; a task's labels are some of a line, three at least.
_LADDERS = tuple(
    tuple(step.split("/") for step in line.split())
    for line in (
        "none/no verylow/minimal low/minor/mild/slight medium/moderate/mid/normal/average high/major/strong/severe "
        "veryhigh/critical/extreme/urgent",
        "none/no low/minor/mild/slight medium/moderate/mid/normal urgent/high critical/emergency",
        "trivial/veryeasy easy medium/moderate/normal hard/difficult veryhard/verydifficult",
        "beginner/novice elementary/basic intermediate advanced expert/proficient",
        "verybad/terrible/awful bad/poor okay/ok/fair/average/neutral/mediocre good verygood/excellent/great",
        "verypoor poor fair/average/acceptable good verygood excellent/outstanding",
        "verynegative negative neutral/mixed positive verypositive",
        "stronglynegative/strongnegative negative/weaklynegative neutral positive/weaklypositive "
        "stronglypositive/strongpositive",
        "stronglydisagree disagree/somewhatdisagree neutral/neither agree/somewhatagree stronglyagree",
        "verydissatisfied dissatisfied/unsatisfied neutral satisfied verysatisfied",
        "never rarely/seldom sometimes/occasionally often/frequently/usually always",
        "veryunlikely/impossible unlikely possible/neutral likely verylikely/certain",
        "tiny small/short medium large/big/long huge/verylarge/verylong",
        "irrelevant/notrelevant somewhatrelevant/partiallyrelevant relevant/highlyrelevant perfectlyrelevant/perfect",
        "a1 a2 b1 b2 c1 c2",
    )
)
_NUMBERED = re.compile(r"(?P<ahead>[A-Za-z]+[ _-]?)?(?P<number>\d{1,2})(?P<behind>(?:/\d{1,2}|[ _-]?[A-Za-z]+)?)")


def label_order(names: Sequence[str]) -> list[int] | None:
    """The place of each label where names alone tell an order: numbers side by side, or words from less to more.

    Examples:
        >>> label_order(["3 stars", "1 star", "2 stars"]), label_order(["low", "medium", "high"])
        ([2, 0, 1], [0, 1, 2])
        >>> label_order(["negative", "neutral", "positive"]), label_order(["bug", "billing", "other"]) is None
        ([0, 1, 2], True)
    """
    return _numbers(names) or _words(names)


def order_of(
    given: Mapping[str, Node],
    names: Sequence[str],
    instruction: str,
    metric: str,
    inferred: list[Inferred],
    faults: Faults,
) -> tuple[int, ...]:
    """The place of each label on its scale, as the task file's `ordered` or the labels and the prompt tell; () of none.

    Args:
        given: The front matter.
        names: The labels. Where the file calls them ordered and they tell no order, theirs is that in which they stand.
        instruction: The task's: numbers are classes where it asks for no more or less of something.
        metric: The task's, which may need an order.
        inferred: Takes what was found.
        faults: Takes what is wrong.
    """
    if "ordered" in given:
        said = choice_of(given["ordered"], "ordered", ("true", "false", "yes", "no"), faults)
        if said in ("true", "yes") and len(names) > 1:
            return tuple(label_order(names) or range(len(names)))
        order = None
    else:
        order = (_numbers(names) if is_scaled(instruction) else None) or _words(names)
    if order is None:
        if metric == "qwk":
            line = given["metric"].line if "metric" in given else 0
            faults.add(line, "metric: qwk is for labels in an order; say ordered: true if these stand in one")
        return ()
    inferred.append(Inferred("ordered", "yes", "rules"))
    return tuple(order)


def _numbers(names: Sequence[str]) -> list[int] | None:
    found = [_NUMBERED.fullmatch(name.strip()) for name in names]
    if len(names) < 3 or not all(found):
        return None
    told = [hit for hit in found if hit]
    if len({(hit["ahead"] or "").lower() for hit in told}) > 1 or len({hit["behind"].rstrip("s") for hit in told}) > 1:
        return None
    numbers = [int(hit["number"]) for hit in told]
    low = min(numbers)
    return [number - low for number in numbers] if sorted(numbers) == list(range(low, low + len(numbers))) else None


def _words(names: Sequence[str]) -> list[int] | None:
    """Places on the first ladder that holds all names, counted over the steps that are there."""
    said = [re.sub(r"[\W_]", "", readable(name).lower()) for name in names]
    for ladder in _LADDERS:
        steps = [next((at for at, step in enumerate(ladder) if word in step), -1) for word in said]
        if len(names) > 2 and min(steps) >= 0 and len(set(steps)) == len(steps):
            there = sorted(steps)
            return [there.index(step) for step in steps]
    return None
