"""A causal model that writes: loading, masks, the key-value slots, and the last layer in float32.

Five things make a small causal model fast and exact enough on a CPU, each measured on two cores with
SmolLM2-135M:

- bfloat16 where the processor multiplies it (AVX512-BF16, AMX): twice the speed of float32.
- Keys and values rest in slots that are allocated once. The library's cache concatenates, so it copies
  everything at every step; here a step writes one position a row.
- Grouped-query attention folds the query heads of a group into query positions instead of copying keys and
  values for each head: 36 ms a step against 151 (64 rows, 200 positions), with the same result.
- With few rows, as in a step, the product is taken as weights times rows: see `_multiply_few_rows_fast`.
- Log-probs that are stored come from a float32 product with the output matrix: bfloat16 logits near 20 are
  rounded to eighths.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from potstill.decoding.text_model import load_text_model
from potstill.errors import UserError
from potstill.number_format import multiplies_bfloat16

_ATTENTION = "potstill_grouped"


def pick_device(wanted: str | None) -> torch.device:
    """`wanted`, or a GPU where there is one, else the CPU."""
    if wanted:
        return torch.device(wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(folder: str, device: torch.device, dtype: str) -> tuple[Any, Any]:
    """Model (in eval mode) and tokenizer.

    Raises:
        UserError: The model cannot be loaded, or is no causal language model.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = load_text_model(folder, dtype=getattr(torch, dtype), trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"the teacher model {folder!r} cannot be loaded by transformers ({str(error).splitlines()[0]}); give the "
            "folder or Hub id of a causal language model, or serve it and use openai:URL#MODEL"
        ) from None
    model.to(device).eval()
    if device.type == "cpu" and model.dtype == torch.float32:
        _multiply_few_rows_fast(model)
    return model, tokenizer


def unknown_layers(model: Any) -> list[str]:
    """Kinds of layers that `Slots` holds no state of; empty for plain attention."""
    config = model.config.get_text_config(decoder=True)
    unknown = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    return sorted(unknown) if hasattr(config, "num_hidden_layers") else ["(unknown)"]


@contextmanager
def grouped_attention(model: Any) -> Iterator[None]:
    """Inside, single tokens attend with their query heads folded; afterwards the model is as it was."""
    before = model.config._attn_implementation
    use_grouped_attention(model)
    try:
        yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)


_FEW_ROWS = 48


def _multiply_few_rows_fast(model: Any) -> None:
    """Let linear layers compute (W xᵀ)ᵀ in place of x Wᵀ where x has few rows.

    The library copies the second factor into blocks before it multiplies, which pays only where there are many rows to
    use them; here that is x, the small one. 40 rows by 576 x 1536, two cores with AVX2: 95 GFLOP/s against 66.
    """

    def faster(layer: torch.nn.Linear) -> Any:
        plain = layer.forward

        def forward(rows: torch.Tensor) -> torch.Tensor:
            count = rows.numel() // rows.shape[-1]
            if not 2 <= count <= _FEW_ROWS:
                return plain(rows)
            product = (layer.weight @ rows.reshape(count, -1).t()).t().contiguous()
            if layer.bias is not None:
                product = product + layer.bias
            return product.reshape(*rows.shape[:-1], -1)

        return forward

    for layer in model.modules():
        if type(layer) is torch.nn.Linear:
            layer.forward = faster(layer)  # type: ignore[method-assign]


def use_grouped_attention(model: Any) -> None:
    """Fold the query heads of single tokens from now on, where the model attends by PyTorch's kernel."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    if model.config._attn_implementation != "sdpa":
        return

    def grouped(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> Any:
        rows, heads, length, width = query.shape
        groups = key.shape[1]
        if length > 1 or heads == groups or mask is None or options.get("position_bias") is not None:
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        folded = torch.nn.functional.scaled_dot_product_attention(
            query.reshape(rows, groups, heads // groups, width),
            key,
            value,
            attn_mask=mask,
            scale=options.get("scaling"),
        )
        return folded.reshape(rows, 1, heads, value.shape[-1]), None

    AttentionInterface.register(_ATTENTION, grouped)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    model.set_attn_implementation(_ATTENTION)


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """`cache` under the name that the model's forward takes: `past_key_values`, since transformers 5.24 `cache`; of
    Mamba's kinds `cache_params`."""
    kind: Any = type(model)
    return {_cache_name(kind.forward): cache}


