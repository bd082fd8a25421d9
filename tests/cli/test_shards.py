"""A run from tar shards, and one that was interrupted in the middle of an epoch."""

import torch

from gebm_lightning.cli import train
from gebm_lightning.data.synthetic import write_tar
from gebm_lightning.lightning.checkpoint import read_checkpoint


def test_a_resumed_run_has_the_weights_of_one_that_was_not_interrupted(command, smoke, tmp_path):
    for i, name in enumerate(("data-000", "data-001", "data-002", "val-000")):
        write_tar(tmp_path / "shards" / f"{name}.tar", range(20 * i, 20 * i + 17 + i))
    settings = [*smoke, "data=webdataset", 'data.path="shards/data-{000..002}.tar"', "data.val=shards/val-000.tar"]
    settings += [
        "data.size=8",
        "data.num_workers=2",
        "callbacks.evaluation=null",
        "features=identity",
        "data.batch_size=8",
    ]
    settings += ["callbacks.sampling=null", "trainer.max_base_updates=6"]
    status, _, err = command(train, *settings, "run_dir=whole")
    assert status == 0, err
    status, _, err = command(train, *settings, "run_dir=parts", "callbacks.checkpoint.stop_after_minutes=1e-9")
    assert status == 75, err
    status, _, err = command(train, "resume=parts", "callbacks.checkpoint.stop_after_minutes=100")
    assert status == 0, err
    whole, parts = (read_checkpoint(tmp_path / name)["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
