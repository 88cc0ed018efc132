"""Where an option belongs that somebody wrote in another place: `epochs` is one of the stage `distil`.

The options that a newcomer tries by name; the stages' own dataclasses hold all of them (`potstill.settings`), and lie
above the reading of a task file.
"""

from __future__ import annotations

from difflib import get_close_matches

from potstill.options import USUAL_NAMES, nearest

STAGE_OF = {
    **dict.fromkeys(
        (
            "epochs", "learning_rate", "batch_size", "max_length", "max_steps", "min_steps", "dropout",
            "early_stopping", "soft_weight", "hard_weight", "lora_rank", "precision", "student_layers", "warmup_ratio",
            "weight_decay", "label_smoothing", "class_weights", "freeze_embeddings", "gradient_accumulation",
            "rationale_weight",
        ),
        "distil",
    ),
    **dict.fromkeys(("heldout", "validation"), "merge"),
    **dict.fromkeys(("catalogue", "rows_per_dataset", "student_mib"), "retrieval"),
    **dict.fromkeys(("texts_per_request", "answer_max_tokens", "output_teacher"), "generation"),
    **dict.fromkeys(("recipe", "max_mib"), "compress"),
    "verify": "quality",
    "latency_rows": "evaluate",
}  # fmt: skip
_OTHER_NAMES = {
    "license": "licences", "licenses": "licences", "licence": "licences", "labeled": "labelled",
    "prompt": "instruction",
    "task": "instruction", "description": "instruction", "prior": "label_prior", "classes": "labels",
    "categories": "labels", "language": "languages", "lang": "languages", "type": "kind", "model": "student",
    "train": "labelled", "eval": "evaluate", "num_rows": "rows", "datagen": "generation", "distill": "distil",
}  # fmt: skip


def place_of(option: str) -> tuple[str, str] | None:
    """The stage and name of an option that is usual elsewhere, or None.

    Examples:
        >>> place_of("epochs"), place_of("lr"), place_of("nam")
        (('distil', 'epochs'), ('distil', 'learning_rate'), None)
    """
    plain = option.lower().replace("-", "_")
    name = USUAL_NAMES.get(plain, plain)
    return (STAGE_OF[name], name) if name in STAGE_OF else None


def nearest_key(key: str, known: tuple[str, ...], value: str) -> str:
    """A hint for a key of a task file that is none: the key that was meant, or the stage that it is an option of.

    Args:
        key: The key as written.
        known: Keys that there are.
        value: Its value as written; empty where that is no plain one.
    """
    if (other := _OTHER_NAMES.get(key.lower())) is not None:
        return f"; did you mean {other!r}?"
    place = place_of(key)
    if place is None and not get_close_matches(key[:60], known, n=1, cutoff=0.5):
        # A misspelt option of a stage.
        place = place_of(next(iter(get_close_matches(key[:60], STAGE_OF, n=1, cutoff=0.75)), ""))
    if place is not None:
        return f"; did you mean '{place[0]}: {{{place[1]}: {value[:30] or '…'}}}'?"
    return nearest(key[:60], known)
