"""The task: what the user asked for, as a value that every stage reads.

`TaskSpec` is frozen; `to_json`/`from_json` round-trip it; `potstill.task.file` reads it from a prompt or a
Markdown file, and infers what is absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["classification", "generation", "instructions"]
KINDS: tuple[Kind, ...] = ("classification", "generation", "instructions")
Metric = Literal["accuracy", "macro_f1", "qwk", "exact_match", "token_f1", "rouge_l", "chrf", "chrf++", "bleu"]
METRICS: tuple[Metric, ...] = (
    *("accuracy", "macro_f1", "qwk", "exact_match", "token_f1", "rouge_l", "chrf", "chrf++", "bleu"),
)
_CASES = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# What changes case within a word: the s of several (PDFs), one small letter before a capital (iPhone), one capital at
# the end (SaaS, PhD).
_ONE_WORD = re.compile(r"[A-Z]{2,}s(?![a-z])|(?<![A-Za-z])[a-z][A-Z]|[a-z][A-Z](?![A-Za-z])")
# Between the words of a name; not in a time or an abbreviation (10:30, Ph.D.).
_MARKS = re.compile(r"[_\s]+|(?<=[^\W\d_])::?(?=\w)|(?<=\d)::?(?=[^\W\d_])|(?<=[^\W\d_]{2})\.(?=[^\W\d_]{2})")
_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.)?[\w-]+(?:\.co)?\.(?:com|net|org|edu|gov|io|ai|app|dev|uk|js|py)", re.IGNORECASE
)
# Names that everybody writes so.
_NAMES = frozenset(
    re.findall(
        r"\w+",
        "AirPods DevOps DocuSign DoorDash FaceTime FedEx GitHub GitLab JavaScript LinkedIn MacBook MasterCard "
        "McDonald McDonalds NumPy OneDrive OneNote OpenAI PayPal PlayStation PostgreSQL PowerPoint PowerShell PyTorch "
        "QuickBooks QuickTime SharePoint SnapChat SoundCloud TensorFlow TikTok TypeScript WhatsApp WordPress YouTube",
    )
)
#: What may stand after the `@` of a Hub id.
REVISION = re.compile(r"[\w~][\w./~+-]{0,254}")


@dataclass(frozen=True)
class Label:
    """A class. `name` is what the student answers; `description` is what the teacher is told it means."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class Example:
    """One input with its output."""

    input: str
    output: str


@dataclass(frozen=True)
class DataRef:
    """Real data that the user has: a local file or folder (Parquet, JSONL, CSV), or a Hub dataset id.

    Attributes:
        path: Path, or a Hub id such as `user/name`; `user/name@revision` reads a commit, a tag or a branch.
        split: Split to read; None takes the one that `training` tells.
        config: Configuration of a Hub dataset.
        inputs: Columns that make the input; empty lets potstill choose.
        output: Column of the answer or label; None lets potstill choose (unlabelled text has none).
        training: Whether it is learnt from: of several splits the training split is read, and none that its name
            gives to checking; else `test` is read, or the only one.
    """

    path: str
    split: str | None = None
    config: str | None = None
    inputs: tuple[str, ...] = ()
    output: str | None = None
    training: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer to the question of a rule.

    Attributes:
        text: How the teacher writes it.
        label: The label that it votes for; "" for none.
    """

    text: str
    label: str = ""


@dataclass(frozen=True)
class Rule:
    """A labelling rule: texts that match get `label`.

    Attributes:
        label: The label that it votes for; "" where the answers to a question each name one.
        kind: `keyword` matches whole words, `contains` any substring, `regex` a regular expression; all
            ignore case. `prompt` is a question about the text, which the teacher answers.
        patterns: What is looked for; any one is enough. Of a question its wordings, whose answers are averaged.
        answers: Of a question: what may be answered; empty for yes, which votes for `label`, and no, which for none.
    """

    label: str
    kind: Literal["keyword", "contains", "regex", "prompt"]
    patterns: tuple[str, ...]
    answers: tuple[Answer, ...] = ()

    @property
    def choices(self) -> tuple[Answer, ...]:
        """The answers to a question, yes and no where none are given; empty for a rule that asks nothing."""
        if self.kind != "prompt":
            return ()
        return self.answers or (Answer("Yes", self.label), Answer("No"))


@dataclass(frozen=True)
class LicencePolicy:
    """Which licences retrieved data may have.

    Attributes:
        allow: SPDX ids (lower case); empty allows every known licence that is not denied.
        deny: SPDX ids that are refused; a trailing `*` matches a prefix (`cc-by-nc*`).
        unknown: Whether data with no stated licence may be used.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    unknown: bool = True


@dataclass(frozen=True)
class Inferred:
    """A field that the user did not write, with how it was found: `rules`, `teacher`, `normalised`,
    `assumption`, or the data whose columns tell it."""

    field: str
    value: str
    how: str


