"""Small models and runs shared by the tests."""

import os
import socket
import tempfile
from types import SimpleNamespace

os.environ.setdefault("WANDB_MODE", "offline")
os.environ["GEBM_CACHE"] = tempfile.mkdtemp(prefix="gebm-cache-")

import pytest
import torch

from gebm_lightning import build, compose

torch.set_num_threads(1)

SMOKE = [
    "trainer.max_base_updates=4",
    "trainer.accelerator=cpu",
    "model.width=4",
    "data.batch_size=16",
    "callbacks.monitor.bounds_every=2",
    "callbacks.monitor.every_n_base_updates=2",
    "callbacks.sampling.num_samples=8",
    "callbacks.sampling.strip_steps=[0,2]",
    "callbacks.evaluation.num_samples=64",
    "callbacks.evaluation.equilibrium.pool=128",
    "callbacks.evaluation.curve_steps=[1,2]",
    "sampler.num_steps=2",
]


@pytest.fixture
def smoke() -> list[str]:
    """Overrides that make a training run a matter of a second."""
    return list(SMOKE)


@pytest.fixture
def gebm():
    """A small untrained DCGAN pair with batch norm in both networks and spectral norm in the energy."""
    return build(
        compose(["model.width=4", "model.latent_dim=6", "model.energy.norm=batch", "model.energy.spectral=true"])
    )


@pytest.fixture
def wandb_server(monkeypatch):
    """What wandb would be sent of a dashboard; nothing may be connected to."""
    interface = pytest.importorskip("wandb_workspaces.workspaces.interface")
    sent = []

    def upsert(view):
        sent.append(view)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    def refuse(*_):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(interface.internal, "upsert_view2", upsert)
    monkeypatch.setattr(interface, "wandb", SimpleNamespace(Api=lambda: None, termlog=lambda text: None))
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.test")
    return sent
