"""Checkpoints: what they hold, which are kept, and what becomes of damaged ones."""

import random
import signal
import zipfile

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from players import fit, make

from gebm_lightning import UserError
from gebm_lightning.callbacks import BaseUpdateCallback, Checkpoint
from gebm_lightning.callbacks.checkpoint import TIME_LIMIT
from gebm_lightning.lightning import generators
from gebm_lightning.lightning.checkpoint import find_checkpoint, read_checkpoint


def train(folder, updates, *callbacks, path=None):
    module, data = make(["energy_schedule.num=1"])
    fit(module, data, updates, callbacks, path, folder)
    return module


def updates(path):
    return torch.load(path, weights_only=True)["gebm_lightning"]["base_updates"]


def test_the_last_two_and_every_nth_are_kept(tmp_path):
    train(tmp_path, 7, Checkpoint(every_n_base_updates=2, keep_every=3))
    folder = tmp_path / "checkpoints"
    found = {p.name: updates(p) for p in folder.iterdir()}
    assert found == {"last.ckpt": 7, "previous.ckpt": 6, "update-3.ckpt": 3, "update-6.ckpt": 6}


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refuse)
    train(tmp_path, 4, Checkpoint(every_n_base_updates=2))
    assert {p.name: updates(p) for p in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt": 4, "previous.ckpt": 2}


def test_a_signal_while_the_last_checkpoint_is_written_ends_the_run(tmp_path):
    class Late(Checkpoint):
        def _save(self, trainer, module):
            super()._save(trainer, module)
            if module.base_updates == 3:
                signal.raise_signal(signal.SIGTERM)

    assert train(tmp_path, 3, Late(every_n_base_updates=None)).interrupted == signal.SIGTERM


def test_any_changed_bit_of_the_directory_is_damage(tmp_path):
    train(tmp_path, 2, Checkpoint(every_n_base_updates=1))
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        broken = bytearray(content)
        broken[len(content) - 1 - rng.randrange(3000)] ^= 1 << rng.randrange(8)
        last.write_bytes(broken)
        read_checkpoint(tmp_path)


def test_a_part_that_is_called_a_directory_is_damage(tmp_path):
    """One bit of a part's attributes, which no checksum covers: torch would hand out memory that nobody wrote."""
    train(tmp_path, 1, Checkpoint(every_n_base_updates=1))
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    with zipfile.ZipFile(last) as archive:
        at, parts = archive.start_dir, archive.infolist()
    for part in parts:
        broken = bytearray(content)
        broken[at + 38] ^= 0x10
        last.write_bytes(broken)
        with pytest.raises(UserError, match="is said to be a directory"):
            read_checkpoint(tmp_path)
        at += 46 + len(part.filename.encode()) + len(part.extra) + len(part.comment)


@pytest.mark.parametrize("damage", ["byte", "half", "empty", "text"])
def test_a_damaged_newest_one_gives_way_to_the_one_before(tmp_path, damage, capsys):
    train(tmp_path, 6, Checkpoint(every_n_base_updates=2))
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "byte":
        # Inside a weight: nothing but a checksum can tell.
        content[len(content) // 2] ^= 1
    last.write_bytes({"half": content[: len(content) // 2], "empty": b"", "text": b"hello"}.get(damage, content))
    assert read_checkpoint(tmp_path)["gebm_lightning"]["base_updates"] == 4
    assert "going back to" in capsys.readouterr().err
    assert find_checkpoint(tmp_path).name == "previous.ckpt"
    (tmp_path / "checkpoints" / "previous.ckpt").unlink()
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        read_checkpoint(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    train(tmp_path, 2, Checkpoint(every_n_base_updates=1))
    before = {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()}

    def full(self, path, *args, **kwargs):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    with pytest.raises(
        UserError, match="cannot be written: No space left on device; make room, then go on with resume="
    ):
        train(tmp_path, 3, Checkpoint(every_n_base_updates=1), path=tmp_path / "checkpoints" / "last.ckpt")
    assert {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()} == before


def test_the_best_by_a_metric_is_kept(tmp_path):
    class Judge(BaseUpdateCallback):
        def on_base_update(self, trainer, module):
            module.evaluated = {"val/score": abs(module.base_updates - 4.0)}
            module.evaluated_at = module.base_updates

    train(tmp_path, 7, Judge(2), Checkpoint(best_metric="val/score"))
    assert updates(tmp_path / "checkpoints" / "best.ckpt") == 4
    path = tmp_path / "checkpoints" / "last.ckpt"
    train(tmp_path, 9, Judge(2), Checkpoint(best_metric="val/score"), path=path)
    assert updates(tmp_path / "checkpoints" / "best.ckpt") == 4
    with pytest.raises(UserError, match=r"best_metric=no.*val/score"):
        train(tmp_path / "other", 2, Judge(1), Checkpoint(best_metric="no"))


def test_the_time_limit_ends_a_run_after_a_checkpoint(tmp_path):
    module = train(tmp_path, 10_000, Checkpoint(stop_after_minutes=0.02))
    assert module.interrupted == TIME_LIMIT and 0 < module.base_updates < 10_000
    assert updates(tmp_path / "checkpoints" / "last.ckpt") == module.base_updates


def test_all_generators_come_back():
    def draw():
        return [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random(), random.gauss(0, 1)]  # noqa: NPY002

    draw()
    states = generators.collect()
    first = draw()
    draw()
    generators.restore(states)
    assert draw() == first
    generators.restore([])


def test_a_resumed_run_draws_what_the_unbroken_one_draws(tmp_path):
    class Draw(pl.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, *_):
            self.seen.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002

    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    whole, first, second = Draw(), Draw(), Draw()
    train(tmp_path / "a", 6, whole)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    train(tmp_path / "b", 3, first, Checkpoint())
    torch.manual_seed(9)
    train(tmp_path / "b", 6, second, path=tmp_path / "b" / "checkpoints" / "last.ckpt")
    assert first.seen + second.seen == whole.seen
