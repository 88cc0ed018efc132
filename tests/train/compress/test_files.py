"""Files of every format, read back by the libraries that they are for."""

import dataclasses
import json
import shutil
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from potstill.errors import MissingExtra, OptionError
from potstill.train.card import StudentCard
from potstill.train.compress.files import check_formats, load_model, write_files
from potstill.train.compress.state import compressed_as, load_state, open_source, save_state
from potstill.train.quantize.activations import install
from potstill.train.quantize.schemes import Scheme, quantize_model, targets
from potstill.train.student import publish

INT8 = Scheme("absmax", 8)
INT4 = Scheme("absmax", 4, scope="group", group=32)


@pytest.fixture
def llama(tiny_llama):
    return open_source(tiny_llama)


@pytest.fixture
def bert(tiny_bert, tmp_path):
    """A classifier with a card, not trained."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    card = StudentCard("mood", "classification", labels=("a", "b", "c"), max_length=32)
    publish(model, AutoTokenizer.from_pretrained(tiny_bert), card, tmp_path / "bert")
    return open_source(tmp_path / "bert")


@pytest.fixture
def wide_llama(tiny_llama, tmp_path):
    """Rows of whole blocks of 64, without which bitsandbytes fails on processors that multiply bfloat16."""
    config = AutoConfig.from_pretrained(tiny_llama)
    config.hidden_size, config.intermediate_size, config.head_dim = 128, 128, 64
    shutil.copytree(tiny_llama, tmp_path / "wide")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    return open_source(tmp_path / "wide")


def logits_of(model):
    ids = torch.arange(40, 80)[None] % model.config.vocab_size
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()


SCHEMES = [
    *(Scheme("absmax", bits, scope=scope, symmetric=symmetric) for bits in (8, 4, 3)
      for scope in ("tensor", "row", "column", "group") for symmetric in (True, False)),
    Scheme("nf4", 4), Scheme("nf4", 4, double=False), Scheme("gobo", 4), Scheme("gobo", 3), Scheme("binary", 1),
]  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.title)
def test_packed_files_hold_exactly_the_rounded_values(scheme, llama, tmp_path):
    llama.quantized = quantize_model(llama.model, scheme, "same")
    save_state(llama, tmp_path / "packed")
    again = load_state(tmp_path / "packed")
    ours, theirs = llama.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.quantized.keys() == llama.quantized.keys()
    assert all(torch.equal(again.quantized[name].codes, weight.codes) for name, weight in llama.quantized.items())


def test_a_pruned_weight_takes_a_bit_and_its_mask_comes_back(llama, tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    weight = llama.model.get_parameter(name)
    mask = torch.rand(weight.shape) > 0.5
    with torch.no_grad():
        weight.mul_(mask)
    llama.kept = {name: mask}
    save_state(llama, tmp_path / "packed")
    again = load_state(tmp_path / "packed")
    assert torch.equal(again.model.get_parameter(name), weight)
    assert torch.equal(again.kept[name], mask)
    # Half the values and a bit for each weight.
    dense = weight.numel() * 4
    from safetensors import safe_open

    with safe_open(tmp_path / "packed" / "packed.safetensors", "pt") as file:
        stored = sum(file.get_tensor(key).nbytes for key in file.keys() if key.startswith(f"{name}::"))  # noqa: SIM118
    assert stored < 0.6 * dense


def test_a_packed_file_that_was_cut_short_is_refused(llama, tmp_path):
    llama.quantized = quantize_model(llama.model, INT8)
    save_state(llama, tmp_path / "packed")
    file = tmp_path / "packed" / "packed.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"cannot be loaded .*compress it again"):
        load_state(tmp_path / "packed")


@pytest.mark.parametrize("scheme", [INT8, INT4], ids=["W8A8", "W4A16"])
def test_compressed_tensors_are_read_by_transformers_as_the_same_values(scheme, llama, tmp_path):
    pytest.importorskip("compressed_tensors")
    llama.quantized = quantize_model(llama.model, scheme)
    if scheme is INT8:
        llama.activations = {"rounding": "int8 a token", "threshold": None}
    write_files(llama, tmp_path / "vllm", "vllm")
    model, _ = load_model(tmp_path / "vllm")
    if scheme is INT8:
        install(llama.model, None)
    # Theirs divides the largest input of a token by 127.5, ours by 127.
    far = float((logits_of(model) - logits_of(llama.model)).norm() / logits_of(llama.model).norm())
    assert far < (0.03 if scheme is INT8 else 1e-3)
    config = json.loads((tmp_path / "vllm" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors"
    assert config["ignore"] == ["lm_head"]


@pytest.mark.parametrize(("kind", "far"), [("q8_0", 0.02), ("q4_0", 0.35)])
def test_gguf_is_read_by_the_gguf_reader_and_by_transformers(kind, far, llama, tmp_path):
    gguf = pytest.importorskip("gguf")
    write_files(llama, tmp_path / "gguf", f"gguf-{kind}")
    file = tmp_path / "gguf" / f"model-{kind}.gguf"
    reader = gguf.GGUFReader(file)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert {"token_embd.weight", "blk.1.attn_q.weight", "output_norm.weight"} <= tensors.keys()
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == kind.upper()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", gguf_file=file.name, dtype=torch.float32).eval()
    ours, theirs = logits_of(llama.model), logits_of(model)
    assert float((ours - theirs).norm() / ours.norm()) < far
    read, own = AutoTokenizer.from_pretrained(tmp_path / "gguf", gguf_file=file.name), llama.tokenizer
    text = "Köln, 3 × 7 = 21 <|im_end|>"
    assert read(text)["input_ids"] == own(text)["input_ids"]
    assert load_model(tmp_path / "gguf")[0].config.num_hidden_layers == 2


@pytest.mark.parametrize("method", ["nf4", "llm.int8"])
def test_bitsandbytes_holds_the_same_values(method, wide_llama, tmp_path):
    pytest.importorskip("bitsandbytes")
    llama = wide_llama
    if method == "nf4":
        llama.quantized = quantize_model(llama.model, Scheme("nf4", 4), "keep")
    else:
        llama.quantized = quantize_model(llama.model, INT8, "keep")
        llama.activations = {"threshold": 6.0}
    write_files(wide_llama, tmp_path / "bnb", "bitsandbytes")
    config = json.loads((tmp_path / "bnb" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "bitsandbytes"
    model, _ = load_model(tmp_path / "bnb")
    if method == "llm.int8":
        install(llama.model, 6.0)
    assert float((logits_of(model) - logits_of(llama.model)).norm() / logits_of(llama.model).norm()) < 0.05


@pytest.mark.parametrize("inputs", [False, True], ids=["weights", "inputs too"])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_torchao_holds_the_same_codes(kind, inputs, request, tmp_path):
    pytest.importorskip("torchao")
    student = request.getfixturevalue(kind)
    student.quantized = quantize_model(student.model, INT8, "keep")
    student.activations = {"rounding": "int8 a token", "threshold": None} if inputs else None
    write_files(student, tmp_path / "ao", "torchao")
    assert {path.suffix for path in (tmp_path / "ao").iterdir()} <= {".json", ".safetensors", ".jinja"}
    config = json.loads((tmp_path / "ao" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "torchao"
    model, _ = load_model(tmp_path / "ao", classifies=kind == "bert")
    held = 0
    for name, rounded in student.quantized.items():
        stored = model.get_parameter(name)
        if hasattr(stored, "qdata"):
            assert torch.equal(stored.qdata.int(), rounded.codes.int() - 128)
            assert torch.equal(stored.dequantize().float(), rounded.values())
            held += 1
    assert held == sum(target.part == "blocks" for target in targets(student.model))
    if inputs:
        install(student.model, None)
    theirs, ours = logits_of(model), logits_of(student.model)
    assert float((theirs - ours).norm() / ours.norm()) < (0.02 if inputs else 1e-6)
    assert "compression.json" in compressed_as(tmp_path / "ao")


def test_torchao_is_asked_for_by_its_extra(llama, tmp_path, monkeypatch):
    for name in ("torchao", "torchao.quantization"):
        monkeypatch.setitem(sys.modules, name, None)
    llama.quantized = quantize_model(llama.model, INT8, "keep")
    with pytest.raises(MissingExtra, match=r"pip install -e .*\[torchao\]"):
        write_files(llama, tmp_path / "ao", "torchao")


FORMATS_THAT_CANNOT = [
    ("vllm", Scheme("nf4", 4), "vLLM reads int8:channel"),
    ("onnx", INT8, "onnx is for classification students"),
    ("bitsandbytes", INT8, "bitsandbytes holds llm.int8 and nf4"),
    ("bitsandbytes", Scheme("nf4", 4), r"whole blocks of 64.*q_proj.weight is 32 × 32, and 11 more; choose packed"),
    ("torchao", Scheme("nf4", 4), "torchao holds int8:channel"),
]


@pytest.mark.parametrize(("form", "scheme", "message"), FORMATS_THAT_CANNOT)
def test_a_format_that_cannot_hold_a_student_says_what_it_can(form, scheme, message, llama, tmp_path):
    llama.quantized = quantize_model(llama.model, scheme)
    with pytest.raises(OptionError, match=message):
        write_files(llama, tmp_path / "files", form)
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("kind", ["llama3", "linear", "yarn"])
def test_gguf_refuses_positions_that_it_would_not_hold(kind, llama, tmp_path, monkeypatch):
    monkeypatch.setattr(
        llama.model.config, "rope_parameters", {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    )
    with pytest.raises(OptionError, match=f"are scaled \\('{kind}'\\)"):
        write_files(llama, tmp_path / "files", "gguf-q8_0")


def test_gguf_refuses_rows_that_its_blocks_do_not_divide(tiny_llama, tmp_path):
    config = AutoConfig.from_pretrained(tiny_llama)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 1, 12
    shutil.copytree(tiny_llama, tmp_path / "odd")
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "odd")
    with pytest.raises(OptionError, match="blocks of 32, which do not divide rows of 48; choose packed or vllm"):
        write_files(open_source(tmp_path / "odd"), tmp_path / "files", "gguf-q8_0")


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([{"type": "ByteLevel"}], "gpt-2"),
        ([{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}], "smollm"),
        ([{"type": "Split", "pattern": {"Regex": r"(?i:'s)|\p{N}{1,3}|\s+"}}, {"type": "ByteLevel"}], "llama-bpe"),
        ([{"type": "Whitespace"}], None),
    ],
)
def test_gguf_names_the_way_a_tokenizer_splits_words(parts, name):
    from potstill.train.compress.gguf_file import _splitter

    whole = parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}
    assert _splitter({"pre_tokenizer": whole}) == name


def test_gguf_refuses_another_architecture(tiny_bert, llama, tmp_path):
    other = dataclasses.replace(llama)
    other.model.config.model_type = "qwen9"
    with pytest.raises(OptionError, match="built like Llama"):
        write_files(other, tmp_path / "files", "gguf-q8_0")


def test_a_file_is_read_silently_and_names_the_extra_that_reads_it(llama, tmp_path, monkeypatch, capfd):
    llama.quantized = quantize_model(llama.model, INT8)
    for form in ("gguf-q8_0", "vllm"):
        write_files(llama, tmp_path / form, form)
        capfd.readouterr()
        load_model(tmp_path / form)
        assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "compressed_tensors", None)
    with pytest.raises(MissingExtra, match=r"vllm needs compressed_tensors.*\[compress\]"):
        load_model(tmp_path / "vllm")
    with pytest.raises(MissingExtra, match=r"the format vllm needs compressed_tensors.*\[compress\]"):
        check_formats(("vllm",))
