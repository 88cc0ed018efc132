"""A recipe on tiny models, from the first step to the files."""

import contextlib
import io
import json
import shutil
import sys
import time
from dataclasses import replace

import mood
import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
)

from potstill.errors import MissingExtra, OptionError, TrainingError, UserError
from potstill.report.compression_page import markdown
from potstill.train.compress.files import load_model
from potstill.train.compress.measure import read_text
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.run import Material, compress_student
from potstill.train.compress.state import open_source
from potstill.train.compress.texts import calibration
from potstill.train.compress.zoo import compress_all, recommend
from potstill.train.student import load_student

QUICK = CompressOptions(formats=("packed",), speed="none")


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_int8_keeps_the_score_in_a_third_of_the_bytes_and_never_touches_the_source(student, material, tmp_path):
    before = files_of(student)
    result = compress_student(student, "int8:channel", tmp_path / "small", material, QUICK)
    original, step, files = result.report["steps"]
    assert original["score"] == 1.0
    assert step["score"] == 1.0
    assert step["agreement"] == 1.0
    assert files["size_ratio"] < 0.5
    assert files_of(student) == before
    assert [p.output for p in load_student(result.path).predict(["the film was great", "awful plot"])] == [
        "good",
        "bad",
    ]
    assert json.loads((result.path / "report.json").read_text())["recipe"] == "int8:scope=row"
    assert not (tmp_path / "small.steps").exists()


def test_without_a_row_to_measure_on_a_student_is_made_smaller_unmeasured(student, material, tmp_path):
    assert load_student(student).predict([]) == []
    nothing = replace(material, test=material.test.select([]))
    result = compress_student(student, "int8:channel", tmp_path / "small", nothing, QUICK)
    assert result.report["test_rows"] == 0
    assert not any("score" in entry for entry in result.report["steps"])
    assert result.report["steps"][-1]["size_ratio"] < 0.5
    entries = [{"step": "a", "size_mib": 3.0}, {"step": "b", "size_mib": 2.0}]
    assert recommend(entries, {"size_mib": 9.0}, QUICK) == (entries[1], "the smallest; there was nothing to score on")


CHAIN = "layers:1 -> wanda:0.5 -> heal:steps=8 -> int8:channel"


def test_a_chain_gives_what_each_step_was_asked_for(student, material, tmp_path):
    result = compress_student(student, CHAIN, tmp_path / "small", material, QUICK)
    original, cut, sparse, healed, rounded, _ = result.report["steps"]
    assert (original["layers"], cut["layers"]) == (2, 1)
    assert cut["parameters"] < original["parameters"]
    assert sparse["zeros"] == pytest.approx(0.5, abs=0.01)
    assert healed["zeros"] == pytest.approx(0.5, abs=0.01)
    assert healed["facts"]["loss_last"] <= healed["facts"]["loss_first"] + 0.05
    assert rounded["zeros"] >= 0.49
    assert rounded["bits_per_parameter"] < sparse["bits_per_parameter"] < cut["bits_per_parameter"]
    assert "zeros in tensors of the old size make no engine faster" in result.report["notes"][0]
    assert load_student(result.path).model.config.num_hidden_layers == 1


@pytest.mark.parametrize("recipe", ["magnitude:0.5", "magnitude:0.5 -> heal:steps=2 -> int4:g16"])
def test_the_size_of_a_step_is_that_of_the_files_that_it_could_deliver(recipe, student, material, tmp_path):
    *_, step, files = compress_student(student, recipe, tmp_path / "small", material, QUICK).report["steps"]
    assert step["size_mib"] == files["size_mib"]


def test_the_report_says_what_was_cut_and_what_was_only_masked(student, material, tmp_path):
    result = compress_student(student, "heads:0.5", tmp_path / "small", material, QUICK)
    (note,) = (note for note in result.report["notes"] if note.startswith("heads:0.5"))
    assert "zero-masked (BERT's configuration" in note
    assert "no tensor is smaller" in note
    assert note in markdown(result.report)