@functools.cache
def _cache_name(forward: Callable[..., Any]) -> str:
    taken = inspect.signature(forward).parameters
    return next((name for name in ("cache", "cache_params") if name in taken), "past_key_values")


def context_length(model: Any) -> int:
    """Most tokens of prompt and reply together."""
    return int(getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", 1 << 20))


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Token ids that end a reply."""
    ids: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        found = getattr(source, "eos_token_id", None)
        ids.update(found if isinstance(found, list) else [] if found is None else [found])
    return frozenset(ids)


def attention_masks(model: Any, allowed: torch.Tensor, distance: torch.Tensor | None) -> Any:
    """Masks in the form that the model's layers take.

    Args:
        model: The model.
        allowed: (rows, 1, queries, keys) bool, True where a query may look.
        distance: (rows, 1, queries, keys) int, how many positions back a key lies; None where no layer can reach
            further than its window.

    Returns:
        One mask, or one for each kind of layer.
    """
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)

    def form(mask: torch.Tensor) -> torch.Tensor:
        if model.config._attn_implementation != "eager":
            return mask
        # Eager attention adds the mask to its weights.
        return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill_(
            ~mask, torch.finfo(model.dtype).min
        )

    narrow = allowed if window is None or distance is None else allowed & (distance < window)
    if "sliding_attention" in kinds:
        return {"full_attention": form(allowed), "sliding_attention": form(narrow)}
    if kinds or not _windowed_throughout(model):
        return form(allowed)
    return form(narrow)


def _windowed_throughout(model: Any) -> bool:
    """Whether a model without `layer_types` applies its window in every layer, as Mistral does."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


class Slots:
    """Keys and values of up to `rows` sequences, each from position 0 on; duck-types the library's cache.

    A forward pass is announced by `prefill` (several new rows, each from the position up to which it is filled) or
    `step` (one position for each of the first `n` rows). Rows stay packed at the front: `drop` moves the last row into
    the gap.
    """

    def __init__(self, layers: int, rows: int):
        self._rows = rows
        self._keys: list[torch.Tensor | None] = [None] * layers
        self._values: list[torch.Tensor | None] = [None] * layers
        self._wanted = 0
        self._new: torch.Tensor | None = None
        self._starts: torch.Tensor | None = None
        self._at: torch.Tensor | None = None
        self._reach = 0

    is_compileable = False
    is_sliding = (False,)

    def reserve(self, capacity: int) -> None:
        """Make room for sequences of `capacity` tokens."""
        self._wanted = max(self._wanted, -(-capacity // 64) * 64)
        for tensors in (self._keys, self._values):
            for index, tensor in enumerate(tensors):
                if tensor is not None and tensor.shape[2] < self._wanted:
                    tensors[index] = _grown(tensor, self._wanted)

    def release(self) -> None:
        """Give all memory back; nothing may be active."""
        self._keys = [None] * len(self._keys)
        self._values = [None] * len(self._values)
        self._wanted = 0

    def prefill(self, rows: torch.Tensor, starts: torch.Tensor, reach: int) -> None:
        """Announce a pass over new rows.

        Args:
            rows: (n,) int64, the slots that they get.
            starts: (n,) int64, positions of each that are filled already.
            reach: Where the pass ends.
        """
        self._new, self._at, self._reach = rows, None, reach
        self._starts = starts if int(starts.max()) else None

    def saved(self, row: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Copies of the first `length` keys and values of a row, each (heads, length, width), a pair a layer."""
        return [
            (keys[row, :, :length].clone(), values[row, :, :length].clone())
            for keys, values in zip(self._keys, self._values, strict=True)
            if keys is not None and values is not None
        ]

    def fill(self, row: int, saved: Sequence[tuple[torch.Tensor, torch.Tensor]], length: int) -> None:
        """Write the first `length` positions of what `saved` gave into a row."""
        for layer, (keys, values) in enumerate(saved):
            self._slots(self._keys, keys.unsqueeze(0), layer)[row, :, :length] = keys[:, :length]
            self._slots(self._values, values.unsqueeze(0), layer)[row, :, :length] = values[:, :length]

    def step(self, positions: torch.Tensor) -> None:
        """Announce a pass over one new token of each active row: (n,) int64, where it stands in its sequence."""
        self._new, self._at = None, positions
        self._reach = int(positions.max()) + 1

    def drop(self, gap: int, last: int) -> None:
        """Move row `last` into row `gap`."""
        for tensor in (*self._keys, *self._values):
            if tensor is not None and gap != last:
                tensor[gap] = tensor[last]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store what a layer computed and return what its queries look at; called by the model."""
        key_slots = self._slots(self._keys, keys, layer_idx)
        value_slots = self._slots(self._values, values, layer_idx)
        if self._new is not None:
            length = keys.shape[2]
            if self._starts is None:
                key_slots[self._new, :, :length] = keys
                value_slots[self._new, :, :length] = values
                return keys, values
            new = self._new.unsqueeze(1)
            places = self._starts.unsqueeze(1) + torch.arange(length, device=keys.device)
            key_slots[new, :, places] = keys.transpose(1, 2)
            value_slots[new, :, places] = values.transpose(1, 2)
            return key_slots[self._new, :, : self._reach], value_slots[self._new, :, : self._reach]
        assert self._at is not None
        count = keys.shape[0]
        rows = torch.arange(count, device=keys.device)
        key_slots[rows, :, self._at] = keys[:, :, 0]
        value_slots[rows, :, self._at] = values[:, :, 0]
        return key_slots[:count, :, : self._reach], value_slots[:count, :, : self._reach]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before this pass; the model reads it where it makes no use of our position ids."""
        return 0 if self._new is not None else max(self._reach - 1, 0)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Key length and offset, for models that ask although the mask is given."""
        return self._reach, 0

    def _slots(self, tensors: list[torch.Tensor | None], sample: torch.Tensor, layer: int) -> torch.Tensor:
        tensor = tensors[layer]
        if tensor is None:
            _, heads, _, width = sample.shape
            # Masked positions are multiplied by zero, so they must be finite: zeros, not whatever memory held.
            tensor = sample.new_zeros((self._rows, heads, self._wanted, width))
            tensors[layer] = tensor
        return tensor


def _grown(tensor: torch.Tensor, capacity: int) -> torch.Tensor:
    rows, heads, length, width = tensor.shape
    bigger = tensor.new_zeros((rows, heads, capacity, width))
    bigger[:, :, :length] = tensor
    return bigger


def bytes_a_position(model: Any) -> int:
    """Bytes of keys and values that one token of one sequence takes."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    if not heads:  # only states, of which a sequence has one however long it is
        return 1
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * torch.finfo(model.dtype).bits // 8)


class OutputHead:
    """The output projection, narrowed to one position a row and, for log-probs that are kept, in float32."""

    def __init__(self, model: Any):
        self._head = model.get_output_embeddings()
        self._upcast = type(self._head) is torch.nn.Linear and model.dtype != torch.float32
        self._weight: torch.Tensor | None = None

    @contextmanager
    def using(self, positions: torch.Tensor | None = None, *, keep: int = 0, precise: bool) -> Iterator[None]:
        """For the passes inside: project only some positions, and in float32 where `precise`.

        Args:
            positions: (rows,) int64, one a row; None takes all.
            keep: Take the last so many of each row; 0 takes all.
            precise: Whether the log-probs are kept.
        """
        head, plain, own = self._head, self._head.forward, self._head.__dict__.get("forward")
        if precise and self._upcast and self._weight is None:
            self._weight = head.weight.detach().float()

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            if positions is not None:
                hidden = hidden[torch.arange(len(hidden), device=hidden.device), positions].unsqueeze(1)
            if keep:
                hidden = hidden[:, -keep:]
            if precise and self._weight is not None:
                bias = None if head.bias is None else head.bias.float()
                return torch.nn.functional.linear(hidden.float(), self._weight, bias)
            projected: torch.Tensor = plain(hidden)
            return projected

        head.forward = forward
        try:
            yield
        finally:
            if own is None:
                del head.forward
            else:
                head.forward = own


def default_dtype(device: torch.device) -> str:
    """`bfloat16` where the device multiplies it, else `float32`; `float16` on other accelerators."""
    if multiplies_bfloat16(device):
        return "bfloat16"
    return "float32" if device.type == "cpu" else "float16"


def padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> torch.Tensor:
    """(n, longest) int64, right-padded."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *([fill] * (longest - len(row)))] for row in rows], device=device)


def identity_of(model_ref: str, dtype: str) -> Mapping[str, str]:
    """What decides the replies of a model in this process."""
    from potstill.models import model_identity

    return {"model": model_identity(model_ref), "dtype": dtype}
