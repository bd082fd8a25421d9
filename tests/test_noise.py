"""Samples depend on their index and the seed alone."""

import torch

from gebm_lightning.noise import BlockNoise, rand, randn, stable_seed


def test_rows_do_not_depend_on_chunks():
    whole = BlockNoise(3)
    first, second = randn((200, 5), whole), rand((200,), whole)
    for start in (0, 1, 63, 64, 100, 128, 190):
        part = BlockNoise(3).shifted(start)
        n = min(64, 200 - start)
        assert torch.equal(randn((n, 5), part), first[start : start + n])
        assert torch.equal(rand((n,), part), second[start : start + n])


def test_shifts_add_up():
    a = BlockNoise(1).shifted(50).shifted(100).shifted(7)
    assert torch.equal(randn((30, 2), a), randn((200, 2), BlockNoise(1))[157:187])


def test_seeds_streams_blocks_and_draws_differ():
    noise = BlockNoise(0)
    draws = [randn((64, 2), n) for n in (noise, noise, BlockNoise(1), BlockNoise(0, 1), BlockNoise(0, 0, "other"))]
    for i, a in enumerate(draws):
        assert all(not torch.equal(a, b) for b in draws[:i])


def test_normal_and_uniform_moments():
    z, u = (
        randn((100_000, 1), BlockNoise(0), dtype=torch.float64),
        rand((100_000, 1), BlockNoise(0), dtype=torch.float64),
    )
    assert abs(z.mean()) < 4.5 / 100_000**0.5 and abs(z.var() - 1) < 4.5 * (2 / 100_000) ** 0.5
    assert abs(u.mean() - 0.5) < 4.5 * (1 / 12 / 100_000) ** 0.5 and u.min() >= 0 and u.max() < 1


def test_seeds_are_the_same_in_every_process():
    assert (
        stable_seed(0, "networks")
        == int.from_bytes(__import__("hashlib").sha256(b"0/networks").digest()[:8], "big") >> 1
    )