def test_a_killed_run_goes_on_after_the_last_finished_step(student, material, tmp_path, monkeypatch):
    from potstill.train.compress import run as module

    done = []
    real = module.run_step

    def step(state, step, *more):
        if step.method == "int8" and not done.count("killed"):
            done.append("killed")
            raise mood.Killed
        done.append(step.method)
        return real(state, step, *more)

    monkeypatch.setattr(module, "run_step", step)
    with pytest.raises(mood.Killed):
        compress_student(student, CHAIN, tmp_path / "small", material, QUICK)
    assert not (tmp_path / "small").exists()
    result = compress_student(student, CHAIN, tmp_path / "small", material, QUICK)
    assert done == ["layers", "wanda", "heal", "killed", "int8"]
    assert [entry["kind"] for entry in result.report["steps"]] == [
        "original", "structure", "sparsity", "heal", "quantize", "files",
    ]  # fmt: skip
    whole = compress_student(student, CHAIN, tmp_path / "whole", material, QUICK)
    assert files_of(whole.path)["packed.safetensors"] == files_of(result.path)["packed.safetensors"]


@pytest.fixture
def half(tiny_llama, tmp_path):
    """The tiny decoder in bfloat16, and texts for it."""
    folder = tmp_path / "half"
    LlamaForCausalLM.from_pretrained(tiny_llama).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    texts = tuple(f"the cat number {i} sat on the mat and looked at {7 * i} birds " * 2 for i in range(40))
    return folder, Material(texts, held_out=texts[:5])


def test_a_killed_run_of_a_student_in_half_precision_goes_on_with_the_same_weights(half, tmp_path):
    source, texts = half
    recipe, options = "layers:1 -> heal:steps=5,learning_rate=1e-3 -> int8:channel", replace(QUICK, window=64)
    whole = compress_student(source, recipe, tmp_path / "whole", texts, options)

    def kill(event):
        if event.message.startswith("int8"):
            raise mood.Killed

    with pytest.raises(mood.Killed):
        compress_student(source, recipe, tmp_path / "small", texts, options, listener=kill)
    result = compress_student(source, recipe, tmp_path / "small", texts, options)
    assert files_of(whole.path)["packed.safetensors"] == files_of(result.path)["packed.safetensors"]
    for name in ("size_mib", "perplexity"):
        assert [e.get(name) for e in result.report["steps"]] == [e.get(name) for e in whole.report["steps"]]


def test_packed_files_in_half_precision_are_measured_as_they_load(half, tmp_path):
    source, texts = half
    options = replace(QUICK, window=64, text_tokens=500)
    result = compress_student(source, "int8:channel,activations=int8", tmp_path / "small", texts, options)
    model, _ = load_model(result.path)
    data = calibration(open_source(source), texts.held_out, tokens=500, length=64)
    assert result.report["steps"][-1]["perplexity"] == round(read_text(model, data)[0], 5)
    assert result.report["steps"][-1]["perplexity"] != result.report["steps"][-2]["perplexity"]


def test_another_recipe_does_not_take_over_the_steps_of_a_killed_one(student, material, tmp_path, monkeypatch):
    from potstill.train.compress import run as module

    monkeypatch.setattr(module, "write_files", lambda *_: (_ for _ in ()).throw(mood.Killed))
    with pytest.raises(mood.Killed):
        compress_student(student, "int8:tensor", tmp_path / "small", material, QUICK)
    monkeypatch.undo()
    result = compress_student(student, "int8:channel", tmp_path / "small", material, QUICK)
    assert result.report["steps"][1]["step"] == "int8:scope=row"
    assert result.report["steps"][1]["facts"]["scheme"] == "int8:row"


@pytest.mark.parametrize(
    "recipe", ["int8:channel -> heal:steps=2", "qat:binary,steps=2", "qat:int4,embeddings=keep,steps=2"]
)
def test_healing_after_rounding_lets_all_rounded_embeddings_rest(recipe, student, material, tmp_path):
    # 64 positions of 32 values are rounded, beside the words, whose few are not.
    before = load_student(student).model.bert.embeddings.position_embeddings.weight.detach().clone()
    result = compress_student(student, recipe, tmp_path / "small", material, QUICK)
    healed = load_student(result.path).model
    positions = healed.bert.embeddings.position_embeddings.weight.detach()
    step = 0.0 if "keep" in recipe else float(before.abs().max()) / 127
    assert float((positions - before).abs().max()) <= step
    assert len(result.report["steps"][2]["facts"]["losses"]) == 2


