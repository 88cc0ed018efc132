"""The distilabel half of `side_by_side.py`. Runs in distilabel's own virtual environment and knows nothing of potstill.

    python side_by_side_distilabel.py JOB.json

JOB.json: url, model, rows (each an instruction and its label), cache (a folder), out (a JSON file).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """One pipeline of one step, as distilabel's guide to text generation has it."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    with Pipeline(name="side-by-side", cache_dir=job["cache"]) as pipeline:
        load = LoadDataFromDicts(data=job["rows"])
        write = TextGeneration(
            llm=OpenAILLM(
                model=job["model"],
                base_url=job["url"],
                api_key="EMPTY",
                generation_kwargs={"max_new_tokens": 96, "temperature": 1.0, "top_p": 0.95},
            ),
            input_batch_size=50,
        )
        load >> write
    started = time.monotonic()
    distiset = pipeline.run(use_cache=True)
    seconds = time.monotonic() - started
    table = distiset["default"]["train"]
    found = [{"text": row["generation"], "label": row["label"]} for row in table]
    Path(job["out"]).write_text(json.dumps({"seconds": seconds, "rows": found}), "utf-8")


if __name__ == "__main__":
    main()
