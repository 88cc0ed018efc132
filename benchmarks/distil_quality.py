"""What each way of distilling gives, for classifiers and for generators.

    python benchmarks/distil_quality.py                              both halves, three seeds: many hours on 2 cores
    python benchmarks/distil_quality.py --half generation --seeds 0  two tasks, four methods, 8 minutes each
    python benchmarks/distil_quality.py --half classification --tasks trec,sms_spam --seeds 0,1,2
    python benchmarks/distil_quality.py --quick                      a try of both halves in a folder of its own
    python benchmarks/distil_quality.py --print                      the table of the last results

The classification half is `distil_quality_labels`, the generation half `distil_quality_texts`; what they measure stands
there. Each record is written as soon as it is there and is not made again; delete it from
benchmarks/results/distil_quality.json to repeat it.

Writes benchmarks/results/distil_quality.json (task, method, seed, teacher_kl, score, ece, minutes).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import distil_quality_labels as labels
import distil_quality_texts as texts
import results_file
from label_rows import ROOT


def main() -> None:
    """Make the missing records and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("classification", "generation", "both"), default="both")
    parser.add_argument("--tasks", help="default: trec,ag_news,sms_spam,subj and scitldr,mconala")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", help="default: all of the half")
    parser.add_argument("--rows", type=int, help="training rows (400 written ones; 256 of the data)")
    parser.add_argument("--test-rows", type=int, help="rows that the students are measured on (300; 48)")
    parser.add_argument("--minutes", type=float, default=8.0, help="CPU time of one generation training")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the generation trainings")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-distil")
    parser.add_argument("--quick", action="store_true", help="few rows, one task and seed; results are not kept")
    parser.add_argument("--print", action="store_true", dest="show")
    args = parser.parse_args()
    if args.quick:
        args.out = args.out.with_name("bench-distil-quick")
        results_file.FOLDER = args.out
        args.rows, args.test_rows, args.minutes, args.seeds = 12, 2, 0.1, "0"
    if not args.show:
        for seed in map(int, args.seeds.split(",")):
            if args.half != "generation":
                tasks = args.tasks or ("sms_spam" if args.quick else "trec,ag_news,sms_spam,subj")
                methods = (args.methods or ("both" if args.quick else ",".join(labels.METHODS))).split(",")
                for task in tasks.split(","):
                    labels.bench(task, seed, methods, args.rows or 400, args.test_rows or 300, args.out)
            if args.half != "classification":
                tasks = (args.tasks if args.half == "generation" else None) or ("mconala" if args.quick else None)
                methods = (args.methods if args.half == "generation" else None) or ",".join(texts.METHODS)
                for task in (tasks or "scitldr,mconala").split(","):
                    rows, test_rows = args.rows or 256, args.test_rows or 48
                    texts.bench(task, seed, methods.split(","), rows, test_rows, args.minutes, args.out, args.precision)
    results_file.print_table(results_file.read_results("distil_quality"))


if __name__ == "__main__":
    main()
