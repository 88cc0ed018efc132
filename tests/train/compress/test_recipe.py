"""Recipes: what is read, what is refused before any work, and that the table of methods is the code's own."""

import inspect

import pytest

from potstill.errors import OptionError
from potstill.train.compress.methods import METHODS
from potstill.train.compress.recipe import check_recipe, parse_recipe

READ = [
    ("wanda:0.5 -> heal:steps=100 -> int8:channel", "wanda:0.5 -> heal:steps=100 -> int8:scope=row"),
    ("prune: wanda 0.5 → heal: soft 1 epoch → quantize: int8-channel",
     "wanda:0.5 -> heal:epochs=1.0 -> int8:scope=row"),
    ([{"prune": "wanda 50%"}, {"heal": {"steps": 7}}, {"quantize": "int8-channel"}],
     "wanda:0.5 -> heal:steps=7 -> int8:scope=row"),
    ("layers:2", "layers:2"),
    ("wanda:2:4", "wanda:0.5,pattern=2:4"),
    ("magnitude:0.5,deviation", "magnitude:0.5,scope=deviation"),
    ("magnitude:0.8,cubic,steps=40", "magnitude:0.8,schedule=cubic,steps=40"),
    ("random:30%,seed=2", "random:0.3,seed=2"),
    ("heads:0.2,uniform=no,step=0.05", "heads:0.2,uniform=False,step=0.05"),
    ("int4:g64,zero-point", "int4:scope=group,group=64,zero_point=True"),
    ("gobo3", "gobo:bits=3"),
    ("qat:binary,steps=20", "binary -> heal:steps=20"),
    ("qat:int4,epochs=2", "int4 -> heal:epochs=2.0"),
    ("qat:int4", "int4 -> heal:steps=200"),
    ("gptq:nf4", "gptq:grid=nf4"),
    ("llm.int8:threshold=5", "llm.int8:threshold=5.0"),
    ("gobo-4 -> heal - 2 epochs", "gobo:bits=4 -> heal:epochs=2.0"),
    ("lottery:40%,rewind=5%", "lottery:0.4,rewind=0.05"),
    ("int8:group,g32", "int8:scope=group,group=32"),
    ("wanda:50%,2:4", "wanda:0.5,pattern=2:4"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "means"), READ)
def test_a_recipe_is_read(given, means):
    assert str(parse_recipe(given)) == means


@pytest.mark.parametrize(("given", "means"), READ)
def test_what_a_recipe_says_of_itself_is_read_as_the_same(given, means):
    assert str(parse_recipe(means)) == means


