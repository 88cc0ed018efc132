"""How likely the teacher finds each label of a text, before any calibration.

A label's score is the summed log-prob of its whole name as the answer (`direct`), or of the text as written for the
label (`channel`, Min et al., arXiv:2108.04106). Sums are not divided by length: that favours long names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from potstill import prompts
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.wording import input_noun, readable, with_article
from potstill.task import TaskSpec
from potstill.teacher import Message, Reply, ScoreRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asker import Asker

PURPOSE = "soft"
# With many labels every spelling is one more branch for every text; those that hold a trace of their label's
# probability in the first texts are scored in these alone. On banking77 that leaves 177 of 308, and moves a score by
# 0.004 nats on average.
_MANY_SPELLINGS, _PROBE, _TRACE = 100, 8, 0.02


def label_scores(
    spec: TaskSpec, inputs: Sequence[str], asker: Asker, options: SoftOptions | None = None
) -> NDArray[np.float64]:
    """Summed log-probs of the labels for each text.

    Args:
        spec: A classification task.
        inputs: Texts.
        asker: A teacher that can score (`abilities.scores`).
        options: How; defaults as in `SoftOptions`.

    Returns:
        (len(inputs), n_labels) float64, nats, in the order of `spec.labels`; NaN where there was no reply.

    Raises:
        TeacherError: The teacher refused, stayed away or cannot score.
    """
    options = options or SoftOptions()
    texts = [text[: options.max_chars] for text in inputs]
    if options.direction == "channel":
        return _channel_scores(spec, texts, asker)
    return _direct_scores(spec, texts, asker, options)


def answer_spellings(name: str) -> tuple[str, ...]:
    """The spellings of a label's name that count as the same answer.

    The last is the name after a space: some templates leave that space to the answer, and its token is another one.
    """
    forms = [name, name.lower(), readable(name), name[:1].upper() + name[1:], f" {name}"]
    return tuple(dict.fromkeys(form for form in forms if form.strip()))


def _direct_scores(spec: TaskSpec, texts: Sequence[str], asker: Asker, options: SoftOptions) -> NDArray[np.float64]:
    import numpy as np

    prompt = prompts.load("score_label")
    spellings = [answer_spellings(name) if options.variants else (name,) for name in spec.label_names]
    names = list(spec.label_names)
    asked = [
        (Message("user", prompt.render(instruction=spec.instruction, input=text, labels=names)),) for text in texts
    ]

    def scored(messages: Sequence[tuple[Message, ...]], forms: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Log-prob of each spelling, for each question; empty where there was no reply."""
        # Two labels may share a spelling (`US`, `us`): it is scored once and counts for both.
        every = tuple(dict.fromkeys(form for own in forms for form in own))
        answers = asker.ask([ScoreRequest(messages=item, continuations=every) for item in messages], PURPOSE)
        replies = [answer.reply for answer in answers]
        return [
            dict(zip(every, reply.scores, strict=True))
            if isinstance(reply, Reply) and len(reply.scores) == len(every)
            else {}
            for reply in replies
        ]

    found: list[dict[str, float]] = []
    if sum(map(len, spellings)) >= _MANY_SPELLINGS and len(texts) > 2 * _PROBE:
        found = scored(asked[:_PROBE], spellings)
        spellings = [_telling(own, found) for own in spellings]
    found += scored(asked[len(found) :], spellings)
    scores = np.full((len(texts), len(names)), np.nan)
    for row, own in enumerate(found):
        for column, forms in enumerate(spellings if own else ()):
            scores[row, column] = np.logaddexp.reduce([own[form] for form in forms])
    return scores


def _telling(forms: Sequence[str], found: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """The spellings of one label that hold more than a trace of its probability in the first texts."""
    import numpy as np

    values = np.array([[own[form] for form in forms] for own in found if own])
    if not len(values) or not np.isfinite(values).all():
        return tuple(forms)
    shares = np.exp(values - np.logaddexp.reduce(values, axis=1)[:, None]).mean(axis=0)
    return tuple(form for form, share in zip(forms, shares, strict=True) if share >= _TRACE)


def _channel_scores(spec: TaskSpec, texts: Sequence[str], asker: Asker) -> NDArray[np.float64]:
    import numpy as np

    prompt = prompts.load("write_for_label_short")
    noun = input_noun(spec)
    asked = [
        prompt.render(
            label=readable(label.name),
            description=label.description,
            noun=noun,
            article=with_article(noun).split()[0],
            examples=[],
            style=[],
            avoid=[],
            topic="",
            manners=[],
            language="",
            count=1,
            fields=[],
        )
        for label in spec.labels
    ]
    requests = [
        ScoreRequest(messages=(Message("user", question),), continuations=(text or " ",))
        for text in texts
        for question in asked
    ]
    scores = np.full(len(requests), np.nan)
    for index, answer in enumerate(asker.ask(requests, PURPOSE)):
        if isinstance(answer.reply, Reply) and len(answer.reply.scores) == 1:
            scores[index] = answer.reply.scores[0]
    return scores.reshape(len(texts), len(spec.labels))
