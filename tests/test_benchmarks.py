"""What the benchmarks compare with computes what they say: the floor is the gradient, the bare loop the default run's arithmetic."""

import sys
from pathlib import Path

import pytest
import torch

from gebm_lightning import compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import value_and_grad

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import sampling  # noqa: E402
from benchmarks.__main__ import main, slower  # noqa: E402
from benchmarks.bare import Bare  # noqa: E402
from benchmarks.device import operations  # noqa: E402
from benchmarks.timing import Row, interleave, ratio  # noqa: E402


@pytest.mark.parametrize("name", sampling.PAIRS)
def test_the_floor_is_the_gradient(name):
    gebm, plain = sampling.pair(name, "cpu"), sampling.plain(name, "cpu")
    z = gebm.prior.sample(2, BlockNoise(0))
    torch.testing.assert_close(sampling.floor(plain, z)(), value_and_grad(gebm.potential(), z)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sampling.PAIRS)
def test_operations_are_counted(name):
    """Backward to the latents alone costs what forward costs."""
    plain, a = sampling.plain(name, "cpu"), torch.randn(3, 5)
    z = plain.prior.sample(2, BlockNoise(0))
    assert operations(lambda: a @ a.T) == 2 * 3 * 3 * 5
    assert operations(sampling.floor(plain, z)) == 2 * operations(lambda: plain.energy(plain.base(z))) > 1e6


@pytest.mark.parametrize("textbook", [False, True])
def test_the_bare_loop_learns(textbook):
    """Its critic tells noise from a constant, and its base goes after the data."""
    cfg = compose(["model.width=4", "data.batch_size=32", "trainer.max_base_updates=1000", "optim.base.lr=2e-3"])
    torch.manual_seed(0)
    loop = Bare(cfg, torch.full((64, 1, 8, 8), 255, dtype=torch.uint8), textbook)
    with torch.no_grad():
        before = loop.base(torch.randn(64, loop.d)).mean().item()
    for _ in range(60):
        loop.update()
    with torch.no_grad():
        fake = loop.base(torch.randn(64, loop.d))
        assert loop.energy(torch.ones(8, 1, 8, 8)).mean() < loop.energy(torch.zeros(8, 1, 8, 8)).mean()
    assert fake.mean() > before + 0.2 and torch.isfinite(loop.c)


def test_rounds_are_interleaved_and_ratios_paired():
    called = []
    seconds = interleave({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, repeats=3, warmup=1)
    assert called == ["a", "b"] * 4 and len(seconds["a"]) == 3
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


def test_limits_and_what_is_slower():
    assert Row("", 1.05, 1.1).met and not Row("", 1.2, 1.1).met and Row("", 1.2).met is None
    assert Row("", 1.4, 1.3, more=True).met and not Row("", 1.2, 1.3, more=True).met
    assert slower(Row("", 1.2), 1.0) and not slower(Row("", 1.05), 1.0) and not slower(Row("", 1.2), None)
    assert slower(Row("", 1.0, more=True), 1.2) and not slower(Row("", 1.2, more=True), 1.0)


def test_a_group_that_does_not_exist(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "speling"])
    with pytest.raises(SystemExit):
        main()
    assert "there is no group speling" in capsys.readouterr().err
