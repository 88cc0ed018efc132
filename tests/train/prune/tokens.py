"""Random texts for tiny models, and what a model says to them."""

import torch

from potstill.train.calibration_data import Calibration


def texts(kind, batches=4, rows=4, length=24, seed=0):
    """Random tokens; the last row of each batch is half padding."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(batches):
        mask = torch.ones(rows, length, dtype=torch.long)
        mask[-1, length // 2 :] = 0
        ids = torch.randint(1, 97, (rows, length), generator=draw) * mask
        batch = {"input_ids": ids, "attention_mask": mask}
        if kind == "classification":
            batch["labels"] = torch.randint(0, 3, (rows,), generator=draw)
        found.append(batch)
    return Calibration(tuple(found), kind)


def logits(model, calibration):
    """Logits of the first batch, real tokens alone."""
    batch = calibration.batches[0]
    with torch.no_grad():
        made = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return made if calibration.kind == "classification" else made[batch["attention_mask"].bool()]
