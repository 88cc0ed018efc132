"""The last layer of a BERT classifier for the first token alone: the same logits, and what it leaves alone."""

import pytest
import torch

from potstill.train.first_token import reads_first_token
from potstill.train.head_start import add_averaging_layer


def classifier(folder, **changes):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, num_labels=3, **changes)
    return AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32).eval()


def inputs(lengths, width=None):
    torch.manual_seed(1)
    width = width or max(lengths)
    mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(4, 20, mask.shape) * mask, "attention_mask": mask}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("averages", [False, True])
@pytest.mark.parametrize("lengths", [[7], [1], [9, 4, 6]])
def test_the_logits_are_the_whole_models(tiny_bert, attention, averages, lengths):
    model = classifier(tiny_bert, attn_implementation=attention)
    if averages:
        add_averaging_layer(model)
        model.classifier.weight.data.mul_(30)
    batch = inputs(lengths)
    view = reads_first_token(model)
    assert view is not model
    with torch.inference_mode():
        torch.testing.assert_close(view(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)
    assert type(model.bert.encoder.layer[-1]).__name__ == "BertLayer"  # the model itself is untouched
    states = model(**batch, output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_hidden_layers + 1
    assert states[-1].shape == states[0].shape


def test_it_computes_less(tiny_bert):
    from torch.utils.flop_counter import FlopCounterMode

    model, batch = classifier(tiny_bert), inputs([30, 30])
    spent = []
    for run in (model, reads_first_token(model)):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            run(**batch)
        spent.append(counter.get_total_flops())
    assert spent[1] < 0.65 * spent[0]  # of two layers


def test_what_is_changed_in_the_model_is_seen(tiny_bert):
    model, batch = classifier(tiny_bert), inputs([5])
    before = reads_first_token(model)(**batch).logits
    model.bert.encoder.layer[-1].output.dense.weight.data.mul_(3)
    torch.testing.assert_close(reads_first_token(model)(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(before, model(**batch).logits, atol=1e-5)


def test_other_models_are_returned_as_they_are(tiny_bert, tiny_llama):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    decoder = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tiny_llama, num_labels=2))
    assert reads_first_token(decoder.eval()) is decoder
    training = classifier(tiny_bert).train()
    assert reads_first_token(training) is training
    wrapped = classifier(tiny_bert)
    wrapped.bert.encoder.layer[-1] = torch.nn.Identity()
    assert reads_first_token(wrapped) is wrapped
