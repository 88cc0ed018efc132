"""The report: complete, harmless, stable, and looked at in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import DataError, UserError
from potstill.report import plots as report_plots
from potstill.report.facts import read_run
from potstill.report.page import hide_paths, render_report, shown, write_report
from potstill.rows import read_rows

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; notes tags that do not close in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def run(sample_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = sample_run.write_run(tmp_path_factory.mktemp("runs") / "real")
    return path


def test_the_report_tells_the_whole_run(run: Path) -> None:
    html, markdown = write_report(run)
    page = Page(html.read_text(encoding="utf-8"))
    assert page.faults == []
    for words in (
        "Sort support tickets by what they are about.", "60 rows of real test data", "None of the 60 texts",
        "teacher (calibrated)", "majority", "6.2 / 8.9 ms", "43.3 MiB", "acme/mails",
        "labels do not fit: none of 4 maps to the task", "licence cc-by-nc-4.0 is denied",
        "1 dataset was left out before ranking", "cc-by-4.0", "near_duplicate", "like row 3", "label scores",
        "Calibration on the test rows", "Loss", "Validation score", "Length of training rows",
        "potstill run /home/someone/task.md -n 120", "2.13.0", "A million answers", "nested.distinct_2", "Inferred",
        "Majority always answers billing (the commonest label of the training rows).",
    ):  # fmt: skip
        assert words.lower() in page.text.lower() or words in str(page.tags), words
    scores = json.loads((run / "evaluate" / "scores.json").read_text())["systems"]
    for system in scores:
        assert f"{system['macro_f1']:.3f}" in page.text
    for words in ("real test data", "near_duplicate", "acme/tickets", "Checks", "Majority always answers billing"):
        assert words in markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "prompt", ["Sort the mails by tone.", 'It\'s $HOME & a "quote"', "Two lines\n\n  of a prompt" * 90]
)
def test_the_command_shown_gives_its_arguments_back(
    sample_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    from potstill.stages.job import command_given

    arguments = ["run", prompt, "--set", "distil.epochs=1", "-o", "my runs/<a>"]
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/potstill", *arguments])
    run = sample_run.write_run(tmp_path / "run")
    facts = json.loads((run / "run.json").read_text()) | {"command": command_given()}
    (run / "run.json").write_text(json.dumps(facts))
    html, markdown = render_report(read_run(run))
    page = unescape(re.findall(r"<pre[^>]*>(potstill .*?)</pre>", html, re.S)[0])
    text = re.findall(r"^    (potstill .*?)\n(?! {4}|\n {4})", markdown, re.M | re.S)[0].replace("\n    ", "\n")
    for shown_command in (page, text):
        assert shlex.split(shown_command) == ["potstill", *arguments]
    monkeypatch.setattr("sys.argv", ["/somewhere/site-packages/potstill/__main__.py", *arguments])
    assert shlex.split(command_given()) == ["potstill", *arguments]
    monkeypatch.setattr("sys.argv", ["/somewhere/notebook.py", "run"])
    assert command_given() == ""


def test_a_key_in_a_teachers_url_stands_in_no_command_and_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.settings import resolve
    from potstill.stages.job import command_given

    ref = "openai:https://bob:SECRET@host/v1?token=SECRET,http://SECRET@b/v1#m"
    arguments = ["run", "t.md", "--teacher", ref, f"--teacher={ref}", "--set", f"quality.teacher={ref}"]
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/potstill", *arguments])
    assert "host/v1" in command_given()
    settings = resolve({}, {"teacher": ref, "quality": {"judge": True, "teacher": ref}})
    assert settings.teacher == ref
    assert "SECRET" not in command_given() + json.dumps(settings.to_json())


def test_held_out_rows_are_never_passed_off_as_test_data(sample_run: Any, tmp_path: Path) -> None:
    html, markdown = render_report(read_run(sample_run.write_run(tmp_path / "run", kind="held-out")))
    assert "These scores are not from real test data." in Page(html).text
    assert "These scores are not from real test data" in markdown
    assert "rows of real test data" not in html


def test_few_test_rows_are_said_to_tell_little(sample_run: Any, tmp_path: Path, run: Path) -> None:
    few = sample_run.write_run(tmp_path / "run")
    scores = json.loads((few / "evaluate" / "scores.json").read_text())
    scores["test_set"]["rows"] = 3
    (few / "evaluate" / "scores.json").write_text(json.dumps(scores))
    for text in render_report(read_run(few)):
        assert "may be as low as 37 % (95 % confidence)" in text
    for text in render_report(read_run(run)):
        assert "too few to tell" not in text


def test_labels_without_a_description_are_a_sentence(sample_run: Any, tmp_path: Path, run: Path) -> None:
    from dataclasses import replace

    facts = read_run(run)
    assert any(label.description for label in facts.spec.labels)
    assert "Meaning, as the teacher was told" in render_report(facts)[0]
    bare = replace(facts.spec, labels=tuple(replace(label, description="") for label in facts.spec.labels))
    html, _ = render_report(replace(facts, spec=bare))
    assert "Meaning, as the teacher was told" not in html
    assert "told the labels' names alone" in Page(html).text


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    first, second = render_report(read_run(run)), render_report(read_run(run))
    assert first == second


def test_hostile_text_is_shown_and_does_nothing(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run", hostile=True)
    clean = Page(render_report(read_run(sample_run.write_run(tmp_path / "clean")))[0])
    html, _ = render_report(read_run(run))
    page = Page(html)
    assert page.faults == []
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in clean.tags}, "no tag came out of the data"
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert attributes == {name for _, attrs in clean.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on")]
    assert html.count("<style>") == html.count("</style>") == 1
    assert "<script>alert(1)</script>" in page.text, "it is shown as text"
    assert "{{ 7 * 7 }}" in html or "7 * 7" not in html
    assert "49" not in re.findall(r"\{\{.*?49", html)
    assert not [c for c in html if c in "\u202e\u2066\x1b\x00"]


def test_nothing_is_fetched_and_nothing_may_run(run: Path) -> None:
    page = Page(render_report(read_run(run))[0])
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "Policy" in (a.get("http-equiv") or ""))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    links = {a.get("href") or a.get("src") for _, a in page.tags} - {None}
    assert links
    assert all(str(link).startswith("#") for link in links)
    targets = {a["id"] for _, a in page.tags if "id" in a}
    assert {str(link)[1:] for link in links} <= targets


def test_plots_and_tables_are_readable_by_ear(run: Path) -> None:
    html = render_report(read_run(run))[0]
    drawings = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(drawings) >= 4
    assert all('role="img"' in drawing and "<title>" in drawing for drawing in drawings)
    page = Page(html)
    assert all(a.get("scope") for t, a in page.tags if t == "th")
    assert all(a.get("aria-label") for t, a in page.tags if a.get("role") == "region")


def test_a_half_finished_run_has_a_report(sample_run: Any, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.json").write_text(json.dumps(sample_run.spec_for().to_json()))
    html, markdown = write_report(tmp_path)
    assert "This run has not been measured yet" in html.read_text()
    assert "This run has not been measured yet" in markdown.read_text()
    assert Page(html.read_text()).faults == []


def test_a_generation_run_has_a_report(sample_run: Any, tmp_path: Path) -> None:
    from potstill.rows import Row, Source, rows_to_dataset, write_rows
    from potstill.task import TaskSpec

    spec = TaskSpec("headlines", "Write a headline.", "generation", metric="rouge_l")
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.json").write_text(json.dumps(spec.to_json()))
    rows = [Row(f"text {i} " * 9, f"headline {i}", "generated", Source(teacher="fake")) for i in range(30)]
    write_rows(rows_to_dataset(rows, ()), tmp_path / "merge" / "train.parquet")
    system = {"name": "student", "exact_match": 0.0, "rouge_l": 0.41, "chrf": 0.38, "ci": {"rouge_l": [0.3, 0.5]}}
    scores = {"test_set": {"kind": "real", "rows": 9, "source": "x/y"}, "metric": "rouge_l", "systems": [system]}
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "scores.json").write_text(json.dumps(scores))
    page = Page(render_report(read_run(tmp_path))[0])
    assert page.faults == []
    assert "0.410 [0.300, 0.500]" in page.text
    assert "output" in page.text
    assert "Some of them, as they are" in page.text
    assert "headline 0" in page.text


def test_the_report_shows_rows_labels_and_differences(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run", rows=240)
    data = tmp_path / "run" / "measured" / "other-1234"
    data.mkdir(parents=True)
    student = {"name": "student", "rows": 9, "macro_f1": 0.777, "ci": {}}
    elsewhere = {"test_set": {"source": "/home/someone/next.csv", "rows": 9, "known": 4}, "metric": "macro_f1",
                 "systems": [student]}  # fmt: skip
    (data / "scores.json").write_text(json.dumps(elsewhere))
    html, markdown = render_report(read_run(run))
    page = Page(html)
    assert page.faults == []
    for words in ("Likeness to the nearest other text", "New words", "Scores of each label", "paired bootstrap",
                  "The mistakes that it was surest of", "local:next.csv", "0.777", "What the student saves",
                  ):  # fmt: skip
        assert words in page.text or words in str(page.tags), words
    assert "more than luck" in markdown
    scores = json.loads((run / "evaluate" / "scores.json").read_text())["systems"][0]
    counts = scores["confusion"]
    recall = counts[1][1] / sum(counts[1])
    assert f"| bug | {sum(counts[1])} |" in markdown
    assert f"| {recall:.3f} |" in next(line for line in markdown.splitlines() if line.startswith("| bug | "))
    train = {row["input"] for row in read_rows(run / "soft" / "train.parquet")}
    assert sum(text in page.text for text in train) >= 9, "some rows of each label and origin"


def test_likeness_and_new_words_are_what_a_plain_count_gives() -> None:
    from potstill.report.rows import variety

    texts = ["a b c d", "a b c e", "x y z w q", "m n o p"]
    rows = [{"input": text, "output": "", "origin": "generated"} for text in texts]
    found = variety(rows)
    assert found.nearest["generated"] == pytest.approx([0.75, 0.75, 0.0, 0.0])
    assert found.pairs == [(pytest.approx(0.75), "a b c d", "a b c e")]
    assert found.growth["generated"] == [(0, 0), (1, 4), (2, 5), (3, 10), (4, 14)]
    assert variety(rows[:2]).sample == 0


def test_a_cut_student_is_said_to_need_healing(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run")
    assert "cut student" not in "".join(render_report(read_run(run)))
    report = run / "train" / "report.json"
    figures = {"cross_entropy": 13.34, "uniform": 10.8}
    report.write_text(json.dumps(json.loads(report.read_text()) | {"start": figures}))
    for text in render_report(read_run(run)):
        assert "Loss of the cut student before training" in text
        assert "13.34 nats a token" in text
        assert "it has to heal" in text


def test_many_labels_are_drawn_not_tabled(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run")
    place = run / "evaluate" / "scores.json"
    scores = json.loads(place.read_text())
    names = [f"label <{i}>" for i in range(77)]
    counts = [[9 if i == j else int(j == i + 1) * 4 for j in range(77)] + [0] for i in range(77)]
    scores["systems"][0] |= {"labels": names, "confusion": counts}
    place.write_text(json.dumps(scores))
    html = render_report(read_run(run))[0]
    assert html.count('class="cell"') == 77 + 76
    assert "label &lt;3&gt; → label &lt;4&gt;: 4" in html
    assert 'class="matrix"' not in html


@pytest.mark.parametrize(
    "name", ["task/task.json", "evaluate/scores.json", "merge/dropped.jsonl", "soft/train.parquet"]
)
def test_a_damaged_file_is_named_with_the_mend(sample_run: Any, tmp_path: Path, name: str) -> None:
    run = sample_run.write_run(tmp_path / "run")
    (run / name).write_bytes(b'{"half": ')
    with pytest.raises(DataError, match=f"{Path(name).name}.*run again"):
        write_report(run)


def test_no_run_is_told_apart_from_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run at"):
        write_report(tmp_path)


def test_paths_of_this_machine_are_hidden_on_demand(run: Path) -> None:
    facts = read_run(run)
    assert "/home/someone" in render_report(facts)[0]
    for text in render_report(facts, public=True):
        assert "/home/someone" not in text
    text = "run /a/b/task.md ~/x/y.csv vllm:/models/x and/or http://example.org/a/b http://gpu:8000/v1"
    assert hide_paths(text) == "run task.md y.csv vllm:x and/or http://example.org/a/b local"


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_shown_text_holds_no_control_or_direction_characters(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown(text))


NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


def test_joiners_of_words_and_emoji_are_shown() -> None:
    assert shown("می\u200cخواهم 👩\u200d💻") == "می\u200cخواهم 👩\u200d💻"
    assert shown("a\u202eb") == "a�b"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30), st.text(max_size=20))
def test_any_curve_is_drawn_inside_its_frame(points: list[tuple[float, float]], name: str) -> None:
    drawn = str(report_plots.lines({name: points, "b": points[:1]}, title=name, x_title=name, y_title=name))
    marks = re.findall(r'c[xy]="([-\d.]+)"', drawn)
    assert all(-1 <= float(mark) <= report_plots.WIDTH + 1 for mark in marks)
    assert drawn.count("<svg") == 1
    assert "nan" not in drawn


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200))
def test_any_lengths_are_drawn(values: list[int]) -> None:
    drawn = str(report_plots.histogram({"input": values}, title="t", x_title="words"))
    assert drawn.count("<path") >= 2
    assert report_plots.histogram({"input": []}, title="t", x_title="words") == ""


# What a picture of a page shows: its size, the ground, whether anything stands at the right edge, how many pixels of
# each 600 differ from the ground, and how many pixels of a plot's box have each colour asked for.
_LOOK = """async ([shot, plots]) => {
  const image = new Image();
  image.src = 'data:image/png;base64,' + shot;
  await image.decode();
  const canvas = document.createElement('canvas');
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const count = (x, y, w, h, fits) => {
    const data = context.getImageData(x, y, w, h).data;
    let found = 0;
    for (let i = 0; i < data.length; i += 4) found += fits(data[i], data[i + 1], data[i + 2]) ? 1 : 0;
    return found;
  };
  const ground = [...context.getImageData(2, 2, 1, 1).data].slice(0, 3);
  const near = (c) => (r, g, b) => Math.abs(r - c[0]) + Math.abs(g - c[1]) + Math.abs(b - c[2]) <= 12;
  const off = (r, g, b) => !near(ground)(r, g, b);
  const bands = [];
  for (let y = 0; y + 600 <= image.height; y += 600) bands.push(count(0, y, image.width, 600, off));
  return {
    size: [image.width, image.height], ground, bands,
    edge: count(image.width - 6, 0, 6, image.height, off),
    plots: plots.map(({box, colours}) => colours.map((c) => count(...box, near(c)))),
  };
}"""
# Where each plot of a page lies, and the colours of its series.
_PLOTS = """[...document.querySelectorAll('svg.plot')].map((plot) => {
  const at = plot.getBoundingClientRect();
  const colours = [...plot.querySelectorAll('.line, .mark')].map((mark) => getComputedStyle(mark).color);
  return {
    box: [at.x + scrollX, at.y + scrollY, at.width, at.height].map(Math.round),
    colours: [...new Set(colours)].map((c) => c.match(/\\d+/g).slice(0, 3).map(Number)),
  };
})"""
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def hostile_page(sample_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = sample_run.write_run(tmp_path_factory.mktemp("hostile") / "run", hostile=True)
    return write_report(run)[0]


def _look(browser: Any, page: Any) -> dict[str, Any]:
    """The whole page as a picture, from top to bottom, and what is seen on it."""
    shot = base64.b64encode(page.screenshot(full_page=True)).decode()
    desk = browser.new_page()
    try:
        return dict(desk.evaluate(_LOOK, [shot, page.evaluate(_PLOTS)]))
    finally:
        desk.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_a_real_browser_shows_the_whole_page(chromium: Any, hostile_page: Path, theme: str, width: int) -> None:
    """Hostile rows included: nothing is blank, the ground is the theme's, plots are drawn, nothing scrolls sideways."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.goto(hostile_page.as_uri())
    seen = _look(chromium, page)
    assert seen["size"] == [width, page.evaluate("document.documentElement.scrollHeight")]
    assert seen["size"][1] > 5000, "the whole page, not its first screen"
    assert (sum(seen["ground"]) > 600) == (theme == "light"), seen["ground"]
    assert min(seen["bands"]) > 2000, "a part of the page is blank"
    assert seen["edge"] == 0, "something reaches over the right edge"
    assert page.evaluate(_OVERFLOW) == 0
    assert len(seen["plots"]) == 6
    for number, series in enumerate(seen["plots"]):
        assert series, f"plot {number} has no series"
        assert min(series) > 20, f"plot {number} has a series that is not drawn: {series}"
    page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")
    assert page.evaluate(_OVERFLOW) == 0, "what is folded is too wide"
    page.close()


