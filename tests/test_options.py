"""Options from a mapping: every fault at once, with the nearest name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from potstill.errors import OptionError
from potstill.options import as_json, build_options, nearest


@dataclass(frozen=True)
class Inner:
    top_p: float = 1.0


@dataclass(frozen=True)
class Options:
    """Options with every kind of field that the stages use."""

    rows: int = 100
    temperature: float = 0.7
    mode: Literal["soft", "hard"] = "soft"
    names: tuple[str, ...] = ()
    student: str | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0 (got {self.temperature})")


def test_unknown_keys_of_an_inner_group_are_named_too() -> None:
    with pytest.raises(OptionError) as caught:
        build_options(Options, {"inner": {"topp": 0.5}, "temperature": -1}, "generation")
    assert caught.value.faults[0] == "generation.inner.topp: no such option; did you mean 'top_p'?"
    assert "temperature must be above 0" in caught.value.faults[1]


def test_defaults_and_values() -> None:
    assert build_options(Options, {}, "generation") == Options()
    built = build_options(Options, {"rows": 5, "names": ["a", "b"], "inner": {"top_p": 0.5}}, "generation")
    assert built == Options(rows=5, names=("a", "b"), inner=Inner(0.5))


def test_every_fault_is_in_one_message() -> None:
    with pytest.raises(OptionError) as caught:
        build_options(Options, {"rosw": 5, "temperature": "hot", "mode": "medium", "zzz": 1}, "generation")
    message = str(caught.value)
    assert message.startswith("generation: 4 faults")
    assert "generation.rosw: no such option; did you mean 'rows'?" in message
    assert "generation.zzz: no such option; known: inner, mode, names, rows, student, temperature" in message
    assert "generation.temperature" in message
    assert "(got 'hot')" in message
    assert "generation.mode" in message
    assert len(caught.value.faults) == 4


def test_what_the_dataclass_refuses_is_a_fault() -> None:
    with pytest.raises(OptionError, match=r"temperature must be above 0 \(got -1"):
        build_options(Options, {"temperature": -1}, "soft")


def test_one_name_where_a_list_is_needed_is_told_how_to_be_written() -> None:
    with pytest.raises(OptionError) as caught:
        build_options(Options, {"names": "hub.parquet"}, "retrieval")
    assert caught.value.faults == ('retrieval.names: a list is needed; write ["hub.parquet"]',)


def test_an_unknown_key_alone_is_a_fault() -> None:
    with pytest.raises(OptionError, match="1 fault\n"):
        build_options(Options, {"row": 1}, "merge")


def test_round_trip_through_json() -> None:
    options = Options(names=("a",), inner=Inner(0.25))
    dumped = as_json(options)
    assert dumped["names"] == ["a"]
    assert build_options(Options, dumped, "x") == options


def test_nearest_name() -> None:
    assert nearest("clasification", ("classification", "generation")) == "; did you mean 'classification'?"
    assert nearest("xyz", ("b", "a")) == "; known: a, b"
    assert nearest("xyz", ()) == ""
