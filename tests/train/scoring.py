"""A small model of this machine that tells log-probs as vLLM does, in this process and behind a server."""

from __future__ import annotations

from typing import Any

import torch

from potstill.asking.teacher import Failure, Reply, TokenTop


class LocalTops:
    """The k likeliest tokens of a model after each token of a prompt."""

    def __init__(self, folder: Any):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def tops(self, ids: list[int], first: int, k: int) -> tuple[TokenTop, ...]:
        with torch.no_grad():
            logprobs = self.model(torch.tensor([ids])).logits[0, first - 1 : -1].double().log_softmax(-1)
        values, places = logprobs.topk(min(k, logprobs.shape[1]), dim=-1)
        return tuple(
            TokenTop(token, float(row[token]), tuple(map(int, some)), tuple(map(float, their)))
            for token, row, some, their in zip(ids[first:], logprobs, places, values, strict=True)
        )

    def completions(self, body: dict[str, Any]) -> dict[str, Any]:
        """What `/v1/completions` of vLLM 0.32 answers to token numbers with `prompt_logprobs`."""
        ids, k = body["prompt"], body["prompt_logprobs"]
        told: list[dict[str, Any] | None] = [None]
        for item in self.tops(ids, 1, k):
            found = {
                str(token): {"logprob": value, "rank": rank, "decoded_token": self.tokenizer.decode([token])}
                for rank, (token, value) in enumerate(zip(item.top_ids, item.top_logprobs, strict=True), start=1)
            }
            found.setdefault(
                str(item.token_id), {"logprob": item.logprob, "rank": k + 1, "decoded_token": "…"}
            )  # vLLM tells the token that stands there as well
            told.append(found)
        choice = {"index": 0, "text": "x", "logprobs": None, "finish_reason": "length", "prompt_logprobs": told}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1}
        return {"id": "x", "object": "text_completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """What `/tokenize` answers to a text."""
        ids = self.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
        return {"count": len(ids), "max_model_len": 1024, "tokens": ids}


class LocalScores:
    """`TokenScores` of a model of this machine; `lost` says of which pairs nothing is told."""

    name = "local"

    def __init__(self, folder: Any, top: int, lost: Any = lambda pair: False):
        self.local, self.top, self.lost = LocalTops(folder), top, lost
        self.identity = {"model": str(folder)}
        self.asked: list[Any] = []

    def ask(self, pairs: Any) -> list[Any]:
        self.asked += pairs
        return [
            Failure("too long")
            if self.lost(pair)
            else Reply(top=self.local.tops([*pair[0], *pair[1]], len(pair[0]), self.top))
            for pair in pairs
        ]