def test_the_look_finds_what_is_wrong_with_a_page(chromium: Any, hostile_page: Path) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    page.goto(hostile_page.as_uri())
    page.evaluate("document.querySelectorAll('svg.plot')[2].querySelectorAll('.line, .mark').forEach("
                  "(mark) => { mark.style.opacity = 0; })")  # fmt: skip
    page.evaluate("document.querySelector('footer').style.paddingTop = '1500px'")
    page.evaluate("document.querySelector('h1').style.cssText = 'width: 100vw; background: red'")
    seen = _look(chromium, page)
    assert [number for number, series in enumerate(seen["plots"]) if min(series) <= 20] == [2]
    assert min(seen["bands"]) == 0
    assert page.evaluate(_OVERFLOW) > 0
    page.close()


def test_the_report_says_how_rows_were_made(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run")
    reports = {
        "datagen": {"texts": 130, "kept": 100, "yield_per_1k_tokens": 12.3456, "label_fill": 0.98, "short": {"bug": 2},
                    "self_bleu": 0.1811, "dropped": {"too_short": 18, "no_reply": 3}, "cut_to_form": 33,
                    "form": {"asked": "at most 1 sentence", "judged": 111, "fitting": 105, "given_up": False}},
        "quality": {"checked": 100, "below_least": 7, "mean_agreement": {"verify": 0.7123},
                    "input_gain": {"judged": 99, "middle": 2.1, "dropped": 13}},
        "weak": {"texts": 64, "labelled": 41, "functions": [
            {"name": "<b>rule</b>", "coverage": 0.5, "contradicted": 0.25, "group": 0},
            {"name": "other", "coverage": 0.25, "contradicted": 0.0, "group": 0},
        ]},
        "train": {"self_training": {"texts": 23, "rows": 12, "stopped": "settled", "rounds": [
            {"round": 0, "adopted": True}, {"round": 1, "adopted": True}, {"round": 2, "adopted": False}]}},
    }  # fmt: skip
    for stage, report in reports.items():
        (run / stage).mkdir(exist_ok=True)
        (run / stage / "report.json").write_text(json.dumps(report))
    html, markdown = render_report(read_run(run))
    for text in (Page(html).text, markdown):
        for figure in ("100 of 130", "12 were not needed, the others are", "12.35",
                       "98.0 %", "short: bug", "0.181", "7 of 100", "verify 0.71", "41 of 64",
                       "32 of 64", "another contradicts 25 % of its votes; one vote with rule 2",
                       "105 of 111", "asked for: at most 1 sentence; 33 were cut to it", "13 of 99",
                       "1 of 2", "12 rows that the student labelled; ended: settled"):  # fmt: skip
            assert figure in text, figure
    assert not Page(html).faults


def test_the_report_says_what_labelled_the_texts(sample_run: Any, tmp_path: Path) -> None:
    from potstill.stages.text_labels import TextLabels

    run = sample_run.write_run(tmp_path / "run")
    spaces = re.findall(r"['\"](\w+)['\"]", str(TextLabels.__annotations__["space"]))
    assert "teacher" in spaces
    for space in spaces:
        told = {"texts": 1600, "rows": 1200, "space": space, "trust": 0.7, "rounds": [], "stopped": "labelled once"}
        (run / "train").mkdir(exist_ok=True)
        (run / "train" / "report.json").write_text(json.dumps({"self_training": told}))
        html, markdown = render_report(read_run(run))
        for text in (Page(html).text, markdown):
            assert "1,200 of 1,600" in text
            assert "labelled by the teacher" in text or space != "teacher"
            assert "student labelled" not in text
    left_out = {**told, "rows": 0, "stopped": "not believed", "trust": 0.12}
    (run / "train" / "report.json").write_text(json.dumps({"self_training": left_out}))
    assert "left out: not believed (trust 0.12)" in render_report(read_run(run))[1]


def test_the_report_shows_the_figures_of_the_compression(sample_run: Any, tmp_path: Path) -> None:
    from potstill.compression import run_material
    from potstill.report.compression_page import step_rows
    from potstill.train.compress.options import CompressOptions
    from potstill.train.compress.zoo import compress_all

    run = sample_run.write_run(tmp_path / "run", kind="held-out")
    assert 'id="compression"' not in render_report(read_run(run))[0]
    material = run_material(run, choosing=True)
    options = CompressOptions(recipe="all", speed="none", formats=("packed",), max_mib=0.1)
    recipes = ("int8:channel", "nf4:group=16", "wanda:0.5 -> int8:channel", "layers:7")
    result = compress_all(run / "train" / "student", tmp_path / "zoo", material, options, recipes=recipes)
    (run / "compress").mkdir()
    (run / "compress" / "report.json").write_text(json.dumps({**result.report, "source": "train/student"}))
    html, markdown = render_report(read_run(run))
    page = Page(html)
    assert page.faults == []
    columns, rows = step_rows(result.report)
    assert {"MiB", "of it", "kept", "macro_f1", "agrees"} <= set(columns)
    assert [row[0] for row in rows] == ["original", *(entry["step"] for entry in result.report["steps"][1:])]
    assert len(rows) == 4
    section = Page(html[html.index('<h2 id="compression">') : html.index('<h2 id="cost">')])
    for row in (columns, *rows):
        assert " ".join(cell or "–" for cell in row) in section.text
        assert f"| {' | '.join(cell.replace('>', '&gt;') or '–' for cell in row)} |" in markdown
    assert [a["r"] for t, a in section.tags if t == "circle"] == ["4"] * 4
    best = result.report["recommended"]
    assert f"Recommended: {best['step']} , {best['why']}." in section.text
    assert f"Recommended: **{best['step'].replace('>', '&gt;')}**, {best['why']}." in markdown
    chosen = re.findall(
        r'<tr class="best"><th scope="row" class="text">(.*?)</th>', html[html.index('"compression"') :]
    )
    assert chosen == [best["step"].replace(">", "&gt;")]
    assert "layers:7" in section.text
    assert result.report["failed"][0]["why"] in section.text


def test_the_report_of_one_recipe_marks_what_was_written_and_of_none_says_why(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run")
    (run / "compress").mkdir()
    bad = "<script>alert(1)</script> /home/someone/teacher"
    steps = [{"step": "original", "kind": "original", "size_mib": 80.0, "score": 0.9, "latency_ms": {"p50": 4.0}},
             {"step": bad, "kind": "heal", "size_mib": 80.0, "score": 0.8, "score_ratio": 0.8889,
              "facts": {"steps": 100, "losses": [3.0, 2.5, 2.0]}},
             {"step": "files: onnx", "kind": "files", "size_mib": 20.0, "size_ratio": 0.25, "score": 0.8,
              "score_ratio": 0.8889, "latency_ms": {"p50": 1.0}, "latency_ratio": 0.25}]  # fmt: skip
    report = {"recipe": bad, "source": "train/student", "metric": "macro_f1", "test_rows": 10, "steps": steps}
    (run / "compress" / "report.json").write_text(json.dumps(report))
    html, markdown = render_report(read_run(run), public=True)
    assert Page(html).faults == []
    assert "/home/someone/teacher" not in html[html.index('id="compression"') :] + markdown
    assert "<script" not in html + markdown
    assert '<tr class="best"><th scope="row" class="text">files: onnx</th>' in html
    drawn = html[html.index("Loss of the steps that train") :]
    assert [f"{x}, {y}" in drawn for x, y in ((0, 3), (2, 2.5), (4, 2))] == [True] * 3
    assert "Use: files: onnx , what the recipe wrote." in Page(html).text
    assert "| files: onnx | 20.0 | 25% | 0.8000 | 88.9% | 1.0 | 25% |" in markdown
    report |= {"recipe": "all", "recommended": None, "why_none": "no recipe stays under 1 MiB"}
    (run / "compress" / "report.json").write_text(json.dumps(report))
    for text in render_report(read_run(run)):
        assert "Recommended: none; no recipe stays under 1 MiB." in text


def _pages(printed: bytes) -> int:
    """Pages of a PDF that Chromium wrote: it leaves the objects of pages uncompressed."""
    return len(re.findall(rb"/Type\s*/Page\b", printed))


def test_a_real_browser_runs_nothing_fetches_nothing_and_prints_what_is_folded(
    chromium: Any, hostile_page: Path
) -> None:
    seen: list[str] = []
    page = chromium.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.on("dialog", lambda dialog: (seen.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: seen.append(request.url))
    page.goto(hostile_page.as_uri())
    folded = page.locator("details blockquote").first
    assert not folded.is_visible()
    page.emulate_media(media="print", color_scheme="light")
    assert folded.is_visible(), "what is folded is printed"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    whole = _pages(page.pdf(format="A4"))
    page.evaluate("document.querySelectorAll('details > :not(summary)').forEach((folded) => folded.remove())")
    shut = _pages(page.pdf(format="A4"))
    page.evaluate("document.body.replaceChildren('nothing')")
    assert _pages(page.pdf(format="A4")) == 1
    assert 3 < shut < whole < 40, "what is folded takes pages of its own"
    page.close()
    assert seen == [hostile_page.as_uri()]
