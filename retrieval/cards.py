"""Dataset cards: what a card says, as one frozen value.

In: a mapping in the catalogue's JSON shape, or the YAML front matter of a README.md. Out: a `Card`, or a
`CardFault` whose text is the reason why the card is left out. Cards are written by strangers: every field is
checked for type and size, ids can never be read as paths, and nothing of a card is ever executed or rendered.
YAML goes through `potstill.task.front_matter`, which refuses anchors, aliases and tags, so a bomb or a cycle costs no
more than its own length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from potstill.language.names import language_code
from potstill.rows import UNKNOWN_LICENCE
from potstill.task.front_matter import Faults, Node, parse_yaml, plain

MAX_TEXT = 1_000_000
MAX_EMBEDDED = 1_500
MAX_CONFIGS = 2_000
MAX_COLUMNS = 2_000
MAX_NESTING = 12
_ID_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,95}")
_NO_LICENCE = {"", "unstated", "other", "unknown", "none", "n/a", "no license", "null", "unlicensed"}
_LICENCE_WORDS = {
    "cc0": "cc0-1.0",
    "apache2.0": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache": "apache-2.0",
    "mit-license": "mit",
    "cc-by4.0": "cc-by-4.0",
}


class CardFault(ValueError):
    """A card that cannot be used; the text is the reason."""


@dataclass(frozen=True)
class Config:
    """One configuration of a dataset.

    Attributes:
        features: Column to type text, or to `{"class_label": [names]}`, or to a nested description.
        splits: Rows by split.
    """

    features: Mapping[str, Any] = field(default_factory=dict, hash=False)
    splits: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Card:
    """What is known of a dataset without reading it.

    Attributes:
        id: Hub id, or a name in the same form.
        title: Its name for people.
        description: Prose; Markdown as the authors wrote it.
        languages: ISO 639-1 codes; empty when unknown.
        licence: SPDX id in lower case; several are joined by ` and `; `unknown` where none is stated.
        tasks: Task categories and task ids.
        rows: Rows over all configurations and splits; 0 when unknown.
        configs: Configurations by name; empty when unknown.
        gated: Whether the Hub asks for consent before it gives the data.
        downloads: Downloads in the last month, as the Hub counts them; 0 when unknown.
        location: Folder or file with the data on this machine, absolute; None for the Hub.
        known_as: Other ids of the same data.
        train_eval_index: Column mapping that the authors gave, as the Hub defines it.
    """

    id: str
    title: str
    description: str = ""
    languages: tuple[str, ...] = ()
    licence: str = UNKNOWN_LICENCE
    tasks: tuple[str, ...] = ()
    rows: int = 0
    configs: Mapping[str, Config] = field(default_factory=dict, hash=False)
    gated: bool = False
    downloads: int = 0
    location: str | None = None
    known_as: tuple[str, ...] = ()
    train_eval_index: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    @property
    def text(self) -> str:
        """What is embedded and searched: title, description, task tags, label names, columns; <= 1,500 characters."""
        return card_text(self)


def card_text(card: Card) -> str:
    """The text of a card for search, at most 1,500 characters, links and markup taken out."""
    labels: list[str] = []
    columns: list[str] = []
    for config in list(card.configs.values())[:3]:
        for column, kind in config.features.items():
            columns.append(column)
            inner = kind.get("sequence") if isinstance(kind, Mapping) else None
            if names := class_names(kind) or class_names(inner):
                labels.extend(names[:30])
    words = card.id.rpartition("/")[2].replace("_", " ").replace("-", " ")
    parts = [
        plain_prose("" if card.title == card.id else card.title),
        plain_prose(card.description)[:1000],
        " ".join(dict.fromkeys(tag.replace("-", " ").replace("_", " ") for tag in card.tasks[:6])),
        " ".join(dict.fromkeys(labels))[:250],
        " ".join(dict.fromkeys(columns))[:100],
    ]
    if words.lower() not in parts[0].lower():
        parts.insert(0, words)
    return ". ".join(part.strip(" .") for part in parts if part)[:MAX_EMBEDDED]


def class_names(kind: Any) -> list[str]:
    """Label names of a feature, or none."""
    names = kind.get("class_label") if isinstance(kind, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def plain_prose(text: str) -> str:
    """Markdown as prose: link targets, images, HTML tags, code fences, heading marks and doubled blanks go."""
    text = text[:8000]
    text = re.sub(r"!\[[^\]\n]{0,300}\]\([^)\n]{0,500}\)", " ", text)
    text = re.sub(r"\[([^\]\n]{0,300})\]\([^)\n]{0,500}\)", r"\1", text)
    text = re.sub(r"https?://\S{1,500}", " ", text)
    text = re.sub(r"<[^<>\n]{1,300}>", " ", text)
    text = re.sub(r"[`*#|>\x00-\x1f]+", " ", text)
    return " ".join(text.split())


def licence_id(values: Iterable[str]) -> str:
    """One licence from what a card lists: SPDX in lower case, several joined by ` and `, else `unknown`."""
    found: list[str] = []
    for value in values:
        word = value.strip().lower()
        if word in _NO_LICENCE:
            word = UNKNOWN_LICENCE
        word = re.sub(r"[\s_]+", "-", word)[:80]
        word = _LICENCE_WORDS.get(word, word)
        if word not in found:
            found.append(word)
    return " and ".join(found) if found else UNKNOWN_LICENCE


def check_id(text: Any) -> str:
    """The id itself, when it is `name` or `owner/name`.

    Raises:
        CardFault: Anything else; such an id could be read as a path.
    """
    if not isinstance(text, str) or not text:
        raise CardFault("no id")
    parts = text.split("/")
    if len(parts) > 2 or not all(_ID_PART.fullmatch(part) for part in parts) or ".." in text:
        raise CardFault(f"id {text[:60]!r} is not NAME or OWNER/NAME (letters, digits, - _ . and at most 96 a part)")
    return text


def card_from_mapping(raw: Any, location: str | None = None) -> Card | None:
    """Read one card in the catalogue's JSON shape.

    Args:
        raw: A decoded JSON object, a row of a catalogue in Parquet, or front matter as plain values.
        location: Where its data are on this machine.

    Returns:
        The card; None for the format loaders (`is_loader`), which are no datasets.

    Raises:
        CardFault: The card cannot be used.
    """
    if not isinstance(raw, Mapping):
        raise CardFault(f"a card is a JSON object, not {type(raw).__name__}")
    if raw.get("is_loader"):
        return None
    card_id = check_id(raw.get("id"))
    tags = _texts(raw, "tags")
    configs = _configs(_decoded(raw, "configs"))
    rows = raw.get("num_rows") or raw.get("rows") or sum(sum(c.splits.values()) for c in configs.values())
    if isinstance(rows, bool) or not isinstance(rows, int | float) or rows != rows or not 0 <= rows < 1e15:
        raise CardFault(f"num_rows must be a count (got {str(rows)[:40]!r})")
    index = _decoded(raw, "train_eval_index") or raw.get("train-eval-index") or ()
    packed = raw.get("pack")
    pack: Mapping[str, Any] = packed if isinstance(packed, Mapping) else {}
    known_as = [*_texts(raw, "known_as"), *_texts(pack, "catalogue_id")]
    languages = [language_code(word) for word in [*_texts(raw, "languages", "language"), *_tagged(tags, "language")]]
    downloads = raw.get("downloads")
    return Card(
        id=card_id,
        title=_text(raw, "pretty_name", "title", "name") or card_id,
        description=_text(raw, "description", "summary"),
        languages=tuple(dict.fromkeys(code for code in languages if code)),
        licence=licence_id([*_texts(raw, "licences", "license", "licence", "licenses"), *_tagged(tags, "license")]),
        tasks=tuple(
            dict.fromkeys(
                [
                    *_texts(raw, "task_categories"),
                    *_texts(raw, "task_ids", "tasks"),
                    *_tagged(tags, "task_categories"),
                    *_tagged(tags, "task_ids"),
                ]
            )
        ),
        rows=int(rows),
        configs=configs,
        # The Hub answers False, "auto" or "manual".
        gated=raw.get("gated") not in (None, False, "", "false", "False"),
        downloads=downloads if isinstance(downloads, int) and not isinstance(downloads, bool) and downloads > 0 else 0,
        location=location,
        known_as=tuple(dict.fromkeys(known_as)),
        train_eval_index=tuple(item for item in index if isinstance(item, Mapping)) if isinstance(index, list) else (),
    )


def front_matter(text: str, where: str) -> dict[str, Any] | None:
    """The YAML front matter of a README.md in the catalogue's JSON shape; None where it has none.

    Raises:
        CardFault: The text is too long, or its YAML is not plain data.
    """
    if len(text) > MAX_TEXT:
        raise CardFault(f"the card is longer than {MAX_TEXT:,} characters")
    found = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)(?:\r?\n)---[ \t]*(?:\r?\n|$)", text, flags=re.DOTALL)
    if found is None:
        return None
    faults = Faults(where)
    root = parse_yaml(found.group(1), 2, faults)
    if root is None and faults:
        raise CardFault(" ".join(str(faults.error()).splitlines()[1].split())[2:300])
    if root is None or root.kind != "mapping":
        return {} if root is None else _not_mapping(root)
    raw: dict[str, Any] = {}
    for key, node in root.fields.items():
        # `no` is Norwegian here and not a boolean, hence the words as written.
        raw[key] = _words(node) if key in ("language", "languages", "license", "licence", "licenses") else plain(node)
    # On the Hub, `configs` lists data files; the features and sizes stand in `dataset_info`.
    raw["data_files"] = raw.pop("configs", None)
    raw["configs"] = hub_configs(raw.pop("dataset_info", None), raw["data_files"])
    raw.setdefault("description", card_summary(text[found.end() :]))
    return raw


def card_summary(body: str) -> str:
    """What a card's Markdown says the dataset is: its summary section where it has one, else all of it.

    Template lines (`[More Information Needed]`), tables of contents and headings are left out.
    """
    section = re.search(r"(?im)^#{1,4}[ \t]*dataset (?:summary|description)[ \t]*$", body)
    if section is not None:
        following = body[section.end() : section.end() + 20_000]
        summary = _prose_lines(re.split(r"(?m)^#{1,4}[ \t]", following, maxsplit=1)[0])
        if len(summary) >= 40:
            return summary
    return _prose_lines(body[:20_000])


def _prose_lines(text: str) -> str:
    kept = [
        line
        for line in text.splitlines()
        if not re.match(
            r"\s*(#{1,6}\s|[-*]\s+\[[^\]]{0,200}\]\(#|\[?more information needed)", line, flags=re.IGNORECASE
        )
    ]
    return "\n".join(kept).strip()


def _not_mapping(root: Node) -> dict[str, Any]:
    raise CardFault(f"the front matter is {root.describe()}, not a mapping")


def _words(node: Node) -> Any:
    if node.kind == "list":
        return [item.text for item in node.items if item.kind == "scalar"]
    if node.kind == "mapping":  # per configuration, as older cards have it
        return [word for value in node.fields.values() for word in _words(value)]
    return [] if node.empty else [node.text]


def hub_configs(info: Any, listed: Any = None) -> dict[str, Any]:
    """Configurations of a card of the Hub, in the form of the catalogue's `configs`.

    Args:
        info: Its `dataset_info`: features and split sizes.
        listed: Its `configs`: names and data files. Most cards have these alone; what they leave out is unknown, and
            the rows of a split that they name count as 0.
    """
    configs: dict[str, Any] = {}
    for item in info if isinstance(info, list) else [info]:
        if not isinstance(item, Mapping):
            continue
        features = item.get("features")
        columns = {}
        for column in features if isinstance(features, list) else []:
            if isinstance(column, Mapping) and isinstance(column.get("name"), str):
                columns[column["name"]] = _hub_dtype(column)
        splits = item.get("splits")
        configs[str(item.get("config_name") or "default")] = {
            "features": columns,
            "splits": {
                str(split.get("name")): split.get("num_examples") or 0
                for split in (splits if isinstance(splits, list) else [])
                if isinstance(split, Mapping)
            },
        }
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping) and (len(configs) < MAX_CONFIGS or item.get("config_name") in configs):
            name = str(item.get("config_name") or "default")
            config = configs.setdefault(name, {"features": {}, "splits": {}})
            config["splits"] = config["splits"] or dict.fromkeys(_listed_splits(item.get("data_files")), 0)
    return configs


def _listed_splits(files: Any) -> list[str]:
    """Splits that a configuration's `data_files` names; patterns without a split are of `train`."""
    if isinstance(files, Mapping) and "path" not in files:
        return [str(split) for split in files]
    items = [item for item in (files if isinstance(files, list) else [files]) if item]
    named = [item.get("split") if isinstance(item, Mapping) else None for item in items]
    return list(dict.fromkeys(str(split or "train") for split in named))


