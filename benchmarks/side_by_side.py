"""potstill beside distilabel 1.5.3: 200 rows for the same classification task from the same vLLM server.

    python benchmarks/side_by_side.py [--task ag_news] [--rows 200] [--only potstill|distilabel]

The program makes a virtual environment for distilabel under runs/ (its pins do not fit potstill's), starts one vLLM
server with the embedded model on the loopback, and runs each system in a process of its own: once undisturbed; once
killed (SIGKILL to the whole process group) when the server has answered half of the requests, and then once more with
the same command. distilabel gets one prompt a row, the labels in turn, in its `TextGeneration` step with its cache on;
potstill gets the task's prompt and label names.

rows_per_s            rows given by seconds from the start of generation to its end (imports are left out)
usable                rows with a text, one a label at least, in the output
near_duplicate_rate   of these, ROUGE-L F1 above 0.7 with an earlier one
label_ratio           rows of the rarest label by rows of the commonest
names_label           texts that hold their own label's name
teaches               macro-F1 on 500 real test texts of a logistic head on frozen MiniLM features of the texts
requests              that the server answered, undisturbed
kept_after_kill       requests answered before the kill that were not asked again
asked_again           requests that the server answered twice
rows_after_kill       rows with a text that the second start gave
hangs_after_kill      the second start asked the server for nothing in five minutes and did not end; it is ended then
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from generation_quality import near_duplicates
from generation_throughput import vllm_server
from results_file import merge_results, print_table, read_results
from row_checks import embed, head
from tasks import ROOT, write_task

VERSION = "1.5.3"
VENV = ROOT / "runs" / "venvs" / f"distilabel-{VERSION}"
HERE = Path(__file__).resolve().parent
_IDLE_S = 300


def main() -> None:
    """Both systems, undisturbed and killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="ag_news")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-side-by-side")
    parser.add_argument("--only", choices=("potstill", "distilabel"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        potstill_child(Path(args.child))
        return
    make_environment()
    args.out.mkdir(parents=True, exist_ok=True)
    file = write_task(args.task, args.out)
    from potstill.task.file import read_task_file

    spec = read_task_file(str(file)).spec
    with vllm_server(64) as (url, _):
        jobs = {
            "potstill": {"task": str(file), "count": args.rows},
            f"distilabel {VERSION}": {"rows": prompts_of(spec, args.rows)},
        }
        for system, job in jobs.items():
            if args.only and not system.startswith(args.only):
                continue
            job |= {"url": url, "model": "smollm2"}
            folder = args.out / system.partition(" ")[0]
            shutil.rmtree(folder, ignore_errors=True)
            whole = undisturbed(job, folder / "whole", url, system)
            if whole.get("hangs"):
                raise SystemExit(f"{system} asks for nothing any more and does not end; see {folder / 'whole'}")
            broken = killed(job, folder / "killed", url, system, whole["requests"])
            record = {"task": args.task, "system": system, **judge(whole, spec, args.rows), **broken}
            print(record, flush=True)
            merge_results("side_by_side", [record], ("task", "system"))
    print_table(read_results("side_by_side"))


def make_environment() -> None:
    """distilabel in a virtual environment of its own."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    done = subprocess.run([str(python), "-c", "import distilabel, requests, openai"], capture_output=True, check=False)
    if done.returncode:
        # distilabel imports requests and does not declare it.
        packages = [f"distilabel[openai]=={VERSION}", "requests"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)


def prompts_of(spec: Any, rows: int) -> list[dict[str, str]]:
    """One prompt a row, the labels in turn."""
    from potstill.datagen.wording import input_noun, readable, with_article

    names = spec.label_names
    noun = with_article(input_noun(spec))
    return [
        {
            "instruction": f"{spec.instruction}\n\nWrite {noun} for which the right answer is "
            f'"{readable(names[i % len(names)])}". Answer with the text alone.',
            "label": names[i % len(names)],
        }
        for i in range(rows)
    ]


def start(job: dict[str, Any], folder: Path, system: str) -> subprocess.Popen[bytes]:
    """A system in a process group of its own; the same folder continues."""
    folder.mkdir(parents=True, exist_ok=True)
    job = job | {"cache": str(folder / "cache"), "out": str(folder / "out.json")}
    file = folder / "job.json"
    file.write_text(json.dumps(job), "utf-8")
    if system == "potstill":
        command = [sys.executable, str(HERE / "side_by_side.py"), "--child", str(file)]
    else:
        command = [str(VENV / "bin" / "python"), "-W", "ignore", str(HERE / "side_by_side_distilabel.py"), str(file)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)


def potstill_child(file: Path) -> None:
    """The potstill half, in a process of its own."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.generate import generate_rows
    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.teachers import open_teacher
    from potstill.task.file import read_task_file

    job = json.loads(file.read_text("utf-8"))
    spec = read_task_file(job["task"]).spec
    Path(job["cache"]).mkdir(parents=True, exist_ok=True)
    teacher = open_teacher(f"openai:{job['url']}#{job['model']}")
    started = time.monotonic()
    with Ledger(Path(job["cache"]) / "ledger.sqlite") as ledger:
        result = generate_rows(spec, Asker(teacher, ledger), GenerationOptions(rows=job["count"]))
    seconds = time.monotonic() - started
    teacher.close()
    pairs = zip(result.rows["input"][:], result.rows["output"][:], strict=True)
    rows = [{"text": text, "label": label} for text, label in pairs]
    Path(job["out"]).write_text(json.dumps({"seconds": seconds, "rows": rows}), "utf-8")


def answered(url: str) -> int:
    """Requests that the server has answered since it started."""
    text = urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10).read().decode()
    return int(
        sum(float(n) for n in re.findall(r"^vllm:request_success_total\{[^}]*\} ([\d.e+]+)", text, re.MULTILINE))
    )


def undisturbed(job: dict[str, Any], folder: Path, url: str, system: str) -> dict[str, Any]:
    """One run to its end; `hangs` alone when it asks for nothing any more and does not end."""
    before, started = answered(url), time.monotonic()
    process = start(job, folder, system)
    then, since = before, started
    while process.poll() is None:
        time.sleep(1)
        if (now := answered(url)) != then:
            then, since = now, time.monotonic()
        if time.monotonic() - since > _IDLE_S:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"hangs": True, "requests": answered(url) - before}
    if process.returncode:
        raise SystemExit(f"{system} failed:\n{(folder / 'log.txt').read_text(errors='replace')[-3000:]}")
    found: dict[str, Any] = json.loads((folder / "out.json").read_text("utf-8"))
    return found | {"requests": answered(url) - before, "whole_s": time.monotonic() - started}


