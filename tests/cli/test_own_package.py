"""A user's own package, its configs outside of this one: found by every command, and trusted by name alone."""

from pathlib import Path

import pytest

from gebm_lightning.cli import evaluate, sample, train

KERNEL = "from gebm_lightning.samplers import ULA\n\n\nclass Mine(ULA):\n    pass\n"
CONFIG = "defaults: [ula, _self_]\nkernel: {_target_: their_kernels.Mine, step_size: 0.01}\n"
SMALL = ["data=ring", "callbacks.evaluation=null", "callbacks.sampling=null", "trainer.accelerator=cpu"]


@pytest.fixture
def own(command, tmp_path, monkeypatch):
    """`command`, in a folder with a kernel and its config."""
    (tmp_path / "their_kernels.py").write_text(KERNEL)
    (tmp_path / "conf" / "sampler").mkdir(parents=True)
    for name in ("mine", "ula"):
        (tmp_path / "conf" / "sampler" / f"{name}.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(str(tmp_path))
    return command


@pytest.mark.slow
def test_a_sampler_of_ones_own_from_training_to_resumption(own, tmp_path):
    trained = ["--config-dir=conf", "sampler=mine", *SMALL]
    short = "callbacks.checkpoint.stop_after_minutes=1e-9"
    status, _, err = own(train, *trained, short, "callbacks.checkpoint.every_n_base_updates=1")
    assert status == 75, err
    run = Path(err.strip().rsplit("resume=", 1)[1])
    assert "their_kernels.Mine" in (run / "config.yaml").read_text()
    small = ["num_samples=8", f"ckpt={run}", "out=samples.npz"]
    status, _, err = own(sample, *small)
    assert status == 1 and "their_kernels.Mine" in err and not (tmp_path / "samples.npz").exists()
    status, _, err = own(sample, *small, "trust=[their_kernels]")
    assert status == 0 and (tmp_path / "samples.npz").exists(), err
    # The same config, by either way of naming its folder.
    again = [short, "callbacks.checkpoint.every_n_base_updates=1", "resume=auto", "trust=[their_kernels]"]
    for where in (trained[:1], [f"hydra.searchpath=[file://{tmp_path}/conf]"]):
        status, _, err = own(train, *where, *trained[1:], *again)
        assert status == 75 and "a new one begins" not in err and str(run) in err, err


def test_a_name_of_the_package_is_the_packages(own):
    status, out, err = own(train, "--config-dir=conf", "sampler=ula", "--cfg=job", "--package=sampler.kernel")
    assert status == 0 and "gebm_lightning.samplers.ULA" in out, err


def test_a_sampler_of_ones_own_in_a_comparison(own, tmp_path):
    status, out, err = own(train, *SMALL, "trainer.max_base_updates=2")
    assert status == 0, err
    small = ["num_samples=64", "max_real=64", "scores.kid_subsets=2", "scores.kid_subset_size=16", "splits=[test]"]
    given = [f"ckpt={out.split()[-1]}", "+sampler@methods.mine=mine", "compare=[base,mine]", "out=compared.json"]
    status, _, err = own(evaluate, "--config-dir=conf", *given, *small, "methods.mine.num_steps=2")
    assert status == 0 and "mine" in (tmp_path / "compared.json").read_text(), err
