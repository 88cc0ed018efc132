"""A bill of materials: what potstill stands on, with versions and licences, as CycloneDX 1.6 JSON.

    python scripts/sbom.py [--out sbom.json] [--check]

What enters is the installed environment, walked from potstill's declared dependencies (no extra); what leaves is
the document on stdout or in a file. `--check` ends with 1 when a dependency states no licence, or one not in the
lists below. Nothing is asked of a network.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import sys
import uuid
from email.message import Message
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Licences under which a dependency may be used beside Apache-2.0 code; weak copyleft is fine unchanged.
ALLOWED = (
    "apache", "mit", "bsd", "isc", "psf", "python software foundation", "mpl", "mozilla public", "zlib", "unlicense",
    "cc0", "0bsd", "hpnd", "public domain", "lgpl", "lesser general public", "boost", "blueoak", "bsl-1.0",
    "llvm-exception", "cnri-python",
)  # fmt: skip
# What packages leave out of their metadata, read in their licence files.
KNOWN = {"setuptools": "MIT"}


def dependencies(root: str) -> dict[str, importlib.metadata.Distribution]:
    """Installed distributions that `root` needs, itself among them, by canonical name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo: list[tuple[str, tuple[str, ...]]] = [(root, ())]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while todo:
        name, extras = todo.pop()
        key = canonicalize_name(name)
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        try:
            found[key] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in found[key].requires or ():
            need = Requirement(text)
            places = [{**default_environment(), "extra": extra} for extra in ("", *extras)]
            if need.marker is None or any(need.marker.evaluate(place) for place in places):
                todo.append((need.name, tuple(sorted(need.extras))))
    return found


def licence(metadata: Message, name: str) -> str:
    """What a distribution says of its licence: the expression, else the classifiers, else its text's first line."""
    if name in KNOWN:
        return KNOWN[name]
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    classifiers = [c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or () if c.startswith("License ::")]
    stated = [text for text in classifiers if text != "OSI Approved"]
    if stated:
        return " AND ".join(stated)
    text = (metadata["License"] or "").strip()
    return text.split("\n")[0][:80]


def allowed(text: str) -> bool:
    """Whether one of the alternatives of a licence text is in the list."""
    alternatives = re.split(r"(?i)\s+or\s+", text)
    return any(
        all(any(word in part.lower() for word in ALLOWED) for part in re.split(r"(?i)\s+and\s+|\s+with\s+", item))
        for item in alternatives
    )


def document(root: str) -> dict[str, Any]:
    """The CycloneDX document."""
    found = dependencies(root)
    components = []
    for name, item in sorted(found.items()):
        if name == canonicalize_name(root):
            continue
        text = licence(item.metadata, name)
        purl = f"pkg:pypi/{name}@{item.version}"
        entry: dict[str, Any] = {
            "type": "library", "bom-ref": purl, "name": item.metadata["Name"], "version": item.version, "purl": purl,
        }  # fmt: skip
        if text:
            entry["licenses"] = [{"license": {"name": text}}]
        components.append(entry)
    own = found[canonicalize_name(root)]
    lines = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, lines)}",
        "version": 1,
        "metadata": {"component": {"type": "library", "bom-ref": root, "name": root, "version": own.version}},
        "components": components,
    }


def problems(bom: dict[str, Any]) -> list[str]:
    """Components without a licence, or with one that is not in the list."""
    told = []
    for item in bom["components"]:
        names = [entry["license"]["name"] for entry in item.get("licenses", ())]
        if not names:
            told.append(f"{item['name']} {item['version']} states no licence")
        elif not allowed(names[0]):
            told.append(f"{item['name']} {item['version']}: {names[0]!r} is not in the list of allowed licences")
    return told


def main() -> int:
    """Write the document; with --check, judge it."""
    arguments = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    arguments.add_argument("--out", type=Path, help="file to write; none prints")
    arguments.add_argument("--check", action="store_true", help="only check the licences")
    given = arguments.parse_args()
    bom = document("potstill")
    text = json.dumps(bom, indent=1, ensure_ascii=False) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    elif not given.check:
        print(text, end="")
    if not given.check:
        return 0
    told = problems(bom)
    print(f"{len(bom['components'])} dependencies, {len(told)} with a licence to look at", *told, sep="\n  ")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
