"""As many chains side by side as fit: of a GPU that is made up, as none is needed to divide."""

from types import SimpleNamespace

import pytest
import torch

from gebm_lightning import UserError, build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import ULA, LatentSampler, memory

GIB = 2**30


@pytest.mark.parametrize(
    ("block", "free", "chains"),
    [
        (GIB, 16 * GIB, 512),
        (GIB, 17 * GIB, 512),
        (GIB, GIB, 64),
        (1, 80 * GIB, memory.AT_MOST),
        (0, GIB, memory.AT_MOST),
    ],
)
def test_half_of_the_free_memory_is_filled(block, free, chains, monkeypatch):
    model = build(compose(["model=mlp", "data=ring"])).eval()
    gpu = SimpleNamespace(
        log_partition=SimpleNamespace(device=torch.device("cuda")), prior=model.prior, sample_labels=model.sample_labels
    )
    potential = SimpleNamespace(gebm=gpu, given=lambda y: model.potential())
    measured = []
    monkeypatch.setattr(memory, "peak", lambda device, work: measured.append(work()) or block)
    monkeypatch.setattr(memory, "free", lambda device: free)
    assert memory.chains_that_fit(potential) == chains
    assert measured[0][1].shape[0] == 64, "64 chains were to be tried"


def test_it_changes_nothing_but_memory():
    model = build(compose(["model=mlp", "data=ring"])).eval()
    one, other = (
        LatentSampler(ULA(1e-2), num_steps=3, chunk=c).refine(model, 600, BlockNoise(0)) for c in (64, "auto")
    )
    torch.testing.assert_close(one.x, other.x, rtol=1e-4, atol=1e-5)


def test_of_a_large_chunk_only_the_watched_chains_are_kept(monkeypatch):
    """A view of 64 chains would hold the memory of all."""
    model = build(compose(["model=mlp", "data=ring"])).eval()
    stack, held = torch.stack, []

    def spy(parts, *rest):
        held.extend(part.untyped_storage().nbytes() / part.nbytes for part in parts if part.shape[:1] == (64,))
        return stack(parts, *rest)

    monkeypatch.setattr(torch, "stack", spy)
    LatentSampler(ULA(1e-2), num_steps=5, chunk=640).refine(model, 640, BlockNoise(0))
    assert held == [1.0] * 5


@pytest.mark.parametrize("chunk", ["all", 0, 1.5, None])
def test_other_words_are_refused(chunk):
    with pytest.raises(UserError, match=r"sampler\.chunk"):
        LatentSampler(ULA(1e-2), chunk=chunk)
