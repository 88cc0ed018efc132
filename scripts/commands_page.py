"""Write docs/commands.md, every command with its arguments and options, from what `--help` says.

python scripts/commands_page.py          write the page
python scripts/commands_page.py --check  exit with 1 where it is not as the commands are
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
TOP = """# Commands

This page is made from `potstill COMMAND --help` by `scripts/commands_page.py`. `--set NAME=VALUE` sets any of the
[settings](reference.md#settings). `python -m potstill` is the same command.

**Exit codes:** 0 done; 1 an error that potstill did not foresee; 2 something to fix in what you gave; 3 the teacher,
or a budget that is used up; 4 the run folder; 5 training; 6 the Hub; 130 interrupted; 143 ended by SIGTERM.

**Environment variables:** every flag can also be set by a variable, named after the command and the flag:
`POTSTILL_RUN_N=50` is `potstill run -n 50`, `POTSTILL_RUN_AT_BUDGET=train` is `--at-budget train`,
`POTSTILL_CATALOGUE_SEARCH_JSON=1` is `--json` of `potstill catalogue search`. A flag takes precedence over its
variable, and a variable over the task file. For a flag that may be repeated, separate the values by spaces:
`POTSTILL_RUN_SET="distil.epochs=3 merge.heldout=0.1"`; a value that contains a space has to be given as a flag.
Empty variables are ignored. The command that a run shows for continuing it names the variables that were read, with
keys masked, and so does the message when a setting is refused.

Others are read by their usual names: `OPENAI_API_KEY` and `OPENAI_BASE_URL`; `HF_TOKEN` (or what `hf auth login` left),
`HF_ENDPOINT` and `HF_HUB_OFFLINE`; `RAY_ADDRESS`. `POTSTILL_CACHE` is where unpacked models rest (by default
`~/.cache/potstill`), and `POTSTILL_WORKERS_TOKEN` what [workers](howto-workers.md) share.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Each command's words and the command, in the order of `potstill --help`."""
    from potstill.cli.app import app

    def below(words: str, group: Any) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(f"{words} {name}", command)
            elif not command.hidden:
                yield f"{words} {name}", command

    yield from below("potstill", typer.main.get_command(app))


def render() -> str:
    """The page."""
    parts = [TOP]
    for words, command in commands():
        parts.append(f"\n## {words}\n\n{_text(command.help)}\n")
        lines = [_line(item) for item in command.params if not getattr(item, "hidden", False)]
        if lines:
            parts.append("\n| argument or option | what it says | default |\n|---|---|---|\n" + "\n".join(lines) + "\n")
        if command.epilog:
            parts.append(f"\nExample: `{command.epilog.removeprefix('Example: ').strip()}`\n")
    return "".join(parts)


def _line(item: Any) -> str:
    if item.param_type_name == "argument":
        name = item.metavar or item.name.upper()
    else:
        name = ", ".join([*item.opts, *item.secondary_opts])
    shown = item.default is not None and not isinstance(item.default, bool) and item.default != ""
    default = f" `{item.default}` |" if shown else " |"
    return f"| `{name}` | {_text(item.help)} |{default}"


def _text(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Write or check."""
    made = render()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
