"""An ONNX classifier in onnxruntime: token ids in, logits out. Neither torch nor transformers is loaded for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import DataError, MissingExtra


class PlainTokenizer:
    """A fast tokenizer's file without the library around it: a quarter of the memory, and loaded in no time."""

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer

        self.core = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.core.no_padding()
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        pad = config.get("pad_token")
        name = pad["content"] if isinstance(pad, dict) else pad
        self.pad_token_id: int | None = self.core.token_to_id(name) if name else None

    def __call__(self, texts: list[str], *, truncation: bool = False, max_length: int = 512) -> dict[str, Any]:
        """`input_ids` of each text, special tokens in place."""
        if truncation:
            self.core.enable_truncation(max_length)
        else:
            self.core.no_truncation()
        return {"input_ids": [item.ids for item in self.core.encode_batch(list(texts))]}


class OnnxClassifier:
    """What `model.onnx` of a compressed student computes."""

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("onnxruntime", "compress", "an ONNX student") from None
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0 is one a core
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base but Exception
            raise DataError(f"{path} cannot be loaded ({error}); compress the student again") from error

    @property
    def answers(self) -> int | None:
        """How many labels it has logits for; None where the file leaves that open."""
        shape = self.session.get_outputs()[0].shape
        return shape[-1] if shape and isinstance(shape[-1], int) else None

    def logits(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of padded rows: both (batch, length) int64 -> (batch, labels) float32."""
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        found: Any = self.session.run(["logits"], feed)[0]
        return np.asarray(found, dtype=np.float32)