def _hub_dtype(column: Mapping[str, Any]) -> Any:
    kind = column.get("dtype")
    if isinstance(kind, Mapping) and isinstance(kind.get("class_label"), Mapping):
        names = kind["class_label"].get("names")
        if isinstance(names, Mapping):  # keyed by number, in whatever order
            numbered = {str(number): str(name) for number, name in names.items()}
            if set(numbered) == set(map(str, range(len(numbered)))):
                return {"class_label": [numbered[str(number)] for number in range(len(numbered))]}
            return "int64"
        if isinstance(names, list):
            return {"class_label": [str(name) for name in names]}
    for nested in ("sequence", "list", "struct"):
        if nested in column:
            return {nested: column[nested]}
    return kind if isinstance(kind, str | Mapping) else "string"


def _configs(raw: Any) -> dict[str, Config]:
    if raw in (None, {}, []):
        return {}
    if not isinstance(raw, Mapping):
        raise CardFault(f"configs must be a mapping (got {type(raw).__name__})")
    if len(raw) > MAX_CONFIGS:
        raise CardFault(f"{len(raw):,} configurations, more than {MAX_CONFIGS:,}")
    configs = {}
    for name, value in raw.items():
        if not isinstance(value, Mapping):
            raise CardFault(f"configuration {str(name)[:40]!r} must be a mapping (got {type(value).__name__})")
        features, splits = value.get("features") or {}, value.get("splits") or {}
        if not isinstance(features, Mapping) or not isinstance(splits, Mapping):
            raise CardFault(f"configuration {str(name)[:40]!r}: features and splits must be mappings")
        if len(features) > MAX_COLUMNS:
            raise CardFault(f"configuration {str(name)[:40]!r} has {len(features):,} columns, over {MAX_COLUMNS:,}")
        configs[str(name)] = Config(
            features={str(column): _feature(kind, 0) for column, kind in features.items() if kind is not None},
            splits={str(split): rows for split, rows in splits.items() if isinstance(rows, int) and rows >= 0},
        )
    return configs