REFUSED = [
    ("wandda:0.5", "no method 'wandda'; did you mean 'wanda'"),
    ("wanda:1.0", "a sparsity of 1 is not possible"),
    ("magnitude:0", "a sparsity of 0 is not possible"),
    ("layers:1.0", "cannot be removed"),
    ("wanda", "needs a share to remove"),
    ("int8:bitz=3", "no option 'bitz'"),
    ("int8:scope=cell", "is none of tensor, row, column, group"),
    ("int4:group=1", "too small"),
    ("gptq", "gptq needs grid"),
    ("quantize: wanda 0.5", "not a method to quantize"),
    ("int8 -> wanda:0.5", "the order is structure, sparsity, quantisation"),
    ("wanda:0.5 -> layers:2", "the order is structure, sparsity, quantisation"),
    ("int8 -> nf4", "both round the weights"),
    ("wanda:0.5 -> binary", "has no value 0, so the pruned weights would come back"),
    ("wanda:0.5 -> gptq:gobo3", "has no value 0"),
    ("bonsai:0.5,uniform=no -> binary", "has no value 0"),
    ("heal:steps=3 -> int8", "heal comes first"),
    ("nf4 -> qlora:steps=3", "qlora comes after nf4: its adapters are merged into full weights"),
    ("wanda:0.5 -> qlora:steps=3", "qlora comes after wanda"),
    ("heads:0.2,uniform=no -> qlora:steps=3", "qlora comes after heads: its adapters are merged into full weights"),
    ("cofi:0.5,uniform=no -> layers:1 -> qlora:steps=3", "qlora comes after cofi"),
    ("qlora:ranc=3", "no option 'ranc'; did you mean 'rank'"),
    ("bf16 -> heal:steps=3", "cast last"),
    ("qat:binary,steps=20,epochs=2", "steps=20 and epochs=2 both say how long qat is; keep one of them"),
    ("int8 -> heal:2 epochs,steps=7", "steps=7 and epochs=2 both say how long heal is"),
    ("int8:g0", "group=0 is too small; the least is 2"),
    ("int4:g1", "group=1 is too small; the least is 2"),
    ("magnitude:0.5,steps=40", "steps=40 is of the learning while weights go; add schedule=cubic"),
    ("magnitude:2:4,cubic", "pattern 2:4 cannot come bit by bit; leave out schedule=cubic"),
    ("heads:0.2,step=0", "step=0 is too small"),
    ("gobo:9", "bits=9 is too large; the most is 8"),
    ("layers:nan", "layers does not know 'nan'"),
    ("heads:99", "99 is no share to remove: choose one between 0 and 1, as in heads:0.2"),
    ("int8 -> heal:epochs=inf", "epochs=inf is no number to work with"),
    ("magnitude:-0.5", "a sparsity of -0.5 is not possible"),
    ("layers: -1", "-1 cannot be removed"),
    ("magnitude:0.5,0.3", "magnitude is given 0.5 and 0.3; keep one of them"),
    ("int8 -> heal:steps=3,steps=5", "steps is given as 3 and as 5; keep one of them"),
    ("int4:tensor,g64", "scope is given as tensor and as group; keep one of them"),
    ("wanda:4:0", "pattern '4:0' is not n:m with 0 < n < m; write 2:4 to keep 2 of every 4"),
    ("wanda:0:4", "pattern '0:4' is not n:m with 0 < n < m"),
    ("magnitude:0.5,pattern=half", "pattern 'half' is not n:m"),
    ("magnitude:pattern=half", "pattern 'half' is not n:m"),
    ("wanda:0.3,2:4", "pattern 2:4 removes 0.5 and 0.3 was asked; give the same"),
    ("magnitude:2:4,deviation", "pattern 2:4 holds in every row; leave out scope=deviation"),
    ("lottery:0.5,rewind=100%", "rewind=100% is too large; the most is 0.99"),
    ("bonsai:0.5,sub_models=8", "sub_models=8 is too small; the least is 20"),
    ("cofi:0.5,steps=1", "steps=1 is too small; the least is 2"),
    ("cofi:0.5,layer_weight=1.5", "layer_weight=1.5 is too large; the most is 1"),
    ("", "no step is given"),
    ([{"prune": "wanda 0.5", "heal": ""}], "a mapping with one key"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_nonsense_is_refused_with_its_reason(given, message):
    with pytest.raises(OptionError, match=message):
        parse_recipe(given)


def test_all_faults_come_at_once():
    with pytest.raises(OptionError) as caught:
        parse_recipe("wandda:0.5 -> int88 -> heal:stepz=3")
    assert len(caught.value.faults) == 3


def test_a_student_that_cannot_take_a_recipe_is_refused_before_any_work():
    recipe = parse_recipe("wanda:0.5 -> heal:steps=5 -> int8")
    with pytest.raises(OptionError, match=r"2 faults.*\n.*there are none; give some \(--texts FILE\)"):
        check_recipe(recipe, kind="causal")
    with pytest.raises(OptionError, match="100 tokens of calibration text are too few; give at least 1024"):
        check_recipe(recipe, kind="causal", tokens=100)
    with pytest.raises(OptionError, match="compressed already"):
        check_recipe(parse_recipe("int8"), kind="causal", compressed="it has packed.safetensors")
    check_recipe(recipe, kind="causal", tokens=5000)
    check_recipe(parse_recipe("magnitude:0.5"), kind="causal")
    with pytest.raises(OptionError, match="magnitude looks at texts, and there are none"):
        check_recipe(parse_recipe("magnitude:0.5,cubic"), kind="causal")
    stepwise = parse_recipe("heads:0.5,step=0.2")
    check_recipe(stepwise, kind="classification", tokens=5000, cuts_heads=False)
    with pytest.raises(OptionError, match="step is for masked heads, and a cut goes group by group"):
        check_recipe(stepwise, kind="causal", tokens=5000, cuts_heads=True)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [("layers:6", r"6 of 6 layers cannot be removed; choose 1 to 5"), ("layers:0.01", "0 of 6 layers"),
     ("layers:4 -> heal:steps=3 -> layers:2", "layers:2: 2 of 2 layers cannot be removed; choose 1 to 1"),
     ("neurons:0.999", "64 of 64 neurons cannot be removed")],
)  # fmt: skip
def test_a_cut_of_more_than_there_is_is_refused_before_any_work(recipe, message):
    units = {"layers": 6, "neurons": 64}
    with pytest.raises(OptionError, match=message):
        check_recipe(parse_recipe(recipe), kind="classification", tokens=5000, units=units)
    check_recipe(parse_recipe("layers:4 -> neurons:0.5"), kind="classification", tokens=5000, units=units)


@pytest.mark.parametrize("rounding", ["gobo:4", "qat:binary", "lkd:gobo3"])
def test_a_classifiers_masked_heads_are_not_rounded_to_what_has_no_zero(rounding):
    recipe = parse_recipe(f"heads:0.5 -> neurons:0.25 -> {rounding}")
    with pytest.raises(OptionError, match=r"has no value 0, so the pruned weights would come back"):
        check_recipe(recipe, kind="classification", tokens=5000)
    check_recipe(recipe, kind="causal", tokens=5000)  # whose heads are cut
    check_recipe(parse_recipe(f"neurons:0.25 -> {rounding}"), kind="classification", tokens=5000)
    check_recipe(parse_recipe("heads:0.5 -> int4"), kind="classification", tokens=5000)


def test_the_table_of_methods_has_every_pruner_and_only_options_that_it_takes():
    from potstill.train.prune import methods as prune

    code = {**prune.SPARSITY, **prune.STRUCTURE}
    table = {name for name, method in METHODS.items() if method.kind in ("structure", "sparsity")}
    assert table == set(code)
    for name, function in code.items():
        keywords = {
            item.name: item.default
            for item in inspect.signature(function).parameters.values()
            if item.kind is item.KEYWORD_ONLY
        }
        for option, facts in METHODS[name].options.items():
            assert option in keywords, (name, option)
            assert facts.default == keywords[option], (name, option)
        assert METHODS[name].kind == ("sparsity" if name in prune.SPARSITY else "structure")


def test_every_example_can_be_read():
    assert len(METHODS) >= 18
    for method in METHODS.values():
        assert parse_recipe(method.example if method.kind != "heal" else f"layers:2 -> {method.example}").steps
