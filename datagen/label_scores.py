"""How likely the teacher finds each label of a text, before any calibration.

A label's score is the summed log-prob of its whole name as the answer (`direct`), or of the text as written for the
label (`channel`, Min et al., arXiv:2108.04106). Sums are not divided by length: that favours long names.

How the question is put moves a small teacher more than anything else: on 300 to 400 training texts each of nine tasks,
with offsets that make the labels equally common, the macro-F1 of SmolLM2-135M is .39 where it is asked what the task
says, and .50 where it is to end the sentence "This is an example of …" behind the text alone. A teacher that follows
instructions knows more from the task. So a few texts are asked in each form, and the form is taken whose answers say
most about which label a text has: mutual information of text and label, H(mean p) − mean H(p) (Sorensen et al.,
arXiv:2203.11364), no label looked at.

The task's own question says what the user said the labels mean. Their examples stand in it (form `shown`) for teachers
that read long prompts well: those behind a server that scores nothing, and others that follow the task, where the
examples make their answers tell more. The short sentences are for teachers that do not.

A server that scores nothing it is given may still tell what else it might have written (`said_labels`): there the
teacher answers the task's own question, once a text. Of one that tells nothing of the kind, answers to the same
question may be counted (`label_votes`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from potstill import prompts
from potstill.asking.teacher import Message, Reply, ScoreRequest
from potstill.datagen.calibration import fit_calibration
from potstill.datagen.label_question import answer_spellings, label_questions
from potstill.datagen.label_votes import vote_scores
from potstill.datagen.said_labels import said_scores
from potstill.datagen.soft_options import Form, SoftOptions
from potstill.datagen.wording import input_noun, with_article
from potstill.language.label_words import beside, label_words
from potstill.task import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

PURPOSE = "soft"
# With many labels every spelling is one more branch for every text; those that hold a trace of their label's
# probability in the first texts are scored in these alone. On banking77 that leaves 177 of 308, and moves a score by
# 0.004 nats on average.
_MANY_SPELLINGS, _PROBE, _TRACE = 100, 8, 0.02
# Examples are shown to those alone that do well without them.
FORMS: tuple[Form, ...] = tuple(form for form in get_args(Form) if form != "shown")
_OPENINGS: dict[Form, str] = {"task": "", "shown": "", "example": "This is an example of", "category": "Category:"}
# Texts that are asked in every form, fewer with many labels, and how few do not tell which form is better.
_ASKED, _ASKED_MANY, _FEWEST = 48, 16, 8
# The task's own words stay where they tell at least this share of what labels can tell.
_TASK_TELLS = 0.5


def can_score(asker: Asker, options: SoftOptions) -> bool:
    """Whether a teacher may tell how likely it finds each label; a server can still leave its log-probs out."""
    tells = asker.abilities.token_texts > 0 or options.votes > 0
    return asker.abilities.scores or (tells and options.direction == "direct")


def shows_examples(asker: Asker, options: SoftOptions) -> bool:
    """Whether the user's examples stand in a question that a teacher answers in words (see `SoftOptions.form`)."""
    return options.form == "shown" or (options.form == "auto" and not asker.abilities.scores)


def label_scores(
    spec: TaskSpec, inputs: Sequence[str], asker: Asker, options: SoftOptions | None = None
) -> NDArray[np.float64]:
    """Summed log-probs of the labels for each text.

    Args:
        spec: A classification task.
        inputs: Texts.
        asker: A teacher that can score (see `can_score`).
        options: How; defaults as in `SoftOptions`.

    Returns:
        (len(inputs), n_labels) float64, nats, in the order of `spec.labels`; NaN where there was no reply, and
        everywhere if the server gives no log-probs.

    Raises:
        TeacherError: The teacher refused, stayed away or cannot score.
    """
    options, _ = settle_form(spec, inputs, asker, options or SoftOptions())
    texts = [text[: options.max_chars] for text in inputs]
    if not asker.abilities.scores and can_score(asker, options):
        return _written_scores(spec, texts, asker, options)
    if options.direction == "channel":
        return _channel_scores(spec, texts, asker)
    return _direct_scores(spec, texts, asker, options)