def killed(job: dict[str, Any], folder: Path, url: str, system: str, requests: int) -> dict[str, Any]:
    """One run killed half-way and started again."""
    before = answered(url)
    process = start(job, folder, system)
    while answered(url) - before < requests / 2:
        if process.poll() is not None:
            raise SystemExit(f"{system} ended before it could be killed; give it more rows")
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # What was under way is still answered, or dropped, by the server.
    then = answered(url)
    while True:
        time.sleep(3)
        now = answered(url)
        if now == then:
            break
        then = now
    again = undisturbed(job, folder, url, system)
    spent = now - before
    # What a start that hangs has not asked for is not there, and so not kept.
    kept = 0 if again.get("hangs") else max(0, requests - again["requests"])
    return {
        "answered_before_kill": spent,
        "kept_after_kill": kept,
        "asked_again": max(0, spent + again["requests"] - requests),
        "rows_after_kill": sum(bool(row["text"]) for row in again.get("rows", ())),
        "hangs_after_kill": bool(again.get("hangs")),
    }


def judge(found: dict[str, Any], spec: Any, rows: int) -> dict[str, Any]:
    """Figures of an undisturbed run."""
    from potstill.datagen.filters import names_itself
    from potstill.datagen.wording import readable

    good = [row for row in found["rows"] if row["text"]]
    counts = [sum(row["label"] == name for row in good) for name in spec.label_names]
    return {
        "rows": len(good),
        "rows_per_s": round(len(good) / found["seconds"], 3),
        "whole_s": round(found["whole_s"], 1),
        "near_duplicate_rate": round(near_duplicates([row["text"] for row in good]), 4),
        "label_fill": round(sum(min(c, rows // len(counts)) for c in counts) / rows, 4),
        "label_ratio": round(min(counts) / max(1, max(counts)), 3),
        "names_label": round(sum(names_itself(r["text"], readable(r["label"])) for r in good) / max(1, len(good)), 3),
        "teaches": round(teaches(good, spec), 4),
        "requests": found["requests"],
    }


def teaches(rows: list[dict[str, str]], spec: Any) -> float:
    """Macro-F1 of the quickest student that learns from the rows."""
    import numpy as np
    from sklearn.metrics import f1_score

    from potstill.retrieval.load import read_data

    test = read_data(spec.test, spec).shuffle(seed=0)
    test = test.select(range(min(500, test.num_rows))).flatten_indices()
    labels = np.array([spec.label_names.index(row["label"]) for row in rows])
    model = head(embed([row["text"] for row in rows]), labels, None, spec)
    return float(f1_score(test["label"][:], model.predict(embed(test["input"][:])), average="macro"))


if __name__ == "__main__":
    main()
