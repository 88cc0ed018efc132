"""What k stored log-probs a token are worth beside the whole vocabulary, and what they take on disk.

    python benchmarks/distil_targets.py         half a minute on 2 cores

The teacher is SmolLM2-135M-Instruct and the student the same model without its layers 10 and 20, on outputs of
SciTLDR's training split. For each k: the mass of the k likeliest tokens; the cosine of the loss's gradient (forward KL,
at the student's last hidden states, all tokens as one vector) to that of the whole vocabulary, with one bucket for the
rest of the mass, and without it, the k renormalised; and bytes a token of the side table as a run stores it.

Writes benchmarks/results/distil_targets.json (k, mass, cosine_with_tail, cosine_renormalised, bytes_a_token, tokens).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from label_rows import ROOT, real_rows, task_spec
from results_file import print_table, write_results

KS = (8, 32, 128)
LEFT_OUT = (10, 20)


def main() -> None:
    """Measure every k and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-targets")
    args = parser.parse_args()
    records = measure(args.rows, args.out)
    write_results("distil_targets", records)
    print_table(records)


def measure(rows: int, out: Path) -> list[dict[str, Any]]:
    """The records of all k."""
    import torch

    from potstill.train.causal_model import load_causal
    from potstill.train.losses import topk_divergence
    from potstill.train.options import DistilOptions, resolve_options
    from potstill.train.token_rows import encode_rows

    spec, _ = task_spec("scitldr", out)
    options = resolve_options(DistilOptions(max_length=256, soft_weight=0.0), "causal")
    tokenizer, teacher, _ = load_causal(options)
    kept = [i for i in range(teacher.config.num_hidden_layers) if i not in LEFT_OUT]
    student = load_causal(options, layers=kept)[1].eval()
    table = encode_rows(spec, real_rows("scitldr", spec, "train", rows), None, student, tokenizer, options).table
    hidden, wanted = [], []
    with torch.inference_mode():
        for ids, labels in zip(table["input_ids"], table["labels"], strict=True):
            places = torch.tensor(labels[1:]) != -100
            given = torch.tensor([ids])
            wanted.append(teacher.eval()(input_ids=given).logits[0, :-1][places].float().log_softmax(-1))
            hidden.append(student.base_model(input_ids=given).last_hidden_state[0, :-1][places].float())
    q, states = torch.cat(wanted).clone(), torch.cat(hidden).clone().requires_grad_()
    head = student.get_output_embeddings().weight.detach().float()

    def gradient(loss: Any) -> Any:
        return torch.autograd.grad(loss(states @ head.T).sum(), states)[0].flatten()

    def cosine(found: Any) -> float:
        return round(float(torch.nn.functional.cosine_similarity(found, whole, dim=0)), 4)

    whole = gradient(lambda logits: -(q.exp() * logits.log_softmax(-1)).sum(-1))
    records = []
    for k in KS:
        top, ids = q.topk(k, dim=-1)
        rest = q.scatter(1, ids, -torch.inf).logsumexp(-1)
        alone = top.softmax(-1)
        with_tail = gradient(lambda logits, ids=ids, top=top, rest=rest: topk_divergence(logits, ids, top, rest))
        renormalised = gradient(
            lambda logits, ids=ids, alone=alone: -(alone * logits.log_softmax(-1).gather(1, ids)).sum(-1)
        )
        records.append(
            {
                "k": k, "mass": round(float(top.exp().sum(-1).mean()), 4), "cosine_with_tail": cosine(with_tail),
                "cosine_renormalised": cosine(renormalised), "bytes_a_token": round(stored_bytes(wanted, k), 1),
                "tokens": len(q),
            }
        )  # fmt: skip
    return records


def stored_bytes(logprobs: list[Any], k: int) -> float:
    """Bytes a token of the file in which a run stores the targets."""
    from potstill.asking.teacher import TokenTop
    from potstill.datagen.token_targets import target_row, target_table
    from potstill.rows import write_rows

    rows = []
    for number, row in enumerate(logprobs):
        top, ids = row.topk(k, dim=-1)
        told = [
            TokenTop(int(i[0]), float(p[0]), tuple(i.tolist()), tuple(p.tolist()))
            for i, p in zip(ids, top, strict=True)
        ]
        rows.append(target_row(f"{number:032x}", told, k))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "targets.parquet"
        write_rows(target_table(rows), path)
        return path.stat().st_size / sum(len(row) for row in logprobs)


if __name__ == "__main__":
    main()
