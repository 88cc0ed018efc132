"""How the texts that nobody labelled were labelled by rules: each rule with its share, and who contradicts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Rules with a line of their own; more are told together.
_MOST_LINES = 20


def rule_lines(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Lines of the report: (what, figure, remark).

    Args:
        report: What the stage `weak` reported; empty where there was none.

    Examples:
        >>> rule = {"name": "spam: keyword free", "coverage": 0.25, "contradicted": 0.5, "group": 0}
        >>> for line in rule_lines({"functions": [rule], "texts": 8, "labelled": 1}):
        ...     print(*line, sep=" | ")
        Unlabelled texts that rules labelled | 1 of 8 | 1 rules
        spam: keyword free | 2 of 8 | another contradicts 50 % of its votes
    """
    functions, texts = report.get("functions", []), report.get("texts", 0)
    if not functions:
        return []
    asked = sum(item.get("asked", 0) for item in functions)
    told = f"{len(functions)} rules" + (f", which asked the teacher {asked:,} questions" if asked else "")
    lines = [("Unlabelled texts that rules labelled", f"{report.get('labelled', 0):,} of {texts:,}", told)]
    for place, item in enumerate(functions[:_MOST_LINES]):
        said = [f"another contradicts {item['contradicted']:.0%} of its votes".replace("%", " %")]
        others = [i for i, other in enumerate(functions) if other["group"] == item["group"] and i != place]
        if others:
            said.append(f"one vote with rule {', '.join(str(i + 1) for i in others)}")
        if answers := item.get("answers"):
            said.append("answers: " + ", ".join(f"{name} {count:,}" for name, count in answers.items()))
        if item.get("unanswered"):
            said.append(f"{item['unanswered']:,} without an answer")
        lines.append((item["name"], f"{round(item['coverage'] * texts):,} of {texts:,}", "; ".join(said)))
    for item in functions:
        if item.get("faults"):
            remark = f"it abstains there; the first: {item['first_fault']}"
            lines.append((f"Texts on which {item['name']} failed", f"{item['faults']:,}", remark))
    return lines
