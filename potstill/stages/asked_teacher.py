"""On-policy training from a run's teacher: whether it is asked or loaded, and whether one that is asked can answer.

What enters: a run's settings and its asker. What leaves: who tells the training the log-probs of the student's tokens,
or the refusal, with what to set, before a row is paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from potstill.asking.asker import Asker
from potstill.asking.teacher import Failure, Tokenizes
from potstill.asking.token_scores import AskedTokens, TokenScores
from potstill.errors import UserError
from potstill.options import as_json
from potstill.stages.parts import prompt_digest
from potstill.stages.student_choice import distil_options
from potstill.train.options import DistilOptions, asks_teacher, local_teacher, student_name

if TYPE_CHECKING:
    from potstill.run_dir import Stage
    from potstill.settings import Settings
    from potstill.stages.job import Job
    from potstill.task import TaskSpec

# Tokens of a text by which two tokenizers are compared.
_PROBED = 4000
_SHOWN = 40


def check_asked_teacher(spec: TaskSpec, settings: Settings, asker: Asker) -> str:
    """Refuse a teacher that cannot be asked about the student's tokens, where the training would ask it.

    A vLLM server is asked to tokenise texts of the student's whole vocabulary, which costs no tokens, and once for
    log-probs, which costs a handful.

    Args:
        spec: The task.
        settings: The run's settings.
        asker: The teacher whose outputs are learnt.

    Returns:
        What it can do, for people; empty where the training does not ask it.

    Raises:
        UserError: It tells no log-probs of given tokens, or has another tokenizer than the student.
        TeacherError: It refused, or could not be reached.
    """
    if spec.kind == "classification" or not asks_teacher(settings.distil, settings.answers_by):
        return ""
    name, student = asker.teacher.name, student_name(distil_options(settings, spec), spec.kind)
    if not asker.abilities.token_ids or not isinstance(asker.teacher, Tokenizes):
        raise UserError(
            f"distil.on_policy needs log-probs of the tokens that the student writes, and {name} tells none; serve "
            "the teacher with vLLM (vllm serve MODEL, then --teacher openai:URL), or name weights that this machine "
            "can load with distil.teacher"
        )
    from transformers import AutoTokenizer

    from potstill.models import local_model

    tokenizer = AutoTokenizer.from_pretrained(local_model(student))
    unlike = unlike_tokens(tokenizer, asker.teacher.tokens_of)
    if unlike:
        raise UserError(
            f"the student {student!r} has another tokenizer than the teacher {name} ({unlike}), so what it says of its "
            "tokens does not fit; choose a distil.student of the teacher's family, train off policy "
            "(distil.on_policy=0), or name weights that this machine can load with distil.teacher and "
            "distil.cross_tokenizer=gold"
        )
    scores = AskedTokens(asker, settings.soft.top_k)
    ids = tokenizer("Yes, please.", add_special_tokens=False)["input_ids"]
    [reply] = scores.ask([(ids, ids)])
    if isinstance(reply, Failure) or len(reply.top) != len(ids):
        reason = reply.reason if isinstance(reply, Failure) else "it told of other tokens"
        raise UserError(
            f"{name} told no log-probs of tokens by their numbers ({reason}); check that it is a vLLM server that is "
            "asked directly, or name weights that this machine can load with distil.teacher"
        )
    return f"tells the {scores.top} likeliest tokens at each of the student's ({len(tokenizer):,} tokens, cut alike)"


def check_on_policy(job: Job) -> None:
    """`check_asked_teacher` of a run, unless its student is there already: nobody is asked for that one any more."""
    if job.folder.finished("train") is None:
        check_asked_teacher(job.spec, job.settings, job.outputs)


def unlike_tokens(tokenizer: Any, tokens_of: Callable[[str], Sequence[int]]) -> str:
    """What a tokenizer and a teacher cut otherwise, over texts that hold every token of its vocabulary; else empty."""
    for text in _texts_of_all_tokens(tokenizer):
        ours, theirs = tokenizer(text, add_special_tokens=False)["input_ids"], list(tokens_of(text))
        if ours == theirs:
            continue
        place = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
        shown = tokenizer.decode(ours[place : place + 8])[:_SHOWN]
        return f"{shown!r} is {ours[place : place + 3]} to one and {theirs[place : place + 3]} to the other"
    return ""


def _texts_of_all_tokens(tokenizer: Any) -> Iterator[str]:
    every = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    pieces = [piece for piece in every if piece and "\ufffd" not in piece]
    for start in range(0, len(pieces), _PROBED):
        yield "\n".join(pieces[start : start + _PROBED])


def taught_on_policy(job: Job, options: DistilOptions) -> tuple[DistilOptions, TokenScores | None]:
    """Options that name the teacher which on-policy training loads, and who is asked where it loads none."""
    if options.on_policy == 0 or options.teacher is not None:
        return options, None
    if not asks_teacher(options, job.settings.answers_by):
        return replace(options, teacher=local_teacher(job.settings.answers_by)), None
    return options, _scores(job)


def asked_in_training(job: Job, distil: DistilOptions, weak: Stage | None) -> Any:
    """What a training depends on of its teachers: one that it asks, and the weights of those that it loads.

    Args:
        job: The run.
        distil: How the student is trained.
        weak: The stage that read texts without labels, if any.
    """
    from potstill.models import model_identity

    asked: list[Any] = []
    if weak is not None and job.settings.self_training.may_ask:
        asked = [job.asker.identity, as_json(job.settings.soft), prompt_digest()]
    if asks_teacher(distil, job.settings.answers_by):
        # Not what the teacher can: of a student that is there already a server that is away by now is not asked.
        most = (job.settings.answering or job.settings).teacher_options.get("top_logprobs")
        return [*asked, job.outputs.identity, job.settings.soft.top_k, most]
    beside = (distil.teacher or local_teacher(job.settings.answers_by)) if distil.on_policy > 0 else None
    return [*asked, *(model_identity(name) for name in (beside, distil.teacher_tokenizer) if name)]


def _scores(job: Job) -> TokenScores:
    # An asker of its own with the run's ledger and budget, whose batches are no news beside the training's steps.
    return AskedTokens(Asker(job.outputs.teacher, job.ledger, meter=job.asker.meter), job.settings.soft.top_k)