@pytest.mark.parametrize(
    ("method", "message"),
    [("wanda:0.5", "0.00% of the layers' weights are 0, asked for 50.00%"), ("int8", "is not rounded"),
     ("layers:1", "still has")],
)  # fmt: skip
def test_a_method_that_silently_does_nothing_ends_the_work(method, message, student, material, tmp_path, monkeypatch):
    from potstill.train.compress import run as module

    monkeypatch.setattr(module, "run_step", lambda *_: {})
    with pytest.raises(TrainingError, match=message):
        compress_student(student, method, tmp_path / "small", material, QUICK)
    assert not (tmp_path / "small").exists()


def test_a_pruned_weight_that_comes_back_ends_the_work(student, material, tmp_path, monkeypatch):
    from potstill.train.compress import steps as module

    real = module._heal

    def heal(state, *more):
        facts = real(state, *more)
        name, mask = next(iter(state.kept.items()))
        state.model.get_parameter(name).data[~mask] = 0.1
        return facts

    monkeypatch.setattr(module, "_heal", heal)
    with pytest.raises(TrainingError, match=r"pruned weights of .* came back.*the steps before it are kept"):
        compress_student(student, "wanda:0.5 -> heal:steps=2", tmp_path / "small", material, QUICK)
    kept = [path.name for path in (tmp_path / "small.steps").iterdir() if path.is_dir()]
    assert [name.rpartition("-")[0] for name in kept] == ["1-wanda"]


def test_what_cannot_be_done_is_said_before_any_work(student, material, tmp_path, monkeypatch):
    small = compress_student(student, "int8", tmp_path / "small", material, QUICK).path
    with pytest.raises(OptionError, match=r"compressed already .*compression.json"):
        compress_student(small, "int8", tmp_path / "again", material, QUICK)
    with pytest.raises(OptionError, match="tokens of calibration text are too few"):
        compress_student(student, "wanda:0.5", tmp_path / "again", Material(("good film",), ("good",)), QUICK)
    with pytest.raises(OptionError, match="vllm is for decoders"):
        compress_student(student, "int8", tmp_path / "again", material, CompressOptions(formats=("vllm",)))
    with pytest.raises(OptionError, match="onnxruntime has no operator for nf4"):
        compress_student(student, "nf4", tmp_path / "again", material, CompressOptions(formats=("onnx",)))
    with pytest.raises(OptionError, match="no format 'onxx'; did you mean 'onnx'"):
        compress_student(student, "int8", tmp_path / "again", material, CompressOptions(formats=("onxx",)))
    with pytest.raises(OptionError, match="is the student itself, which is never changed"):
        compress_student(student, "int8", student, material, QUICK)
    for library, extra in (("torchao", "torchao"), ("bitsandbytes", "qlora"), ("onnxscript", "compress")):
        monkeypatch.setitem(sys.modules, library, None)
        form = {"onnxscript": "onnx"}.get(library, library)
        with pytest.raises(MissingExtra, match=rf"the format {form} needs {library}.*\[{extra}\]"):
            compress_student(student, "int8", tmp_path / "again", material, CompressOptions(formats=(form,)))
    assert not (tmp_path / "again.steps").exists()


