"""`potstill view`: the rows of a run on a local page, to browse, search, judge and correct.

What enters: a run folder. What leaves: a `web.App` whose page asks for pages of rows (`/rows`), the values to filter
by (`/facets`), one row with where it came from (`/row`), and posts decisions (`/decide`), which are kept in the run
and heeded by its next merge (see `decisions`).
"""

from __future__ import annotations

import contextlib
import threading
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from potstill.decisions import Decision, decide
from potstill.errors import OptionError, PotstillError
from potstill.pages.browse import FILTERS, Filter, RowBrowser
from potstill.pages.web import Answer, App, Call

MOST_ROWS = 200
_END_S = 10.0


def viewer_app(run: Path | str) -> App:
    """The viewer of a run.

    Raises:
        UserError: There is no run.
    """
    browser = RowBrowser(run)
    browser.page(Filter(), 0, 1)  # a run without rows is said now, not on the page
    taking_turns = threading.Lock()

    def prepare() -> None:
        with contextlib.suppress(PotstillError, OSError):  # said when somebody looks
            browser.prepare()

    preparing = threading.Thread(target=prepare, daemon=True)
    preparing.start()

    def closing() -> None:
        preparing.join(timeout=_END_S)  # what it copies would be left lying
        browser.close()

    def page(call: Call) -> Answer:
        return Answer(html=render(
            "viewer.html.j2", call, name=str(browser.spec.get("name", "")), labels=browser.labels, run=str(browser.run),
            instruction=str(browser.spec.get("instruction", "")),
        ))  # fmt: skip

    def rows(call: Call) -> Answer:
        wanted = Filter(**{name: call.query.get(name, "") for name in FILTERS if name != "view"}, view=_view(call))
        offset, limit = _number(call, "offset", 0, 10**9), _number(call, "limit", 50, MOST_ROWS)
        with taking_turns:
            found = browser.page(wanted, offset, limit)
        return Answer({"total": found.total, "offset": found.offset, "rows": found.rows})

    def facets(call: Call) -> Answer:
        with taking_turns:
            return Answer({"facets": browser.facets(_view(call)), "decided": len(browser.decisions())})

    def row(call: Call) -> Answer:
        with taking_turns:
            return Answer(browser.find(call.query.get("id", "") or "(none)"))

    def decided(call: Call) -> Answer:
        body = call.body
        texts = {name: body.get(name, "") for name in ("action", "id", "new_input", "new_output")}
        if not all(isinstance(value, str) for value in texts.values()):
            raise OptionError("decision", ["action, id, new_input and new_output must be texts"])
        with taking_turns:
            record = browser.find(texts["id"] or "(none)")
            stored = decide(
                browser.run,
                Decision(
                    action=texts["action"],  # type: ignore[arg-type]
                    input=record["input"],
                    output=record["output"],
                    new_input=texts["new_input"],
                    new_output=texts["new_output"],
                    was_dropped=record["view"] == "dropped",
                    licence=str(record.get("licence") or "unknown"),
                ),
                browser.labels,
            )
        return Answer({"decision": None if stored.action == "undo" else stored.to_json()})

    return App(
        get={"/": page, "/rows": rows, "/facets": facets, "/row": row}, post={"/decide": decided}, closing=closing
    )


def render(template: str, call: Call, **values: Any) -> str:
    """A page of `templates/` with its nonce and token; every value is escaped."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=True, trim_blocks=True)
    text = resources.files("potstill").joinpath("templates", template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values, nonce=call.nonce, token=call.token)


def _view(call: Call) -> Any:
    return call.query.get("view", "kept") or "kept"


def _number(call: Call, name: str, default: int, most: int) -> int:
    text = call.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise OptionError("query", [f"{name} must be a whole number (got {text[:40]!r})"])
    return min(int(text), most)