def _feature(kind: Any, depth: int) -> Any:
    """A feature as text, `{"class_label": [names]}` or a nested mapping or list of these."""
    if depth > MAX_NESTING:
        raise CardFault(f"a column is nested more than {MAX_NESTING} deep")
    if isinstance(kind, Mapping):
        if isinstance(names := kind.get("class_label"), list):
            return {"class_label": [str(name) for name in names]}
        return {str(key): _feature(value, depth + 1) for key, value in kind.items()}
    if isinstance(kind, list):
        return [_feature(value, depth + 1) for value in kind]
    return str(kind)


def _decoded(raw: Mapping[str, Any], key: str) -> Any:
    """A nested field; catalogues in Parquet hold it as JSON text."""
    value = raw.get(key)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        raise CardFault(f"{key} is not JSON (got {value[:40]!r})") from None


def _text(raw: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        value = raw.get(key)
        if value is None or value == "":
            continue
        if isinstance(value, bool | int | float):
            value = str(value)
        if not isinstance(value, str):
            raise CardFault(f"{key} must be text (got {type(value).__name__})")
        if len(value) > MAX_TEXT:
            raise CardFault(f"{key} is longer than {MAX_TEXT:,} characters")
        return value.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8").strip()
    return ""


def _texts(raw: Mapping[str, Any], *keys: str) -> list[str]:
    for key in keys:
        value = raw.get(key)
        if value in (None, "", [], {}):
            continue
        if isinstance(value, str):
            value = [value]
        if isinstance(value, Mapping):
            value = [word for words in value.values() for word in (words if isinstance(words, list) else [words])]
        if not isinstance(value, list | tuple) or len(value) > 10_000:
            raise CardFault(f"{key} must be a list of texts (got {type(value).__name__})")
        if not all(isinstance(word, str) and len(word) < 500 for word in value):
            raise CardFault(f"{key} must hold short texts only (got {str(value)[:60]})")
        return [word.replace("\x00", "").strip() for word in value if word.strip()]
    return []


def _tagged(tags: Iterable[str], prefix: str) -> list[str]:
    """Values of tags such as `language:en`, which the Hub's listing carries."""
    return [tag.partition(":")[2] for tag in tags if tag.startswith(prefix + ":")]
