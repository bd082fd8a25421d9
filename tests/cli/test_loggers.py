"""What each logger leaves behind."""

from pathlib import Path

import pytest

from gebm_lightning.cli import train


def leveldb_log(content):
    """The records of a LevelDB log with wandb's 7-byte header: 32 KiB blocks of (crc, length, type, data) chunks."""
    assert content[:4] == b":W&B"
    position, record = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_wandb_leaves_a_readable_offline_run(command, smoke, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    status, out, err = command(train, *smoke, "logger=wandb", "logger.offline=true", "name=toy")
    assert status == 0, err
    (path,) = Path(out.strip().splitlines()[-1]).glob("wandb/offline-run-*/run-*.wandb")
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # wandb.finish may return before its service has written the file; the end of a process waits for it
    keys, project = set(), None
    for data in leveldb_log(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        project = record.run.project or project
        keys |= {item.key or "/".join(item.nested_key) for item in record.history.item}
    assert project == "toy"
    assert {"train/kale", "val/eval_donsker_varadhan", "final/test/relative_fid/equilibrium"} <= keys
    assert any(key.startswith("images/grid") for key in keys)


def test_tensorboard_gets_curves_and_pictures(command, smoke):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    status, out, err = command(train, *smoke, "logger=tensorboard")
    assert status == 0, err
    events = reader.EventAccumulator(str(Path(out.strip().splitlines()[-1]) / "tensorboard"))
    events.Reload()
    assert "train/kale" in events.Tags()["scalars"] and "images/strip" in events.Tags()["images"]
    assert [e.step for e in events.Scalars("train/kale")] == [2, 4]
