"""Whether a student can be trained as asked, before a teacher writes a row for it.

In: options and the task, or its kind. Out: nothing, or the error that the training would end with hours later. Of a
model, `config.json` and the tokenizer are read and, in a folder, what its weights' files say of their own length.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.answering_template import answering_template
from potstill.errors import MissingExtra, UserError
from potstill.models import install_hint, local_model
from potstill.train.carry_over import load_tokenizer
from potstill.train.encode import encode_prompt
from potstill.train.options import DistilOptions, asks_teacher, local_teacher, resolve_options, student_name

if TYPE_CHECKING:
    from potstill.task import Kind, TaskSpec

# A token of the answer and its end.
_LEAST_ANSWER = 2
_PROBE = "Could you give me the book, please? It costs 12.50; thanks to all of you!"


def check_student(options: DistilOptions, kind: Kind) -> None:
    """Refuse a student whose model is not there or is of another kind, and options whose library is missing.

    Args:
        options: As given, with a student in place of `auto`.
        kind: Kind of the task.

    Raises:
        UserError: A model that cannot be loaded, or that has no head for this kind of task.
        MissingExtra: A library of an option that is on.
    """
    wanted = [
        ("optuna", "search", "distil.search", options.search.trials > 0),
        ("peft", "lora", "distil.lora_rank", options.lora_rank is not None or options.qlora),
        ("bitsandbytes", "qlora", "distil.qlora", options.qlora),
    ]
    for library, extra, option, on in wanted:
        if on and importlib.util.find_spec(library) is None:
            raise MissingExtra(library, extra, option)
    sorts, name = kind == "classification", student_name(options, kind)
    config = _config(name, "the student")
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    from potstill.decoding.text_model import text_config
    from potstill.train.layers import uncuttable

    if (type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING) if sorts else (text_config(config) is None):
        head = "classification head" if sorts else "head that writes"
        raise UserError(
            f"the student {name!r} is a {config.model_type}, which transformers gives no {head}; take a model with "
            f"one, such as {student_name(DistilOptions(), kind)}"
        )
    check_depth(name, int(getattr(config.get_text_config(), "num_hidden_layers", 0) or 0), options)
    if (options.student_layers or options.student_layer_ids) and (why := uncuttable(config)):
        raise UserError(f"the student {name!r}: {why}; leave distil.student_layers out, or take another student")
    if sorts:
        check_room(name, config, resolve_options(options, "classification"))
    if options.on_policy > 0 and options.teacher is not None:
        _config(options.teacher, "distil.teacher")


def check_tokenizers(options: DistilOptions, kind: Kind, teacher: str) -> None:
    """Refuse a teacher whose tokens the student does not know, where both are models of this machine.

    Args:
        options: As given, with a student in place of `auto`.
        kind: Kind of the task.
        teacher: The run's teacher, as `--teacher` names it.

    Raises:
        UserError: What the teacher would say of its tokens does not fit the student; the message names the options.
    """
    if kind == "classification" or (
        options.on_policy == 0 and (options.method == "sequence" or not options.soft_weight)
    ):
        return
    if asks_teacher(options, teacher):
        return  # it says itself how it cuts texts: `potstill.stages.asked_teacher`
    own = options.teacher if options.on_policy > 0 else options.teacher_tokenizer
    name, theirs = student_name(options, kind), own or local_teacher(teacher)
    crosses = options.cross_tokenizer != "carry_over" if options.on_policy > 0 else own is not None
    if theirs is None or theirs == name or crosses or _reads_the_same(name, theirs):
        return
    ways = (
        "set distil.cross_tokenizer=gold (or uld), or distil.on_policy=0 with distil.teacher_tokenizer"
        if options.on_policy > 0
        else f"set distil.teacher_tokenizer={theirs}, or distil.soft_weight=0"
    )
    raise UserError(
        f"the student {name!r} has another tokenizer than the teacher {theirs!r}, so what it says of its tokens "
        f"does not fit: {ways}, or choose a distil.student of the teacher's family"
    )


def check_prompts(options: DistilOptions, spec: TaskSpec) -> None:
    """Refuse a student that writes, or a teacher that is loaded beside it, which cannot be told the task.

    Args:
        options: As given, with a student in place of `auto`.
        spec: The task.

    Raises:
        UserError: There is no chat template, or the instruction leaves no room for an answer.
    """
    if spec.kind == "classification":
        return
    name, limit = student_name(options, spec.kind), int(resolve_options(options, "causal").max_length or 1024)
    ours = load_tokenizer(name, "distil.student")
    _check_told(ours, f"distil.student {name!r}", spec, limit - _LEAST_ANSWER)
    if options.on_policy > 0 and options.teacher is not None and options.cross_tokenizer != "carry_over":
        theirs = load_tokenizer(options.teacher, "distil.teacher")
        if theirs.get_vocab() != ours.get_vocab():  # else it reads the student's prompt
            _check_told(theirs, f"distil.teacher {options.teacher!r}", spec, limit)


def _check_told(tokenizer: Any, model: str, spec: TaskSpec, room: int) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"{model} has no chat template, so it cannot be asked anything; choose an instruction-tuned model"
        )
    tokenizer.chat_template = answering_template(tokenizer)
    size = len(encode_prompt(tokenizer, spec, "", sys.maxsize))
    if size >= room:
        raise UserError(
            f"the instruction takes {size} tokens of {model}, where distil.max_length leaves {room} for it and its "
            f"input; raise that by {size - room + 1} or more, or shorten the instruction"
        )


def _reads_the_same(student: str, teacher: str) -> bool:
    """Whether a teacher's tokens are the same text to the student; also where one of both cannot be loaded here."""
    from transformers import AutoTokenizer

    try:
        ours, theirs = (AutoTokenizer.from_pretrained(local_model(name)) for name in (student, teacher))
    except (OSError, ValueError, UserError):
        return True
    ids = theirs(_PROBE, add_special_tokens=False)["input_ids"]
    return bool(max(ids) < len(ours) and ours.decode(ids, skip_special_tokens=True).strip() == _PROBE)


