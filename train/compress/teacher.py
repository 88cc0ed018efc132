"""Whether a model that healing is to listen to speaks of the same things as the student, told from its configuration.

What enters: the student and the teacher's folder or name. Nothing of the teacher's weights is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from potstill.errors import DataError, OptionError
from potstill.models import local_model

if TYPE_CHECKING:
    from potstill.train.compress.state import Compressed


def check_teacher(state: Compressed, teacher: str) -> None:
    """Refuse a teacher whose outputs are not those of the student, place by place.

    Two classifiers of as many labels in another order would teach each other nonsense without an error.

    Args:
        state: The student.
        teacher: Folder or name of the teacher.

    Raises:
        OptionError: It has other tokens or other labels, or the same labels in another order.
        DataError: There is no such model.
    """
    from transformers import AutoConfig

    try:
        theirs = AutoConfig.from_pretrained(local_model(teacher))
    except (OSError, ValueError) as error:
        raise DataError(f"the teacher {teacher} cannot be read ({error}); give the folder of a model") from None
    ours = state.model.config
    if state.kind == "causal":
        sizes = [int(config.get_text_config().vocab_size) for config in (ours, theirs)]
        if sizes[0] != sizes[1]:
            raise OptionError(
                "teacher", [f"{teacher} knows {sizes[1]:,} tokens and the student {sizes[0]:,}; both need the same"]
            )
        return
    named = [[str(config.id2label[i]) for i in range(config.num_labels)] for config in (ours, theirs)]
    unnamed = any(re.fullmatch(r"LABEL_\d+", name) for names in named for name in names)
    if len(named[0]) != len(named[1]) or (named[0] != named[1] and not unnamed):
        shown = [", ".join(names[:8]) + (", …" if names[8:] else "") for names in named]
        raise OptionError(
            "teacher",
            [f"{teacher} answers with {shown[1]}, and the student with {shown[0]}; both need the same labels in order"],
        )
