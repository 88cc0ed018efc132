"""Is anything lost, paid twice or let in, whatever goes wrong? `make torture` runs all of it, `--quick` a short form.

    python benchmarks/torture.py [--quick] [--only crash,teacher,…] [--no-write]
    python benchmarks/torture.py --print                    the table of docs/trust.md from the last results

    crash     SIGKILL at random moments and file-system steps of whole runs, with export and a push
    power     power failures: what was not fsynced is gone or cut
    disk      a full disk, a read-only disk, files that stop growing: in each stage
    clock     the wall clock jumps, forwards and back
    caches    one input changed: which stages are made again
    teacher   a real HTTP server on the loopback that misbehaves on 30 % of the requests; refusals
    fuzz      made-up and mutated inputs for every parser of what strangers write
    files     data, catalogue, index and student files that were cut or changed
    leaks     test texts planted in training rows: exact, other case, other spaces, some words changed
    secrets   a sentinel key through a server that fails in every way, and through a whole run: no file holds it
    ledger    look-ups in a large ledger (`--ledger-rows`)
    load      `potstill serve` under few clients and under too many

Each record says how much was tried (`count`) and how much of it was wrong (`bad`); if anything was, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results_file import merge_results, print_table, read_results
from torture_files import files
from torture_fuzz import fuzz
from torture_leaks import leaks
from torture_ledger import ledger_size
from torture_load import load
from torture_secrets import secrets, secrets_of_a_run
from torture_servers import beside
from torture_teacher import teacher


def whole_runs(
    names: set[str], kills: int, seed: int, quick: bool, place: Path, done: Callable[[list[dict[str, Any]]], None]
) -> None:
    """The suites that make whole runs share one server and one undisturbed run."""
    import torture_caches
    import torture_clock
    import torture_crash
    import torture_disk
    import torture_power
    import torture_runs

    hub_module = beside("hub_server")
    (place / "hub").mkdir()
    with hub_module.running_hub(place / "hub") as hub:
        environment = {**hub.environment(place / "home"), "HF_HUB_OFFLINE": "0"} if "crash" in names else {}
        with torture_runs.running(place, environment) as runs:
            torture_runs.make_calm(runs, "crash" in names)
            if "crash" in names:
                done(torture_crash.crash(runs, kills, seed, push=True))
            if "power" in names:
                done(torture_power.power(runs, kills, seed))
            if "clock" in names:
                done(torture_clock.clock(runs, 3 if quick else 20, seed))
            if "caches" in names:
                done(torture_caches.caches(runs))
            if "disk" in names:
                done(torture_disk.disk(runs, ("datagen", "train") if quick else torture_runs.STAGES))


SUITES = ("secrets", "leaks", "teacher", "fuzz", "files", "ledger", "load", "crash", "power", "clock", "disk", "caches")
_COMMON = {"suite", "what", "count", "bad", "which", "form", "commit", "seconds", "file_mib", "seconds_to_fill"}


def main() -> int:
    """Run, write `results/trust.json`, print the table."""
    arguments = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    arguments.add_argument("--quick", action="store_true", help="the short form of CI")
    arguments.add_argument("--only", default=",".join(SUITES), help=f"some of {','.join(SUITES)}")
    arguments.add_argument("--kills", type=int, help="of crash and of power: 200; 12 with --quick")
    arguments.add_argument("--requests", type=int, help="10000; 500 with --quick")
    arguments.add_argument("--inputs", type=int, help="1000000; 20000 with --quick")
    arguments.add_argument("--ledger-rows", type=int, help="1000000; 100000 with --quick; 10000000 takes about 5 GB")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--no-write", action="store_true", help="print only")
    arguments.add_argument("--print", action="store_true", dest="show")
    given = arguments.parse_args()
    if given.show:
        print_table([_shown(record) for record in read_results("trust")])
        return 0
    names = set(given.only.split(","))
    if names - set(SUITES):
        arguments.error(f"no suite {sorted(names - set(SUITES))[0]!r}; there are {', '.join(SUITES)}")
    quick = given.quick
    records: list[dict[str, Any]] = []

    def done(more: list[dict[str, Any]]) -> None:
        for record in more:
            record["form"] = "quick" if quick else "full"
            print(json.dumps(record, ensure_ascii=False), flush=True)
        records.extend(more)
        if not given.no_write:
            merge_results("trust", more, key=("suite", "what"))

    with tempfile.TemporaryDirectory(prefix="potstill-torture-") as folder:
        place = Path(folder)
        (place / "small").mkdir()
        small: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "secrets": lambda: [*secrets(place / "small"), *secrets_of_a_run(place / "small" / "typed")],
            "leaks": lambda: leaks(300 if quick else 2000),
            "teacher": lambda: teacher(given.requests or (500 if quick else 10_000), place / "small"),
            "fuzz": lambda: fuzz(given.inputs or (20_000 if quick else 1_000_000), place / "small", given.seed),
            "files": lambda: files(240 if quick else 12_000, place / "small", given.seed),
            "ledger": lambda: ledger_size(given.ledger_rows or (100_000 if quick else 1_000_000), place / "small"),
            "load": lambda: load(10 if quick else 60, place / "small"),
        }
        for name, suite in small.items():
            if name in names:
                done(suite())
        if names & {"crash", "power", "clock", "disk", "caches"}:
            (place / "runs").mkdir()
            whole_runs(names, given.kills or (12 if quick else 200), given.seed, quick, place / "runs", done)
    print_table(records)
    return int(any(record["bad"] for record in records))


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """A record as docs/trust.md shows it: what only its suite counts is one column."""
    own = {name: value for name, value in record.items() if value is not None and name not in _COMMON}
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in own.items())
    shown = {"suite": record["suite"], "what": record["what"], "tried": f"{record['count']:,}", "wrong": record["bad"]}
    return {**shown, "of these": told, "form": record["form"], "commit": record["commit"]}


if __name__ == "__main__":
    sys.exit(main())
