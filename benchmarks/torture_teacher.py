"""The suite `teacher` of `torture.py`: a real HTTP server on the loopback that misbehaves, and refusals."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from torture_servers import beside

FAULTS = (
    "429", "429-soon", "500", "502", "503", "slow-headers", "slow-body", "reset", "reset-body", "html", "cut-json",
    "array", "no-choices", "no-text",
)  # fmt: skip


def teacher(requests: int, place: Path) -> list[dict[str, Any]]:
    """Requests at 30 % faults, with an endpoint that dies for a while; then what ends at once."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.asking.teacher import Failure, Message, Reply, Request
    from potstill.datagen.teachers import open_teacher
    from potstill.errors import TeacherRefused

    server_module = beside("teacher_server")
    options = {
        "backoff_s": 0.01, "longest_pause_s": 0.1, "timeout_s": 8.0, "startup_s": 1.0, "patience_s": 60.0,
        "concurrency": 32, "attempts": 8,
    }  # fmt: skip
    seen: Counter[str] = Counter()
    dead = (requests // 3, requests // 3 + max(20, requests // 50))

    def fault(number: int, text: str) -> str | None:
        with server.lock:
            seen[text] += 1
            attempt = seen[text]
        if dead[0] <= number < dead[1]:
            return "reset"
        if text.endswith("77"):
            return "500"
        chance = random.Random(f"{text}/{attempt}")
        if chance.random() < 0.3:
            # Stalls hold a connection for seconds each: rarer, so that the suite ends.
            return chance.choice(FAULTS if chance.random() < 0.1 else quick)
        return "length" if chance.random() < 0.02 else None

    quick = tuple(name for name in FAULTS if not name.startswith("slow"))
    asked = [Request((Message("user", f"request {i}"),), max_tokens=16) for i in range(requests)]
    started = time.monotonic()
    bad: Counter[str] = Counter()
    with server_module.running_server(fault, stall_s=12.0) as server:
        _more_faults(server_module)
        opened = open_teacher(f"openai:{server.url}#m", **options)
        with Ledger(place / "teacher.sqlite") as ledger:
            asker = Asker(opened, ledger)
            answers = asker.ask(asked, "torture")
            totals = ledger.totals()
            before = server.asked
            good = [a.request for a in answers if isinstance(a.reply, Reply)]
            second = Asker(opened, ledger).ask(good, "torture")
            bad["answered requests asked again"] = server.asked - before + sum(not a.cached for a in second)
            bad["answers of another request"] = sum(
                isinstance(a.reply, Reply) and a.reply.text != f"reply to {a.request.messages[0].content}"
                for a in answers
            )
        opened.close()
    failed = [a for a in answers if isinstance(a.reply, Failure)]
    bad["requests without answer or reason"] = requests - len(good) - sum(bool(a.reply.reason) for a in failed)
    bad["paid twice"] = sum(count > 1 for count in server.answered.values())
    bad["failures not in the ledger"] = abs(totals.failures - len(failed))
    records = [
        {"suite": "teacher", "what": "30 % faults, dead for a while, one in a hundred failing always",
         "count": requests, "bad": sum(bad.values()), "answered": len(good), "failed_with_reason": len(failed),
         "truncated": totals.truncated, "attempts": server.asked, "seconds": round(time.monotonic() - started, 1),
         "kinds_of_fault": len([name for name in server.faults if name not in ("none", "length")]),
         "which": [name for name, count in bad.items() if count] or None}
    ]  # fmt: skip
    late = []
    for status in ("400", "401", "403"):
        with server_module.running_server(lambda number, text, status=status: status) as server:
            opened = open_teacher(f"openai:{server.url}#m", **{**options, "concurrency": 4})
            with Ledger(place / f"{status}.sqlite") as ledger:
                try:
                    Asker(opened, ledger).ask(asked[:200], "torture")
                    late.append(f"{status} did not end the run")
                except TeacherRefused as error:
                    if server.asked > 12:
                        late.append(f"{status}: {server.asked} requests")
                    if not any(word in str(error) for word in ("OPENAI_API_KEY", "context length")):
                        late.append(f"{status}: no mend in {error}")
            opened.close()
    records.append(
        {"suite": "teacher", "what": "400, 401 and 403 end the run at once with the mend", "count": 3,
         "bad": len(late), "which": late or None}
    )  # fmt: skip
    return records


def _more_faults(module: Any) -> None:
    """`429-soon`: throttled, with a Retry-After of 0 seconds."""
    plain = module._Handler._answer

    def answer(self: Any, fault: str | None, *said: str) -> None:
        if fault == "429-soon":
            self._json(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})
        else:
            plain(self, fault, *said)

    module._Handler._answer = answer
