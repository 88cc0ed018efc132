"""One unit out of a run: dataset, model, cards and report, on disk or on the Hub.

What enters: a finished run folder. What leaves: `dataset/` and `model/`, ready for `datasets.load_dataset` and
`transformers`. The unit is a function of the run: the same run gives the same bytes, so a second push finds nothing
to send. The user's test data, the ledger and the dropped rows stay at home.

On the Hub a unit is two repositories of one name. Large files of both are uploaded before either is committed, and
each repository changes by a single commit on top of the commit that was read, so a reader sees the old state or the
new one and never a part; `potstill-unit.json` carries one id in both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from potstill.errors import HubError, OptionError, UserError
from potstill.hub.cards import dataset_card, dataset_licence, licence_file, model_card, model_licence, unit_info
from potstill.hub.upload import TITLED, UNIT_FILE, UNIT_TITLE, PushedFile, Upload, unit_files
from potstill.masking import public_name
from potstill.report.facts import RunFacts, read_run
from potstill.rows import read_rows, with_same_columns, write_rows
from potstill.run_dir import digest, file_digest
from potstill.whole_folders import replace_folder

PARTS: tuple[Literal["dataset", "model"], ...] = ("dataset", "model")
_MODEL_SUFFIXES = {".json", ".safetensors", ".txt", ".model", ".jinja", ".onnx", ".gguf"}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Unit:
    """A unit on disk.

    Attributes:
        id: Hash of all its files.
        dataset: Folder of the dataset.
        model: Folder of the model.
        notes: What whoever publishes it should know.
    """

    id: str
    dataset: Path
    model: Path
    notes: tuple[str, ...]

    def folder(self, part: str) -> Path:
        """The folder of `dataset` or `model`."""
        return self.dataset if part == "dataset" else self.model


@dataclass(frozen=True)
class PushResult:
    """What a push did, or would do.

    Attributes:
        repo: `user/name`, of the dataset and of the model.
        unit: Id of the unit.
        private: Visibility of both.
        dry_run: Whether nothing was sent.
        files: Every file of the unit.
        urls: Where dataset and model are.
        commits: The commit of each part that holds the unit.
        notes: What whoever publishes it should know.
        pull_requests: Where each part is proposed, where it was not to be written.
    """

    repo: str
    unit: str
    private: bool
    dry_run: bool
    files: tuple[PushedFile, ...]
    urls: dict[str, str]
    commits: dict[str, str]
    notes: tuple[str, ...]
    pull_requests: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether a commit was made."""
        return not self.dry_run and any(file.change != "same" for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            **{name: getattr(self, name) for name in ("repo", "unit", "private", "dry_run", "urls", "commits")},
            "pull_requests": self.pull_requests,
            "changed": self.changed,
            "notes": list(self.notes),
            "files": [vars(file) for file in self.files],
        }

    def __str__(self) -> str:
        lines = []
        for part in PARTS:
            files = [file for file in self.files if file.part == part]
            request = self.pull_requests.get(part)
            verb = "would go to" if self.dry_run else "is proposed to" if request else "is at"
            total = sum(file.size for file in files if file.change != "delete")
            lines.append(
                f"{part} {verb} {self.urls[part]}  ({_size(total)}, {'private' if self.private else 'public'})"
            )
            lines += [f"  pull request: {request}"] if request else []
            if all(file.change == "same" for file in files):
                lines.append("  nothing had changed; no commit was made")
                continue
            lines += [f"  {file.change:<6} {_size(file.size):>10}  {file.path}" for file in files]
        lines.append(f"unit {self.unit[:TITLED]}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def build_unit(run: Path | str, out: Path | str, *, repo: str | None = None) -> Unit:
    """Write `out/dataset` and `out/model`.

    Args:
        run: A finished run folder.
        out: Folder to write into; a unit that is there is replaced as a whole.
        repo: `user/name` that the cards link to, or None for a unit that stays on disk.

    Raises:
        UserError: The run is not finished, or `out` holds something else.
    """
    from potstill.report.page import render_report

    facts = read_run(Path(run))
    if not facts.splits.get("train") or not facts.split_rows["train"]:
        raise UserError(f"{run} has no training rows yet; finish it first: potstill run TASK --out {run}")
    if not (facts.student_path / "config.json").exists():
        raise UserError(f"{run} has no student yet; finish it first: potstill run TASK --out {run}")
    out = Path(out)
    for part in PARTS:
        if (out / part).exists() and not (out / part / UNIT_FILE).exists():
            raise UserError(f"{out / part} exists and is no unit of potstill; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".unit-", dir=out))
    try:
        targets = facts.path / "soft" / "token_targets.parquet"
        info = unit_info(facts, repo, token_targets=targets.exists())
        html, markdown = render_report(facts, public=True)
        _write_dataset(facts, work / "dataset", targets if targets.exists() else None)
        _copy_model(facts.student_path, work / "model")
        if (facts.path / "compress" / "student").exists():
            _copy_files(facts.path / "compress" / "student", work / "model" / "compressed")
        cards = {"dataset": dataset_card(facts, info), "model": model_card(facts, info)}
        licences = {"dataset": dataset_licence(facts), "model": model_licence(facts)}
        for part in PARTS:
            texts = {"README.md": cards[part], "report.html": html, "report.md": markdown}
            if licences[part].id == "other":
                texts["LICENSE.md"] = licence_file(facts, licences[part], model=part == "model")
            for name, text in texts.items():
                (work / part / name).write_text(text, encoding="utf-8")
        tables = {part: {name: file_digest(work / part / name) for name in unit_files(work / part)} for part in PARTS}
        unit = digest(tables)[:32]
        for part in PARTS:
            content = {"format": 1, "unit": unit, "part": part, "potstill": version("potstill"), "files": tables[part]}
            text = json.dumps(content, indent=1, sort_keys=True) + "\n"
            (work / part / UNIT_FILE).write_text(text, encoding="utf-8")
        for part in PARTS:
            replace_folder(work / part, out / part)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Unit(unit, out / "dataset", out / "model", tuple(_notes(facts)))


def push(
    run: Path | str,
    repo: str,
    *,
    private: bool = True,
    token: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    create_pr: bool = False,
) -> PushResult:
    """Publish a run as the dataset and the model `repo`. Sends only what changed; a second push sends nothing.

    Args:
        run: A finished run folder.
        repo: `user/name`.
        private: Visibility of new repositories. An existing public one is never updated with `private=True`.
        token: Access token; by default the one of `HF_TOKEN` or of `hf auth login`.
        dry_run: Only say what would go; asks the Hub nothing.
        overwrite: Publish into a repository whose files are not potstill's.
        create_pr: Propose it to repositories that are there, by one pull request each, and write nothing to them: for
            who may read and not write. One of the same unit that is open is not made again.

    Raises:
        OptionError: `repo` is no valid name.
        UserError: The run is not finished.
        HubError: The Hub refused or cannot be reached; says what stands published.
    """
    check_repo(repo)
    with tempfile.TemporaryDirectory(prefix="potstill-push-") as folder:
        unit = build_unit(run, folder, repo=repo)
        if dry_run:
            return _dry_result(unit, repo, private)
        from huggingface_hub import HfApi, get_token

        secret = token or get_token()
        if not secret:
            raise HubError("no token for the Hub; set HF_TOKEN to a token with write access and push again")
        api = HfApi(token=secret, library_name="potstill", library_version=version("potstill"))
        uploads = [Upload(api, part, repo, unit.folder(part), secret, create_pr=create_pr) for part in PARTS]
        done: list[str] = []
        try:
            for upload in uploads:
                upload.open(private=private, overwrite=overwrite)
            for upload in uploads:
                upload.send_large_files()
            for upload in uploads:
                upload.commit(UNIT_TITLE + unit.id[:TITLED])
                done.append(upload.part)
        except HubError as error:
            what = "proposed" if create_pr else "published"
            state = f"the dataset of this unit is {what}, its model is not: push again to finish"
            raise HubError(f"{error}; {state if done else f'nothing was {what}'}") from None
        requests: dict[str, str] = {upload.part: upload.pull_request for upload in uploads if upload.pull_request}
        both = ("merge both pull requests: a dataset and a model of two units are not read back",) if requests else ()
        return PushResult(
            repo=repo,
            unit=unit.id,
            private=all(upload.private for upload in uploads),
            dry_run=False,
            files=tuple(file for upload in uploads for file in upload.files),
            urls={upload.part: upload.url for upload in uploads},
            commits={upload.part: upload.head for upload in uploads},
            notes=(*unit.notes, *(note for upload in uploads for note in upload.notes), *both),
            pull_requests=requests,
        )


def check_repo(repo: str) -> None:
    """Refuse a name that the Hub, or a file system, could read as something else.

    Raises:
        OptionError: It is not `user/name`.
    """
    parts = repo.split("/")
    fine = len(parts) == 2 and all(_NAME.fullmatch(p) and ".." not in p and "--" not in p for p in parts)
    if not fine or repo.endswith((".git", ".ipynb")):
        shown = repo if len(repo) < 80 else repo[:77] + "…"
        mend = "give USER/NAME of letters, digits, '-', '_' and '.', such as me/support-tickets"
        raise OptionError("the Hub's name", [f"{shown!r} is no name on the Hub; {mend}"])


def _write_dataset(facts: RunFacts, folder: Path, token_targets: Path | None) -> None:
    (folder / "data").mkdir(parents=True)
    if facts.explained:
        # Splits of one dataset have the same columns.
        tables = with_same_columns({name: read_rows(path) for name, path in facts.splits.items()})
        for name, table in tables.items():
            write_rows(table, folder / "whole.parquet")
            _copy_rows(folder / "whole.parquet", folder / "data" / f"{name}.parquet")
        (folder / "whole.parquet").unlink()
    else:
        for name, path in facts.splits.items():
            _copy_rows(path, folder / "data" / f"{name}.parquet")
    if token_targets is not None:
        (folder / "token_targets").mkdir()
        shutil.copyfile(token_targets, folder / "token_targets" / "train.parquet")


def _copy_rows(path: Path, target: Path) -> None:
    """Copy a split; folders and addresses of this machine are taken out of `source`."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    source = table["source"].combine_chunks()
    fields = {field.name: source.field(field.name) for field in source.type}
    changed = False
    for name in ("dataset", "teacher"):
        renames = {place: public_name(place) for place in pc.unique(fields[name]).to_pylist() if place}
        if any(place != new for place, new in renames.items()):
            cleaned = [renames.get(place, place) for place in fields[name].to_pylist()]
            fields[name] = pa.array(cleaned, type=fields[name].type)
            changed = True
    if not changed:
        shutil.copyfile(path, target)
        return
    struct = pa.StructArray.from_arrays(list(fields.values()), fields=list(source.type), mask=source.is_null())
    place = table.schema.get_field_index("source")
    pq.write_table(table.set_column(place, table.schema.field(place), struct), target, compression="zstd")


def _copy_model(student: Path, folder: Path) -> None:
    """Copy weights, tokenizer and configuration; checkpoints, links and anything pickled stay behind."""
    _copy_files(student, folder)
    if not list(folder.rglob("*.safetensors")):
        raise UserError(f"{student} holds no safetensors weights; train the student again")


def _copy_files(student: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in sorted(student.rglob("*")):
        place = path.relative_to(student)
        hidden = any(step.startswith((".", "checkpoint")) for step in place.parts)
        if hidden or path.is_symlink() or not path.is_file() or path.suffix not in _MODEL_SUFFIXES:
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / place)


def _notes(facts: RunFacts) -> Iterator[str]:
    own = sum(line.rows for line in facts.sources if line.origin == "user")
    if own:
        yield f"{own:,} of the rows are your own labelled data, and will be readable by whoever can read the dataset"
    unknown = sum(line.rows for line in facts.sources if line.licence == "unknown")
    if unknown:
        yield f"{unknown:,} rows have no stated licence; the card says so"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.1f} KiB"


def _dry_result(unit: Unit, repo: str, private: bool) -> PushResult:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    files = [
        PushedFile(part, name, (unit.folder(part) / name).stat().st_size, "send")
        for part in PARTS
        for name in unit_files(unit.folder(part))
    ]
    urls = {"dataset": f"{endpoint}/datasets/{repo}", "model": f"{endpoint}/{repo}"}
    return PushResult(repo, unit.id, private, True, tuple(files), urls, {}, unit.notes)