@dataclass(frozen=True)
class TaskSpec:
    """What the student must do.

    Attributes:
        name: Short name, safe as a file name.
        instruction: The task in words, as the teacher reads it.
        kind: `classification`, `generation` or `instructions`.
        labels: The classes, in order; empty unless classification.
        examples: Examples that the user gave; they are shown to the teacher and never trained on twice.
        inputs: Names of the input's fields when it has several (`title`, `text`); empty means one plain text.
        languages: ISO 639-1 codes of the inputs.
        metric: What the student is chosen by.
        ordered: The place of each label on a scale from 0 on, in the order of `labels`; empty where they stand in none.
        label_prior: Expected share of each label, or empty for uniform.
        estimate_prior: Whether the shares are estimated on texts without labels instead (`label_prior: estimate`).
        test: Real test data.
        labelled: Real labelled rows to train with, where the user has some.
        unlabelled: Real texts without labels, or inputs without outputs.
        rules: Labelling rules.
        seed_tasks: Path of seed tasks for `instructions`, or None for the ones that potstill ships.
        exclude: Dataset ids that retrieval must not use; `*` at an end matches a prefix or suffix.
        licences: Licence policy.
        inferred: What was not written but inferred.

    Examples:
        >>> from potstill.task.file import read_task
        >>> task = read_task("Classify support tickets as billing, bug or other.")
        >>> task.kind, task.label_names, task.metric
        ('classification', ('billing', 'bug', 'other'), 'macro_f1')
        >>> TaskSpec.from_json(task.to_json()) == task
        True
    """

    name: str
    instruction: str
    kind: Kind
    labels: tuple[Label, ...] = ()
    examples: tuple[Example, ...] = ()
    inputs: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    metric: Metric = "macro_f1"
    ordered: tuple[int, ...] = ()
    label_prior: Mapping[str, float] = field(default_factory=dict)
    estimate_prior: bool = False
    test: DataRef | None = None
    labelled: DataRef | None = None
    unlabelled: DataRef | None = None
    rules: tuple[Rule, ...] = ()
    seed_tasks: str | None = None
    exclude: tuple[str, ...] = ()
    licences: LicencePolicy = field(default_factory=LicencePolicy)
    inferred: tuple[Inferred, ...] = ()

    @property
    def prior(self) -> list[float] | None:
        """The stated share of each label, in their order and none of them 0; None where the task states none."""
        least = 1e-6  # of a label that a prior made by hand leaves out: it would never be answered, and logs need more
        return [max(least, self.label_prior.get(name, 0.0)) for name in self.label_names] if self.label_prior else None

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return tuple(label.name for label in self.labels)

    @property
    def questions(self) -> int:
        """Questions of the rules that a teacher answers about each text, every wording counted."""
        return sum(len(rule.patterns) for rule in self.rules if rule.kind == "prompt")

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` is the inverse."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TaskSpec:
        """Rebuild what `to_json` wrote.

        Raises:
            OptionError: Unknown fields or wrong types, all listed.
        """
        from potstill.options import build_options

        return build_options(TaskSpec, value, "task")

    def _repr_html_(self) -> str:
        """The fields that say something, with how each was found, for a notebook."""
        from potstill.notebook import html_table

        how = {item.field: item.how for item in self.inferred}
        shown: dict[str, object] = {
            "name": self.name, "instruction": self.instruction, "kind": self.kind,
            "labels": "; ".join(f"{item.name}: {item.description}".removesuffix(": ") for item in self.labels),
            "examples": len(self.examples), "inputs": ", ".join(self.inputs), "languages": ", ".join(self.languages),
            "metric": self.metric,
            "ordered": ", ".join(name for _, name in sorted(zip(self.ordered, self.label_names, strict=False))),
            "label_prior": ", ".join(f"{name} {share:.3g}" for name, share in self.label_prior.items()),
            **{name: ref.path for name in ("test", "labelled", "unlabelled") if (ref := getattr(self, name))},
            "rules": len(self.rules), "seed_tasks": self.seed_tasks, "exclude": ", ".join(self.exclude),
        }  # fmt: skip
        return html_table(("field", "value", "how"), [(k, v, how.get(k, "")) for k, v in shown.items() if v])


def readable(name: str) -> str:
    """A label's name as words: `card_arrival` gives `card arrival`, `BookRestaurant` gives `book restaurant`.

    Examples:
        >>> readable("order_status"), readable("rec.sport.hockey"), readable("ENTY:animal")
        ('order status', 'rec sport hockey', 'ENTY animal')
        >>> readable("AddToPlaylist"), readable("SaaS"), readable("PDFs"), readable("GitHub"), readable("push_GitHub")
        ('add to playlist', 'SaaS', 'PDFs', 'GitHub', 'push GitHub')
    """
    parts = [
        part
        for word in (re.split(r"[_\s]+", name) if _ADDRESS.fullmatch(name) else _MARKS.split(name))
        for part in ([word] if word in _NAMES or _ONE_WORD.search(word) else _CASES.split(word))
        if part
    ]
    if len(parts) < 2 or (" " in name and "_" not in name):
        return name
    return " ".join(part if part in _NAMES or (part.isupper() and len(part) > 1) else part.lower() for part in parts)
