"""The fast ways of rounding against slow and plain ones, value by value."""

import bisect
import math
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import TrainingError
from potstill.train.quantize.absmax import SHARES, Scope, fit_absmax
from potstill.train.quantize.codebook import NF4, fit_binary, fit_gobo, fit_nf4
from potstill.train.quantize.lattice import count_below
from potstill.train.quantize.schemes import Scheme

MIDDLES = (NF4[1:] + NF4[:-1]) / 2
NUMBERS = st.floats(-2, 2, width=32)


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, max_size=40), st.lists(NUMBERS, min_size=1, max_size=40))
def test_counting_is_a_search_for_any_edges(values, edges):
    edges = torch.tensor(edges).sort().values
    values = torch.tensor([*values, *edges.tolist()])  # on an edge, too
    wanted = [bisect.bisect_left(edges.tolist(), value) for value in values.tolist()]
    found = count_below(values, edges)
    assert found.dtype == torch.uint8
    assert found.tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 300), st.sampled_from([16, 64]), st.integers(0, 2**20), st.booleans())
def test_nf4_codes_are_those_of_a_search_and_the_nearest(rows, width, group, seed, double):
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    weight[:, ::5] *= 1e-3
    lattice = fit_nf4(weight, group=group, double=double)
    scale = lattice.scale.repeat_interleave(group, 1)[:, :width]
    scaled = weight / torch.where(scale == 0, 1.0, scale)
    codes = lattice.encode(weight)
    assert torch.equal(codes.long(), torch.bucketize(scaled, MIDDLES))
    apart = (scaled.unsqueeze(-1) - NF4).abs()
    assert torch.allclose(apart.gather(-1, codes.long().unsqueeze(-1)).squeeze(-1), apart.amin(-1), atol=1e-6)
    assert torch.equal(lattice.decode(codes), NF4[codes.long()] * scale)


def test_a_matrix_of_many_stretches_is_rounded_like_each_of_its_rows():
    weight = torch.randn(700, 640) * 0.05
    for scheme in (
        Scheme("nf4", 4, double=False),
        Scheme("binary", 1),
        Scheme("absmax", 8),
        Scheme("absmax", 4, "group"),
    ):
        whole = scheme.fit(weight).snap(weight)
        for row in (0, 203, 204, 205, 699):
            one = weight[row : row + 1]
            assert torch.equal(scheme.fit(one).snap(one), whole[row : row + 1]), scheme.title


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=50))
def test_one_bit_is_the_sign_of_any_number(values):
    weight = torch.tensor([values])
    assert fit_binary(weight).encode(weight).tolist() == [[int(value > 0) for value in values]]


def plain_gobo(weight, bits, threshold=-4.0):
    """GOBO with a sorted list and a loop: means of bins of equal population, assigned and averaged."""
    flat = weight.reshape(-1).double()
    mean, deviation = float(flat.mean()), float(flat.std())
    room = -threshold - math.log(deviation) - 0.5 * math.log(2 * math.pi)
    reach = deviation * math.sqrt(2 * max(room, 0.0))
    if float(((flat - mean).abs() > reach).double().mean()) > 0.1:
        reach = 3 * deviation
    far = (flat - mean).abs() > reach
    ranked = sorted(flat[~far].tolist())
    edges = [round(i * len(ranked) / 2**bits) for i in range(2**bits + 1)]
    book, best, error = [0.0] * 2**bits, [], math.inf
    for _ in range(20):
        bins = [ranked[low:high] for low, high in pairwise(edges)]
        book = [sum(part) / len(part) if part else old for part, old in zip(bins, book, strict=True)]
        now = sum(abs(value - place) for part, place in zip(bins, book, strict=True) for value in part)
        if now >= error:
            break
        best, error = book, now
        middles = [(low + high) / 2 for low, high in pairwise(book)]
        edges = [0, *(bisect.bisect_left(ranked, middle) for middle in middles), len(ranked)]
    return torch.tensor(sorted(best)), far.nonzero().view(-1)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "wide", "off centre"])
