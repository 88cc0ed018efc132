"""Tiny random models with their tokenizers, built here: no download, milliseconds a step."""

import sys
from pathlib import Path

import pytest

# Tests are no package; what they share here (`mood`) is found beside them.
sys.path.append(str(Path(__file__).parent))

torch = pytest.importorskip("torch")

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
    "good",
    "fine",
    "great",
    "nice",
    "bad",
    "poor",
    "awful",
    "sad",
    "the",
    "film",
    "was",
    "a",
    "and",
    "plot",
    "actor",
    "scene",
]


TEXTS = ["the cat sat on the mat", "a café at the théâtre", "the  cat,\nthe mat 42", "on the 猫 sat"]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a 2-layer BERT over a handful of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """Folder of a 2-layer Llama over bytes, with a ChatML template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*specials, *letters])}
    letters_only = Tokenizer(models.BPE(vocab, []))
    letters_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters_only.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = 1
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters_only, pad_token="<|im_end|>", eos_token="<|im_end|>", bos_token="<|im_start|>"
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def _one_layer(folder, tokenizer, *, seed, **sizes):
    """Folder of a tokenizer and a Llama of one layer for it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, max_position_embeddings=512, initializer_range=0.2, **sizes,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_merged(tmp_path_factory):
    """Folder of a 1-layer Llama over a byte-level BPE that was trained on `TEXTS`: other tokens than `tiny_llama`'s."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<pad>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    pieces.train_from_iterator(TEXTS * 4, trainer)
    folder = tmp_path_factory.mktemp("tiny-merged")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = CHAT
    return _one_layer(folder, tokenizer, seed=3, hidden_size=48, bos_token_id=0, eos_token_id=1, pad_token_id=0)


@pytest.fixture(scope="session")
def tiny_prepending(tmp_path_factory):
    """Folder of a 1-layer Llama whose tokenizer puts a blank before every text, as Llama 2, Mistral and Phi-3 do."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    pieces.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    pieces.train_from_iterator(
        TEXTS * 4, trainers.BpeTrainer(vocab_size=360, special_tokens=special, show_progress=False)
    )
    folder = tmp_path_factory.mktemp("tiny-prepending")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"
    return _one_layer(folder, tokenizer, seed=4, hidden_size=32, bos_token_id=1, eos_token_id=2, pad_token_id=2)


@pytest.fixture(scope="session")
def prepending(tiny_prepending):
    """The tokenizer of `tiny_prepending`."""
    from potstill.train.carry_over import load_tokenizer

    return load_tokenizer(str(tiny_prepending))


@pytest.fixture(scope="session")
def merged(tiny_merged):
    """The tokenizer of `tiny_merged`."""
    from potstill.train.carry_over import load_tokenizer

    return load_tokenizer(str(tiny_merged))


@pytest.fixture(scope="session")
def single(tiny_llama):
    """The tokenizer of `tiny_llama`: a token a byte."""
    from potstill.train.carry_over import load_tokenizer

    return load_tokenizer(str(tiny_llama))


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices run faster on one thread, and the sums come out the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def options(tiny_bert):
    """Options under which the tiny BERT learns the task of `mood` in a second."""
    from potstill.train.options import DistilOptions

    return DistilOptions(
        student=str(tiny_bert), epochs=8, min_steps=1, learning_rate=3e-3, dropout=0.0, max_length=32,
        freeze_embeddings=False, early_stopping=None, keep_checkpoints=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def moved(tiny_llama, tmp_path_factory):
    """Folder of a teacher of `tiny_llama`'s family with other weights."""
    from potstill.train.causal_model import load_causal
    from potstill.train.options import DistilOptions, resolve_options

    folder = tmp_path_factory.mktemp("moved")
    tokenizer, model, _ = load_causal(resolve_options(DistilOptions(student=str(tiny_llama)), "causal"))
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