def check_depth(name: str, depth: int, options: DistilOptions) -> None:
    """Refuse layers that a model does not have.

    Args:
        name: The model.
        depth: How many layers it has; 0 where its configuration does not say.
        options: `student_layers` and `student_layer_ids` are read.

    Raises:
        UserError: More of them are to be kept than there are, or one that is not there.
    """
    last, keep = max(options.student_layer_ids or (0,)), options.student_layers or 0
    if depth and last >= depth:
        raise UserError(f"distil.student_layer_ids names layer {last}; {name} has 0 to {depth - 1}")
    if depth and keep > depth:
        raise UserError(f"distil.student_layers {keep} is more than the {depth} layers of {name}; choose 1 to {depth}")


def check_room(name: str, config: Any, options: DistilOptions) -> None:
    """Refuse inputs that are longer than a model has positions.

    Raises:
        UserError: `max_length` is too long.
    """
    room = int(getattr(config, "max_position_embeddings", 0) or 0)
    if room and int(options.max_length or 0) > room:
        raise UserError(f"max_length {options.max_length} is more than the {room} positions of {name}; lower it")


def _config(name: str, what: str) -> Any:
    folder = local_model(name)  # before transformers, whose import takes seconds
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
        if (fault := _fault_of_weights(Path(folder))) is not None:
            raise OSError(fault)
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {name!r} cannot be loaded ({error}); {install_hint(name)}") from None
    return config


def _fault_of_weights(folder: Path) -> str | None:
    """What is wrong with the safetensors of a folder, such as one that was half copied; None of other models."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        named = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
        if missing := sorted(set(named) - {path.name for path in folder.glob("*.safetensors")}):
            return f"{missing[0]} is missing"
    weights = sorted(folder.glob("*.safetensors"))
    if folder.is_dir() and not weights and not any(folder.glob("*.bin")):
        return "it holds no weights, such as model.safetensors"
    for path in weights:
        try:
            whole = safetensors_is_whole(path)
        except ValueError:
            whole = False
        if not whole:
            return f"{path.name} is not whole; copy it again"
    return None


def safetensors_is_whole(path: Path) -> bool:
    """Whether a file is as long as its header says; the weights themselves are not read.

    Raises:
        OSError: It cannot be read.
        ValueError: Its header is no JSON.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return False
        header = json.loads(file.read(length))
    end = max((item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"), default=0)
    return path.stat().st_size == 8 + length + end