def settle_form(
    spec: TaskSpec, inputs: Sequence[str], asker: Asker, options: SoftOptions
) -> tuple[SoftOptions, dict[str, Any]]:
    """The options with a form in place of `auto`.

    Args:
        spec: A classification task.
        inputs: Texts of the kind that is to be scored; some of them are asked in every form.
        asker: A teacher that can score.
        options: As given.

    Returns:
        Options whose form is settled, and what the report says: the form, and nats that each form tells about the
        label of a text (see `information`); only the form where it was given or the texts are too few to choose by.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    if not asker.abilities.scores:
        form: Form = "shown" if spec.examples and shows_examples(asker, options) else "task"
        return replace(options, form=form), {"chosen": form}
    if options.direction == "channel" or options.form != "auto":
        return options, {"chosen": options.form}
    count = _asked_in_each_form(spec, len(inputs))
    if not count:
        return replace(options, form="task"), {"chosen": "task"}
    some = list(inputs)[:: len(inputs) // count][:count]
    told = {form: information(label_scores(spec, some, asker, replace(options, form=form))) for form in FORMS}
    enough = told["task"] >= _TASK_TELLS * math.log(len(spec.labels))
    if enough and spec.examples:
        told["shown"] = information(label_scores(spec, some, asker, replace(options, form="shown")))
    in_words: list[Form] = [form for form in ("task", "shown") if form in told]
    chosen: Form = max(in_words if enough else FORMS, key=lambda form: told[form])
    report = {"chosen": chosen, "texts": len(some), "nats": {form: round(nats, 4) for form, nats in told.items()}}
    return replace(options, form=chosen), report


def questions_for_form(spec: TaskSpec, options: SoftOptions, texts: int) -> int:
    """Requests that settling the form takes beside those that score the texts, of a teacher with `abilities.scores`.

    Those that show examples are not counted: whether there are any depends on the first answers.
    """
    if options.direction == "channel" or options.form != "auto":
        return 0
    return (len(FORMS) - 1) * _asked_in_each_form(spec, texts)


def _asked_in_each_form(spec: TaskSpec, texts: int) -> int:
    many = sum(len(answer_spellings(name)) for name in spec.label_names) >= _MANY_SPELLINGS
    return 0 if texts < _FEWEST else min(texts, _ASKED_MANY if many else _ASKED)


def information(scores: NDArray[np.float64]) -> float:
    """Mutual information of text and label, nats: from 0, all texts alike, to log(n_labels), each text sure.

    Args:
        scores: (n, n_labels) summed log-probs; rows with NaN are left out. They are first corrected so that the labels
            are equally common, as they will be when they are used.
    """
    import numpy as np

    heard = scores[np.isfinite(scores).all(axis=1)]
    if not len(heard):
        return 0.0
    probs = np.maximum(fit_calibration(heard, rule="balanced").apply(heard), 1e-12)
    mean = probs.mean(axis=0)
    return float(-(mean * np.log(mean)).sum() + (probs * np.log(probs)).sum(axis=1).mean())


def _direct_scores(spec: TaskSpec, texts: Sequence[str], asker: Asker, options: SoftOptions) -> NDArray[np.float64]:
    import numpy as np

    form: Form = "task" if options.form == "auto" else options.form
    names = list(spec.label_names)
    # Begun for the teacher, the reply is the label alone, which takes one pass where it is one token.
    begun = _OPENINGS[form] if asker.abilities.prefill else ""
    words = label_words(spec)
    spellings = [_spellings(name, words[name], form, options.variants, begun) for name in names]
    asked = _questions(spec, texts, form)

    def scored(messages: Sequence[tuple[Message, ...]], forms: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Log-prob of each spelling, for each question; empty where there was no reply."""
        # Two labels may share a spelling (`US`, `us`): it is scored once and counts for both.
        every = tuple(dict.fromkeys(form for own in forms for form in own))
        requests = [ScoreRequest(messages=item, continuations=every, prefill=begun) for item in messages]
        answers = asker.ask(requests, PURPOSE)
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


def _written_scores(spec: TaskSpec, texts: Sequence[str], asker: Asker, options: SoftOptions) -> NDArray[np.float64]:
    import numpy as np

    examples = options.form == "shown"
    found = np.full((len(texts), len(spec.labels)), np.nan)
    if asker.abilities.token_texts:
        asked = label_questions(spec, texts, "choose_label", examples=examples)
        found = said_scores(asked, [answer_spellings(name) for name in spec.label_names], asker, PURPOSE)
    if options.votes and not np.isfinite(found).any():
        asked = label_questions(spec, texts, "score_label", examples=examples)
        return vote_scores(
            asked, spec.label_names, asker, PURPOSE,
            votes=options.votes, temperature=options.vote_temperature, seed=options.seed,
        )  # fmt: skip
    return found


def _questions(spec: TaskSpec, texts: Sequence[str], form: Form) -> list[tuple[Message, ...]]:
    if form in ("task", "shown"):
        return label_questions(spec, texts, "score_label", examples=form == "shown")
    prompt = prompts.load("score_text")
    return [(Message("user", prompt.render(input=text, framed=form == "category")),) for text in texts]


def _spellings(name: str, words: str, form: Form, variants: bool, begun: str) -> tuple[str, ...]:
    if form in ("task", "shown"):
        return answer_spellings(name) if variants else (name,)
    opening = "" if begun else _OPENINGS[form]
    found = (words, words.lower()) if variants else (words,)
    return tuple(dict.fromkeys(f"{opening} {one}" for one in found))


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
    noun, words = input_noun(spec), label_words(spec)
    asked = [
        prompt.render(
            label=words[label.name],
            description=beside(words[label.name], label.description),
            noun=noun,
            article=with_article(noun).split()[0],
            examples=[],
            style=[],
            avoid=[],
            topic="",
            manners=[],
            persona="",
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
