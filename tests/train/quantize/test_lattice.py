"""Rounding: formulas against plain code, bounds of the error, bits, and the papers' relations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.train.quantize.absmax import fit_absmax
from potstill.train.quantize.codebook import NF4, fit_binary, fit_gobo, fit_nf4
from potstill.train.quantize.gptq import gptq_weight
from potstill.train.quantize.lattice import onto
from potstill.train.quantize.packing import describe, pack_bits, restore, stored_bits, stored_tensors, unpack_bits


@pytest.fixture
def weight():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(48, 160, generator=generator) * torch.rand(48, 1, generator=generator) * 0.1


def error(weight, lattice):
    return float((lattice.snap(weight) - weight).norm() / weight.norm())


def test_int8_a_row_is_the_formula(weight):
    scale = weight.abs().amax(1, keepdim=True) / 127
    scale = scale.half().float() if bool((scale.half() > 1e-4).all()) else scale
    wanted = torch.round(weight / scale).clamp(-127, 127) * scale
    assert torch.equal(fit_absmax(weight, 8).snap(weight), wanted)


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_no_weight_moves_further_than_half_a_step(bits, weight):
    for scope in ("tensor", "row", "column", "group"):
        for symmetric in (True, False):
            lattice = fit_absmax(weight, bits, scope=scope, group=50, symmetric=symmetric)
            step = lattice.columns(0, 160, 160).scale.expand(48, 160)
            # A scale in half precision may fall short of the largest weight by 2^-11 of it.
            assert bool(((lattice.snap(weight) - weight).abs() <= step * (0.5 + 2**bits * 2**-11)).all()), (
                scope,
                symmetric,
            )


def test_finer_scopes_err_less_and_a_zero_point_helps_a_skewed_matrix(weight):
    tensor, row, group = (error(weight, fit_absmax(weight, 4, scope=s, group=32)) for s in ("tensor", "row", "group"))
    assert group < row < tensor
    skewed = weight.abs()
    assert error(skewed, fit_absmax(skewed, 4, symmetric=False)) < 0.6 * error(skewed, fit_absmax(skewed, 4))
    assert error(weight, fit_absmax(weight, 3, clip="mse")) < error(weight, fit_absmax(weight, 3))


def test_a_pruned_weight_stays_zero_and_a_row_of_zeros_is_no_division_by_zero(weight):
    weight[:, ::3] = 0
    weight[5] = 0
    for lattice in (fit_absmax(weight, 8), fit_absmax(weight, 4, scope="group", symmetric=False), fit_nf4(weight)):
        snapped = lattice.snap(weight)
        assert bool((snapped[weight == 0] == 0).all())
        assert bool(torch.isfinite(snapped).all())


def test_nf4_is_that_of_bitsandbytes(weight):
    functional = pytest.importorskip("bitsandbytes.functional")
    big = torch.randn(64, 256)
    packed, state = functional.quantize_4bit(big, blocksize=64, quant_type="nf4", compress_statistics=False)
    theirs = functional.dequantize_4bit(packed, state)
    lattice = fit_nf4(big, double=False)
    # Theirs keeps scales in single precision.
    exact = lattice.__class__(4, big.view(64, 4, 64).abs().amax(2), codebook=NF4, group=64)
    assert torch.allclose(exact.snap(big), theirs, atol=1e-6)
    assert error(big, lattice) == pytest.approx(error(big, exact), rel=1e-3)


def test_double_quantisation_saves_a_third_of_a_bit_and_hardly_errs_more():
    big = torch.randn(256, 1024)
    plain, double = (onto(fit_nf4(big, double=value), big, "nf4") for value in (False, True))
    assert stored_bits(plain) == pytest.approx(4.25, abs=0.01)
    assert stored_bits(double) == pytest.approx(4.127, abs=0.01)
    assert error(big, double.lattice) < 1.02 * error(big, plain.lattice)


def test_gobo_keeps_outliers_and_beats_even_spacing():
    big = torch.randn(256, 512) * 0.05
    big[3, 7], big[100, 200] = 3.0, -2.5
    lattice = fit_gobo(big, 4)
    quantised = onto(lattice, big, "gobo")
    values = quantised.values()
    assert float(values[3, 7]) == 3.0
    assert float(values[100, 200]) == -2.5
    share = len(lattice.outliers) / big.numel()
    assert 0 < share < 0.02
    assert error(big, lattice) < 0.5 * error(big, fit_absmax(big, 4, scope="tensor"))
    assert len(lattice.codebook) == 16


def test_one_bit_is_the_mean_of_each_row(weight):
    wanted = weight.sign() * weight.abs().mean(1, keepdim=True).half().float()
    assert torch.allclose(fit_binary(weight).snap(weight), wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=70))
def test_packed_bits_come_back(bits, codes):
    codes = torch.tensor([code % 2**bits for code in codes], dtype=torch.uint8)
    packed = pack_bits(codes, bits)
    assert packed.numel() == -(-len(codes) * bits // 8)
    assert torch.equal(unpack_bits(packed, bits, len(codes)), codes)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 70),
    st.sampled_from([3, 4, 8]),
    st.sampled_from(["row", "group", "column"]),
    st.booleans(),
)
def test_any_shape_is_stored_exactly(rows, width, bits, scope, symmetric):
    weight = torch.randn(rows, width)
    ours = onto(fit_absmax(weight, bits, scope=scope, group=16, symmetric=symmetric), weight, "x")
    assert torch.equal(restore(stored_tensors(ours), describe(ours), "x").values(), ours.values())


@pytest.mark.parametrize(
    "fit", [lambda w: fit_absmax(w, 3, scope="group", group=32), fit_nf4, lambda w: fit_gobo(w, 3)]
)
def test_gptq_loses_less_of_the_output_than_plain_rounding(fit):
    torch.manual_seed(0)
    # Inputs that go together are what GPTQ lives on.
    inputs = torch.randn(800, 24) @ torch.randn(24, 96) + 0.3 * torch.randn(800, 96)
    weight = torch.randn(64, 96) * 0.1
    lattice = fit(weight)
    ours = gptq_weight(weight, inputs.T @ inputs, lattice, "gptq")
    wanted = inputs @ weight.T
    plain = float((inputs @ lattice.snap(weight).T - wanted).norm())
    assert float((inputs @ ours.values().T - wanted).norm()) < 0.75 * plain


def test_gptq_leaves_pruned_weights_at_zero():
    weight, inputs = torch.randn(16, 32), torch.randn(200, 32)
    kept = torch.rand(16, 32) > 0.5
    ours = gptq_weight(weight * kept, inputs.T @ inputs, fit_absmax(weight * kept, 4), "gptq", kept=kept)
    assert bool((ours.values()[~kept] == 0).all())