@pytest.mark.parametrize("recipe", ["magnitude:0.5", "int8", "gptq:int4"])
def test_a_foreign_build_of_model_is_refused_before_any_work(recipe, tiny_llama, tmp_path):
    folder = tmp_path / "neox"
    shutil.copytree(tiny_llama, folder)
    config = GPTNeoXConfig(
        vocab_size=258, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    texts = Material(("some words of running text ",) * 200, held_out=("others",) * 9)
    if recipe == "int8":  # rounding asks for linear layers alone
        assert compress_student(folder, recipe, tmp_path / "small", texts, QUICK).path.exists()
        return
    with pytest.raises(UserError, match=r"GPTNeoXForCausalLM cannot be pruned; supported: .*Llama"):
        compress_student(folder, recipe, tmp_path / "small", texts, QUICK)
    assert not (tmp_path / "small.steps").exists()


def test_a_cut_that_the_configuration_cannot_say_ends_the_work(tiny_llama, tmp_path):
    folder = tmp_path / "gemma"
    shutil.copytree(tiny_llama, folder)
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=258, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=64, max_position_embeddings=512, initializer_range=0.2,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(folder)
    texts = Material(("some words of running text ",) * 200, held_out=("others ",) * 99)
    with pytest.raises(TrainingError, match=r"hidden:0.25 gives another student once its files .* Gemma2ForCausalLM"):
        compress_student(folder, "hidden:0.25", tmp_path / "small", texts, QUICK)
    assert not (tmp_path / "small").exists()
    assert compress_student(folder, "layers:1", tmp_path / "small", texts, QUICK).path.exists()


def test_the_zoo_is_sorted_and_recommends_under_a_limit(student, material, tmp_path):
    recipes = ("int8:channel", "binary", "int4:g16", "wanda:0.99 -> int8")
    result = compress_all(student, tmp_path / "zoo", material, QUICK, recipes=recipes)
    entries = result.report["steps"]
    scores = [entry["score"] for entry in entries[1:]]
    # Rows of 32 weights cannot lose 99 % of them: a line with its reason, not the end of the others.
    assert [item["step"] for item in result.report["failed"]] == ["wanda:0.99 -> int8"]
    assert "asked for 99.00%" in result.report["failed"][0]["why"] or "0.99" in result.report["failed"][0]["why"]
    assert len(entries) == 1 + 3
    assert scores == sorted(scores, reverse=True)
    chosen = result.report["recommended"]
    assert chosen["score"] >= 0.99
    assert chosen["size_mib"] == min(entry["size_mib"] for entry in entries[1:] if entry["score"] >= 0.99)
    assert load_student(result.path).predict(["the film was great"])[0].output == "good"
    limited = CompressOptions(formats=("packed",), speed="none", max_mib=0.001)
    none = compress_all(student, tmp_path / "zoo", material, limited, recipes=recipes).report
    assert none["recommended"] is None
    assert "no recipe stays under 0.001 MiB; the smallest takes" in none["why_none"]
    assert not (tmp_path / "zoo" / "best").exists(), "what was recommended before is not left as if it were so now"


def test_a_student_that_was_trained_again_is_compressed_again(student, material, tmp_path):
    import shutil

    from safetensors.torch import save_file

    source = tmp_path / "own"
    shutil.copytree(student, source)
    first = compress_all(source, tmp_path / "zoo", material, QUICK, recipes=("int8:channel",))
    before = load_student(first.path).predict(["the film was great"])[0].output
    again = compress_all(source, tmp_path / "zoo", material, QUICK, recipes=("int8:channel",))
    assert again.report == first.report
    tensors = mood.weights(source)
    head = next(name for name in tensors if name.startswith("classifier") and name.endswith("weight"))
    tensors = {
        name: (-value if name.startswith("classifier") else value).contiguous() for name, value in tensors.items()
    }
    assert head
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    other = compress_all(source, tmp_path / "zoo", material, QUICK, recipes=("int8:channel",))
    assert load_student(other.path).predict(["the film was great"])[0].output != before


def test_steps_that_are_kept_are_examined_again_on_other_rows(student, material, tmp_path):
    keeping = replace(QUICK, keep_steps=True)
    first = compress_student(student, "int8:channel", tmp_path / "small", material, keeping)
    turned = mood.reviews(60, 2).map(
        lambda row: {"output": "bad" if row["output"] == "good" else "good", "label": 1 - row["label"]}
    )
    other = replace(material, test=turned)
    second = compress_student(student, "int8:channel", tmp_path / "small", other, keeping)
    assert [entry["score"] for entry in first.report["steps"]] == [1.0] * 3
    assert [entry["score"] for entry in second.report["steps"]] == [0.0] * 3
    assert not any("examined" in entry for entry in second.report["steps"])
    third = compress_student(
        student, "int8:channel", tmp_path / "small", replace(material, texts=material.texts[:-1]), keeping
    )
    assert [entry["score"] for entry in third.report["steps"]] == [1.0] * 3


@pytest.mark.parametrize(
    "recipe",
    ["heads:0.5 -> layers:1,by=top -> heal:steps=2", "heads:0.5 -> hidden:0.5", "heads:0.5 -> wanda:0.25",
     "heads:0.5 -> neurons:0.25 -> wanda:0.5 -> heal:steps=2 -> int8:channel",
     "heads:0.5 -> cofi:0.5,uniform=no,steps=4,learning_rate=1e-2 -> heal:steps=2",
     "heads:0.5 -> magnitude:0.15,cubic,steps=4,learning_rate=1e-2 -> heal:steps=2"],
)  # fmt: skip
def test_what_was_masked_stays_so_through_later_cuts(recipe, student, material, tmp_path):
    result = compress_student(student, recipe, tmp_path / "small", material, QUICK)
    masked, *later = (entry["zeros"] for entry in result.report["steps"][1:])
    assert masked == 0.25
    # A cut of the width may take the masked head itself, and one of neurons leaves it a larger share.
    assert "hidden" in recipe or all(zeros >= 0.25 for zeros in later)


def test_an_onnx_student_answers_as_the_packed_one_and_needs_no_torch(student, material, tmp_path):
    pytest.importorskip("onnxruntime")
    import subprocess
    import sys

    options = CompressOptions(formats=("onnx", "packed"), speed="ends")
    result = compress_student(student, "int8:channel", tmp_path / "small", material, options)
    texts = list(mood.reviews(40, 9)["input"])
    small, packed = load_student(result.path), load_student(result.more["packed"])
    ours, theirs = small.predict(texts), packed.predict(texts)
    assert [p.output for p in ours] == [p.output for p in theirs]
    assert max(abs(a.probs[0] - b.probs[0]) for a, b in zip(ours, theirs, strict=True)) < 0.05
    files = next(entry for entry in result.report["steps"] if entry["step"] == "files: onnx")
    assert files["agreement"] == 1.0
    # A quarter on an idle machine: torch is not loaded at all.
    assert files["peak_rss_mib"] < 0.6 * result.report["steps"][0]["peak_rss_mib"]
    assert files["latency_ms"]["p50"] > 0
    assert set(files["tokens_per_s"]) == {"1", "16"}
    code = (
        "import sys; from potstill.train.student import load_student; "
        f"print(load_student({str(result.path)!r})('awful plot'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["bad", "False"]


@pytest.mark.parametrize("recipe", ["int8:tensor", "int4:g16,embeddings=int4"])
def test_onnx_takes_other_roundings(recipe, student, material, tmp_path):
    pytest.importorskip("onnxruntime")
    options = CompressOptions(formats=("onnx",), speed="none")
    result = compress_student(student, recipe, tmp_path / "small", material, options)
    assert result.report["steps"][-1]["agreement"] >= 0.95


def test_speed_is_that_of_the_processor_and_of_a_gpu_beside_it(student, tmp_path, monkeypatch):
    from potstill.report.compression_page import markdown
    from potstill.train.compress import probe

    if not torch.cuda.is_available():
        assert probe.gpu_speed(student, 1, ["a"]) is None
    asked = []

    def answerer(folder, threads, device):
        asked.append(device)
        return (lambda texts: time.sleep(0.001)), (lambda texts: 3 * len(texts))

    monkeypatch.setattr(probe, "_answerer", answerer)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"texts": ["a", "b"], "threads": 1}))
    monkeypatch.setattr(sys, "argv", ["probe", str(student), str(job)])
    monkeypatch.setattr(sys, "stdin", io.StringIO("one 0\none 1\nmany\nend\n"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        probe.main()
    ready, *ones, batches, last = (json.loads(line[len(probe.MARK) :]) for line in printed.getvalue().splitlines())
    assert ready == {}
    assert asked == ["cpu", "cuda"]
    found = {**last, **probe.figures(ones)}
    found["tokens_per_s"]["16"] = batches["tokens_per_s"]
    assert found["gpu"]["name"] == "H100"
    for place in (found, found["gpu"]):
        assert 1 <= place["latency_ms"]["p50"] < 100
        assert 0 < place["tokens_per_s"]["1"] < 3000 < 10 * place["tokens_per_s"]["16"]
    steps = [{"step": "original", "kind": "original", "size_mib": 1.0, **found}, {"step": "int8", "kind": "quantize"}]
    text = markdown({"recipe": "int8", "source": "x", "steps": steps})
    assert "| GPU ms | GPU tokens/s (16) |" in text
    assert "on 1 thread, each in turn with the original's, and on one H100." in text

    def refuses(folder, threads, device):
        raise ValueError(f"`.to` is not supported for {device}")

    monkeypatch.setattr(probe, "_answerer", refuses)
    assert probe.gpu_speed(student, 1, ["a"]) == {"failed": "`.to` is not supported for cuda"}
    assert "GPU" not in markdown({"recipe": "int8", "source": "x", "steps": [{"step": "a", "gpu": {"failed": "x"}}]})


def test_latencies_are_of_texts_asked_in_turn(monkeypatch, tmp_path):
    """The machine gets ten times slower while both are asked: their ratio does not know it."""
    from potstill.train.compress import measure

    asked = []

    class Asked:
        def __init__(self, folder, job, threads):
            self.name, self.each = folder.name, {"whole": 20.0, "small": 5.0}[folder.name]
            self.texts = json.loads(job.read_text())["texts"]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, command):
            asked.append((self.name, command))
            if command == "many":
                return {"tokens_per_s": 7.0}
            if command == "end":
                return {"load_s": 0.1, "threads": 1, "peak_rss_mib": 100.0}
            index = int(command.split()[1])
            ms = self.each * (10 if index >= 10 else 1)
            return {"ms": ms, "first_ms": ms / 5, "tokens": 4}

    monkeypatch.setattr(measure, "_Asked", Asked)
    texts = [f"text {i}" for i in range(40)]
    whole, (small, again) = measure.timed(tmp_path / "whole", [tmp_path / "small", tmp_path / "small"], texts, rows=20)
    assert again == small
    assert (small["latency_ratio"], small["first_token_ratio"]) == (0.25, 0.25)
    assert "latency_ratio" not in whole
    assert whole["latency_ms"] == {"p50": 200.0, "p95": 200.0, "inputs": 20}
    assert small["first_token_ms"]["p95"] == 10.0
    assert small["tokens_per_s"]["16"] == 7.0
    assert [name for name, _ in asked[:6]] == ["whole", "small", "small", "whole", "whole", "small"]
    report = {"recipe": "x", "source": "y", "steps": [{"step": "original", **whole}, {"step": "small", **small}]}
    text = markdown(report)
    assert "| step | ms | ms p95 | of ms | first ms | first ms p95 | of first ms |" in text
    assert "| small | 50.0 | 50.0 | 25% | 10.0 | 10.0 | 25% |" in text


def test_a_decoder_says_when_its_first_token_was_there(half, tmp_path):
    source, texts = half
    result = compress_student(
        source, "int8:channel", tmp_path / "small", texts, replace(QUICK, speed="ends", window=64)
    )
    original, _, files = result.report["steps"]
    for entry in (original, files, files["original"]):
        assert 0 < entry["first_token_ms"]["p50"] < entry["latency_ms"]["p50"]
        assert entry["first_token_ms"]["inputs"] == entry["latency_ms"]["inputs"] >= 3
        assert set(entry["tokens_per_s"]) == {"1", "16"}
    assert min(original["peak_rss_mib"], files["peak_rss_mib"]) > 50
    assert original["latency_ms"] == files["original"]["latency_ms"]
    assert files["latency_ratio"] > 0
    assert files["first_token_ratio"] > 0


def test_a_slow_student_has_its_time_for_each_answer_and_a_silent_one_is_ended(monkeypatch, tmp_path):
    from potstill.train.compress import measure

    slow = (
        "import sys, time\nprint('probe {}', flush=True)\n"
        "for line in sys.stdin:\n    time.sleep(0.6 if 'one' in line else 60)\n    print('probe {}', flush=True)"
    )
    real = measure.subprocess.Popen
    monkeypatch.setattr(
        measure.subprocess, "Popen", lambda _, **more: real([sys.executable, "-I", "-S", "-c", slow], **more)
    )
    monkeypatch.setattr(measure, "PROBE_TIMEOUT_S", 2)
    with measure._Asked(tmp_path / "mine", tmp_path / "job", 1) as student:
        for index in range(5):
            assert student.ask(f"one {index}") == {}
        with pytest.raises(TrainingError, match=r"mine does not answer \(nothing came for 2 s"):
            student.ask("many")


def test_a_student_that_does_not_answer_is_named(student, tmp_path):
    from potstill.train.compress.measure import timed

    broken = tmp_path / "broken"
    shutil.copytree(student, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"the student at .*broken does not answer \(.*; its files stay for a look"):
        timed(student, [broken], ["the film was great"])


def test_files_hold_no_place_of_this_machine(student, material, tmp_path):
    result = compress_student(student, "int8", tmp_path / "small", material, QUICK)
    # The card says what the training started from, which here is a folder of the test.
    texts = [(result.path / name).read_text() for name in ("report.json", "compression.json", "config.json")]
    assert not any(str(tmp_path.parent) in text or str(student) in text for text in texts)
    assert json.loads((result.path / "report.json").read_text())["source"] == "mood"
