"""How long a training step takes on this machine: some steps of the real student on texts, nothing kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

from potstill.models import local_model
from potstill.train.options import DistilOptions
from potstill.train.quiet import quiet_transformers


def seconds_a_step(texts: Sequence[str], options: DistilOptions) -> float:
    """Seconds of one optimiser step of an encoder student, in the precision of the training.

    A kernel is made for each shape of batch that comes for the first time, which takes longer than the step itself; in
    a training they come again and again. So two batches are learnt from twice, and the second time counts.

    Args:
        texts: Inputs like those of the training; fewer than a batch are repeated.
        options: Resolved options of the training.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = local_model(str(options.student))
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    if options.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    size = options.batch_size or 16
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16")
    spent = []
    for step in (0, 1, 0, 1):
        chosen = [texts[(step * size + i) % len(texts)] for i in range(size)]
        batch = tokenizer(chosen, truncation=True, max_length=options.max_length, padding=True, return_tensors="pt").to(
            model.device
        )
        started = time.perf_counter()
        for _ in range(options.gradient_accumulation):
            with half:
                loss = model(**batch, labels=torch.zeros(size, dtype=torch.long, device=model.device)).loss
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        spent.append(time.perf_counter() - started)
    return sum(spent[2:]) / 2


def seconds_a_causal_step(texts: Sequence[str], options: DistilOptions) -> float:
    """Seconds of one optimiser step of a causal student with all its weights in training.

    One text is read and learnt from, and the time taken times the texts of a batch: a whole batch would take minutes on
    a CPU, which is no plan.

    Args:
        texts: Inputs with their outputs, like those of the training; at least one.
        options: Resolved options of the training.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = local_model(str(options.student))
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)

    def learn(text: str) -> float:
        ids = tokenizer(text, truncation=True, max_length=options.max_length, return_tensors="pt").input_ids
        started = time.perf_counter()
        model(input_ids=ids.to(model.device), labels=ids.to(model.device)).loss.backward()
        return time.perf_counter() - started

    learn("one")  # warms up
    each = learn(sorted(texts, key=len)[len(texts) // 2])
    started = time.perf_counter()
    optimiser.step()
    stepped = time.perf_counter() - started
    return each * (options.batch_size or 8) * options.gradient_accumulation + stepped
