"""A small task for tests of the classifier: is a review of a few words good or bad?"""

import random

from safetensors.torch import load_file

from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import Label, TaskSpec

SPEC = TaskSpec(
    name="mood", instruction="Is the review good or bad?", kind="classification", labels=(Label("bad"), Label("good"))
)
GOOD, BAD, REST = (
    ["good", "fine", "great", "nice"],
    ["bad", "poor", "awful", "sad"],
    ["the", "film", "was", "a", "and", "plot", "scene"],
)


def reviews(n, seed=0, *, soft=False, hard=True, origin="generated"):
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        label = "good" if i % 2 else "bad"
        words = draw.sample(REST, draw.randint(1, 5)) + [draw.choice(GOOD if label == "good" else BAD)]
        draw.shuffle(words)
        probs = ((0.1, 0.9) if label == "good" else (0.9, 0.1)) if soft else None
        rows.append(Row(" ".join(words), label, origin, Source(row=seed * 10_000 + i), label if hard else None, probs))
    return rows_to_dataset(rows, SPEC.label_names)


def weights(folder):
    return load_file(folder / "model.safetensors")


class Killed(Exception):
    """What a listener raises to end a training in its middle."""
