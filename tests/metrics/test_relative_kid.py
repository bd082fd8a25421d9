"""The three-sample KID test: its statistic by loops, its size under the null, its power, and that order matters."""

import math

import torch

from gebm_lightning.metrics.relative_kid import kid_rows, relative_kid_test

F = 5


def draw(n, shift, seed):
    return torch.randn(n, F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def p_value(n, new, old, seed):
    real = draw(n, 0.0, 3 * seed)
    return relative_kid_test(kid_rows(draw(n, new, 3 * seed + 1), real), kid_rows(draw(n, old, 3 * seed + 2), real))[1]


def test_difference_and_jackknife_by_loops():
    n = 12
    real, new, old = draw(n, 0, 0), draw(n, 0.3, 1), draw(n, 0.1, 2)

    def k(a, b):
        return ((a @ b).item() / F + 1) ** 3

    def difference(index):
        total = 0.0
        for i in index:
            for j in index:
                if i != j:
                    total += k(new[i], new[j]) - k(real[i], new[j]) - k(real[j], new[i])
                    total -= k(old[i], old[j]) - k(real[i], old[j]) - k(real[j], old[i])
        return total / (len(index) * (len(index) - 1))

    whole = difference(range(n))
    left_out = [difference([j for j in range(n) if j != i]) for i in range(n)]
    variance = (n - 1) / n * sum((d - sum(left_out) / n) ** 2 for d in left_out)
    expected = 0.5 * (1 + math.erf(whole / math.sqrt(variance) / math.sqrt(2)))
    result = relative_kid_test(kid_rows(new, real), kid_rows(old, real))
    torch.testing.assert_close(torch.tensor(result), torch.tensor((whole, expected)), rtol=1e-9, atol=1e-12)


def test_p_values_are_uniform_when_both_are_equally_good():
    values = torch.tensor([p_value(200, 0.3, 0.3, seed) for seed in range(400)])
    # Under the null each tail's share is binomial: 4.5 sigma, with .01 for the jackknife at n = 200.
    for q in (0.1, 0.5, 0.9):
        assert abs((values < q).float().mean().item() - q) < 4.5 * math.sqrt(q * (1 - q) / 400) + 0.01


def test_the_better_sample_is_told():
    assert p_value(500, 0.1, 0.6, 7) < 1e-3
    assert p_value(500, 0.6, 0.1, 7) > 1 - 1e-3


def test_a_sample_is_not_better_than_itself():
    rows = kid_rows(draw(50, 0.2, 1), draw(50, 0, 0))
    assert relative_kid_test(rows, rows) == (0.0, 0.5)