def test_gobo_finds_the_bins_of_a_sorted_list(kind, bits):
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(90, 300, generator=generator)
    if kind == "heavy tails":
        weight = weight / torch.rand(90, 1, generator=generator).clamp(min=0.1)
    weight = weight * (2.0 if kind == "wide" else 0.04) + (0.5 if kind == "off centre" else 0)
    wanted, far = plain_gobo(weight, bits)
    lattice = fit_gobo(weight, bits)
    assert lattice.outliers.tolist() == far.tolist()
    assert float((lattice.codebook - wanted).abs().max()) < 0.01 * float(weight.std())
    kept = torch.ones(weight.numel(), dtype=torch.bool)
    kept[far] = False
    inside = weight.view(-1)[kept]
    error, plain = (float((inside.unsqueeze(-1) - book).abs().amin(-1).mean()) for book in (lattice.codebook, wanted))
    assert error == pytest.approx(plain, rel=2e-4)


def test_gobo_of_numbers_in_half_precision_errs_no_more_than_a_sorted_list():
    weight = (torch.randn(200, 300, generator=torch.Generator().manual_seed(3)) * 0.05).bfloat16().float()
    for bits in (2, 3, 4):
        wanted, _ = plain_gobo(weight, bits)
        error, plain = (
            float((weight.unsqueeze(-1) - book).abs().amin(-1).mean())
            for book in (fit_gobo(weight, bits).codebook, wanted)
        )
        assert error < 1.001 * plain


def test_gobo_of_equal_weights_is_exact():
    for value in (0.05, 0.0, -3.1):
        weight = torch.full((40, 70), value)
        assert torch.equal(fit_gobo(weight, 3).snap(weight), weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_gobo_of_numbers_that_are_not_finite_says_so(value):
    weight = torch.randn(3, 50)
    weight[1, 7] = value
    with pytest.raises(TrainingError, match="a matrix of 3 x 50 holds weights that are not finite"):
        fit_gobo(weight, 3)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 90), st.integers(2, 8), st.sampled_from(["tensor", "row", "column", "group"]),
    st.booleans(), st.integers(0, 2**20),
)  # fmt: skip
def test_the_clip_of_least_error_is_that_of_trying_every_share(rows, width, bits, scope, symmetric, seed):
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    found = fit_absmax(weight, bits, scope=scope, group=16, symmetric=symmetric, clip="mse")
    plain = fit_absmax(weight, bits, scope=scope, group=16, symmetric=symmetric)

    def errors(lattice):
        """Squared error of what shares each scale."""
        wrong = (lattice.snap(weight) - weight).square()
        if scope == "group":
            return torch.stack([part.sum(1) for part in wrong.split(16, 1)], 1)
        sums = {"tensor": (0, 1), "row": (1,), "column": (0,)}
        return wrong.sum(sums[scope], keepdim=True)

    least = torch.stack([errors(_shrunk(weight, bits, scope, symmetric, share)) for share in SHARES]).amin(0)
    assert torch.allclose(errors(found), least, rtol=1e-4, atol=1e-7)
    assert bool((errors(found) <= errors(plain) * (1 + 1e-4) + 1e-7).all())


def _shrunk(weight, bits, scope: Scope, symmetric, share):
    """The lattice of a range that is a share of the weight's own."""
    return fit_absmax(weight * share, bits, scope=scope, group=16, symmetric=symmetric)


@pytest.mark.parametrize(
    "scheme", [Scheme("absmax", 8), Scheme("nf4", 4), Scheme("gobo", 4), Scheme("binary", 1)], ids=lambda s: s.title
)
def test_rounding_alone_is_fast(scheme):
    """100 M weights a second on two cores; a tenth of that here, where other work may run beside it."""
    big = torch.randn(2048, 2048) * 0.05
    scheme.quantize(big[:64])
    started = time.process_time()
    for _ in range(3):
        scheme.quantize(big)
    assert 3 * big.numel() / (time.process_time() - started) > 1e7
