"""Position codes against their formulas, number by number."""

import cmath
import math

import pytest
import torch

from sam2.position import rotary_table, rotate, sine_grid, sine_time

CPU = torch.device("cpu")
NOISE = 1e-5


@pytest.fixture(autouse=True)
def no_table_yet():
    sine_grid.cache_clear()
    rotary_table.cache_clear()


@pytest.mark.parametrize("height, width", [(3, 3), (2, 5), (5, 2)])
def test_a_grids_code_is_a_sine_and_a_cosine_for_each_pair_of_channels_first_y_then_x(height, width):
    code = sine_grid(8, height, width, CPU)
    assert code.shape == (1, 8, height, width)
    for row in range(height):
        for column in range(width):
            expected = []
            for place in ((row + 1) / height, (column + 1) / width):
                for pair in range(2):
                    angle = 2 * math.pi * place / 10000 ** (pair / 2)
                    expected += [math.sin(angle), math.cos(angle)]
            assert code[0, :, row, column].tolist() == pytest.approx(expected, abs=NOISE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.int64])
def test_times_code_is_sines_then_cosines_in_float32_whatever_the_time_comes_in(dtype):
    code = sine_time(torch.tensor([[0, 3], [2000, 7]], dtype=dtype), 8)
    assert code.shape == (2, 2, 8) and code.dtype is torch.float32
    for index, time in (((0, 0), 0), ((0, 1), 3), ((1, 0), 2000), ((1, 1), 7)):
        angles = [time / 10000 ** (pair / 2) for pair in (0, 0, 1, 1)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert code[index].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_first_half_of_the_pairs_turns_with_x_and_the_second_with_y():
    side = 3
    table = rotary_table(8, side, CPU)
    assert table.shape == (side * side, 4) and table.dtype is torch.complex64
    for cell in range(side * side):
        y, x = divmod(cell, side)
        expected = [cmath.rect(1.0, place / 10000 ** (pair / 2)) for place in (x, y) for pair in range(2)]
        assert table[cell].tolist() == pytest.approx(expected, abs=NOISE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbouring_channels_are_turned_together_and_computed_in_float32(dtype):
    table = rotary_table(8, 2, CPU)
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    turned = rotate(x, table)
    assert turned.shape == x.shape and turned.dtype is dtype
    real, imaginary = x.float()[..., 0::2], x.float()[..., 1::2]
    expected = torch.empty(3, 4, 8)
    expected[..., 0::2] = real * table.real - imaginary * table.imag
    expected[..., 1::2] = real * table.imag + imaginary * table.real
    assert (turned.float() - expected.to(dtype).float()).abs().max() < NOISE


@pytest.mark.parametrize("table", [lambda: sine_grid(8, 2, 2, CPU), lambda: rotary_table(8, 2, CPU).real])
def test_a_table_that_was_made_while_inferring_can_be_trained_with(table):
    with torch.inference_mode():
        table()
    weight = torch.ones((), requires_grad=True)
    (weight * table()).sum().backward()
    assert weight.grad is not None and not table().requires_grad
