"""The alternating module: who gets gradients, what counts, what resumes, what is refused."""

import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from players import fit, make

from gebm_lightning import UserError, compose
from gebm_lightning.callbacks import EMA, BaseUpdateCallback, Checkpoint, NonFiniteGuard
from gebm_lightning.lightning import GEBMModule, PaperSchedule, make_trainer
from gebm_lightning.lightning.checkpoint import read_checkpoint
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import ULA, LatentSampler


class Spy(pl.Callback):
    """Records, after every batch, the counters, and at every backward, who has gradients."""

    def __init__(self):
        self.counts, self.touched = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        module = pl_module
        self.touched.append(
            (
                optimizer is trainer.optimizers[0],
                any(p.grad is not None for p in module.critic.parameters())
                or module.gebm.log_partition.grad is not None,
                any(p.grad is not None for p in module.gebm.base.parameters()),
            )
        )

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.counts.append((pl_module.steps, pl_module.base_updates))
        assert all(p.grad is None for p in pl_module.parameters())


@pytest.mark.parametrize("objective", ["kale", "donsker_varadhan"])
def test_each_step_leaves_gradients_on_its_own_player_only(objective):
    spy = Spy()
    fit(*make([f"objective={objective}"]), callbacks=[spy])
    assert len(spy.touched) == 3 * 5 + 3
    assert all((energy, not energy) == (has_energy, has_base) for energy, has_energy, has_base in spy.touched)


def test_five_energy_updates_come_before_each_base_update():
    spy = Spy()
    fit(*make(), callbacks=[spy])
    assert [base for _, base in spy.counts] == [0] * 4 + [1] * 5 + [2] * 5 + [3]
    assert [step for step, _ in spy.counts] == list(range(1, 16))


def test_the_papers_schedule():
    schedule = PaperSchedule(5, 100, 500)
    assert [schedule(k) for k in (0, 1, 2, 499, 500, 501, 1000)] == [100, 5, 5, 5, 100, 5, 100]
    spy = Spy()
    fit(*make(schedule=PaperSchedule(1, 4, 2)), callbacks=[spy])
    assert [base for _, base in spy.counts] == [0, 0, 0, 1, 2, 2, 2, 2, 3]
    assert [s for s, b in spy.counts if b > 0 and (s - 1, b - 1) in spy.counts] == [4, 5, 9]


@pytest.mark.parametrize(("mode", "moves"), [("energy", "critic"), ("base", "base"), ("both", "both")])
def test_train_modes(mode, moves):
    module, data = make(["model.energy.norm=batch", "model.energy.spectral=true"], train_mode=mode)
    before = {
        name: copy.deepcopy(net.state_dict()) for name, net in (("critic", module.critic), ("base", module.gebm.base))
    }
    fit(module, data, 4)
    assert module.base_updates == 4 and module.steps == (20 if mode == "both" else 4)
    for name, net in (("critic", module.critic), ("base", module.gebm.base)):
        same = all(torch.equal(a, b) for a, b in zip(before[name].values(), net.state_dict().values(), strict=True))
        assert same == (moves not in (name, "both"))


def test_c_starts_at_the_monte_carlo_log_partition():
    seen = []

    class First(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append((pl_module.gebm.log_partition.item(), -math.log(4096)))
            with torch.no_grad():
                noise = BlockNoise(0, stream="train/initial")
                e = torch.cat([pl_module.gebm.energy(pl_module.gebm.sample_base(512, noise)) for _ in range(8)])
            seen.append(torch.logsumexp(-e, 0).item() - math.log(4096))

    fit(*make(), 1, [First()])
    assert seen[0][0] == pytest.approx(seen[1], abs=1e-4)


def test_one_update_is_the_plain_loop():
    """One energy update by hand, with torch alone, gives the same parameters bit for bit."""
    module, data = make(["optim.energy_clip_norm=0.5"], "energy")
    twin = copy.deepcopy(module)
    fit(module, data, 1)
    twin.gebm.base.eval()
    _, data = make()
    from gebm_lightning.gebm import estimate_log_partition

    twin.gebm.log_partition.data.copy_(estimate_log_partition(twin.gebm, BlockNoise(0, stream="train/initial")))
    x = next(iter(data.train_dataloader())).x / 127.5 - 1
    noise = BlockNoise(0, stream="train/0/energy")
    with torch.no_grad():
        y = twin.gebm.base(twin.gebm.prior.sample(16, noise))
    critic, c = twin.critic, twin.gebm.log_partition
    optimizer = torch.optim.Adam([{"params": critic.parameters()}, {"params": [c], "lr": 1e-2}], 1e-3, (0.5, 0.9))
    alpha = torch.cat([torch.rand(64, 1, 1, 1, generator=noise._block(0))])[:16]
    middle = (alpha * x + (1 - alpha) * y).requires_grad_()
    (slope,) = torch.autograd.grad(critic(middle).sum(), middle, create_graph=True)
    weight = compose().objective.penalties.gradient.weight
    e_base = critic(y)
    loss = critic(x).mean() + torch.exp(-e_base - c.detach()).mean() + weight * slope.square().sum((1, 2, 3)).mean()
    loss.backward()
    c.grad = torch.exp(c.detach() - (torch.logsumexp(-e_base.detach(), 0) - math.log(16))) - 1
    torch.nn.utils.clip_grad_norm_(critic.parameters(), 0.5)
    optimizer.step()
    for (name, a), b in zip(module.gebm.named_parameters(), twin.gebm.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_several_base_samples_for_each_real_one():
    """Both losses see them, each label as often as in the batch; a penalty sees one of them for each real sample."""
    module, data = make(["model.num_classes=10", "energy_schedule.num=1"])
    module.base_samples = 3
    seen = []

    class Watched(type(module.objective)):
        def energy_loss(self, e_real, e_base, log_partition):
            seen.append(("energy", len(e_real), len(e_base)))
            return super().energy_loss(e_real, e_base, log_partition)

        def base_loss(self, e_base, log_partition, e_real=None):
            seen.append(("base", len(e_base)))
            return super().base_loss(e_base, log_partition, e_real)

        def negatives(self, gebm, x_real, generator, y, state):
            seen.append(("labels", y.tolist()))
            return super().negatives(gebm, x_real, generator, y, state)

    def penalty(critic, x_real, x_base, generator):
        seen.append(("penalty", len(x_real), len(x_base)))
        return critic(x_base).sum() * 0

    module.objective = Watched(penalties={"spy": penalty})
    fit(module, data, 1)
    (_, labels), *rest = seen
    assert rest == [("energy", 16, 48), ("penalty", 16, 16), ("base", 48)]
    y = next(iter(make()[1].train_dataloader())).y
    assert labels == [int(label) for label in y for _ in range(3)]


@pytest.mark.parametrize("number", [0, -1, 1.5])
def test_a_number_of_base_samples_that_is_none(number):
    with pytest.raises(UserError, match="base_samples"):
        GEBMModule(None, None, None, None, None, base_samples=number)


def test_schedulers_of_both_players_step_once_each_base_update():
    module, data = make()
    trainer = fit(module, data, 3)
    factor = 1 + (0.02 - 1) * 3 / 3
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx(
        [factor * compose().optim.energy.lr, factor * compose().optim.base.lr]
    )


def test_ema_follows_its_formula_and_copies_buffers():
    history = []

    class Record(BaseUpdateCallback):
        def on_base_update(self, trainer, module):
            history.append([p.detach().clone() for p in module.gebm.base.parameters()])

    module, data = make()
    fit(module, data, 4, [Record(1), EMA(decay=0.3)])
    for i, averaged in enumerate(module.ema.module.parameters()):
        expected = history[0][i]
        for k, parameters in enumerate(history[1:], 2):
            decay = min(0.3, (1 + k) / (10 + k))
            expected = decay * expected + (1 - decay) * parameters[i]
        torch.testing.assert_close(averaged, expected, rtol=1e-5, atol=1e-7)
    for a, b in zip(module.ema.module.buffers(), module.gebm.base.buffers(), strict=True):
        assert torch.equal(a, b)


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


PERSISTENT = [
    "objective=contrastive_divergence",
    "objective.start=replay",
    "objective.base_by=kale",
    "objective.replay_size=40",
]


@pytest.mark.parametrize(("batch", "objective"), [(None, []), (2, []), (2, PERSISTENT)])
def test_a_resumed_run_is_the_unbroken_one(tmp_path, batch, objective):
    overrides = ["trainer.max_base_updates=6", *objective]

    class StopInside(pl.Callback):
        """Ends the run between two base updates, after `batch` energy updates."""

        def on_train_batch_end(self, trainer, pl_module, *_):
            if batch is not None and pl_module.steps == 15 + batch:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")
                trainer.should_stop = True

    whole, data = make(overrides)
    fit(whole, data, 6, [EMA(0.9)], tmp_path=tmp_path)
    first, data = make(overrides)
    fit(first, data, 3 if batch is None else 6, [EMA(0.9), StopInside(), Checkpoint()], tmp_path=tmp_path)
    path = tmp_path / ("checkpoints/last.ckpt" if batch is None else "mid.ckpt")
    second, data = make([*overrides, "seed=0"])
    torch.manual_seed(99)
    fit(second, data, 6, [EMA(0.9)], path, tmp_path)
    a, b = state(whole), state(second)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert (second.steps, second.base_updates) == (whole.steps, whole.base_updates)


def test_the_checkpoint_holds_plain_containers_and_a_format_version(tmp_path):
    module, data = make()
    fit(module, data, 2, [Checkpoint()], tmp_path=tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint["gebm_lightning"]["format_version"] == 1 and checkpoint["gebm_lightning"]["base_updates"] == 2

    def check(value):
        if isinstance(value, dict):
            assert all(isinstance(k, (str, int)) for k in value)
            [check(v) for v in value.values()]
        elif isinstance(value, (list, tuple)):
            [check(v) for v in value]
        else:
            assert value is None or type(value) in (int, float, bool, str, torch.Tensor), type(value)

    check(dict(checkpoint))


def test_sampling_inside_fit_changes_nothing():
    class Sample(BaseUpdateCallback):
        def on_base_update(self, trainer, module):
            LatentSampler(ULA(1e-2), num_steps=2).refine(module.gebm, 8, BlockNoise(0))
            assert all(p.grad is None for p in module.parameters())

    norm = ["model.energy.norm=batch", "model.energy.spectral=true"]
    plain, data = make(norm)
    fit(plain, data)
    sampled, data = make(norm)
    fit(sampled, data, callbacks=[Sample(1)])
    a, b = state(plain), state(sampled)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_clipping_bounds_the_norm_of_each_player():
    norms = []

    class Norm(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            player = pl_module.critic if optimizer is trainer.optimizers[0] else pl_module.gebm.base
            norms.append(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in player.parameters()])).item())

    module, data = make(["optim.energy_clip_norm=1e-3", "optim.base_clip_norm=1e-4"])
    fit(module, data, 1, [Norm()])
    assert len(norms) == 6 and max(norms[:5]) <= 1.001e-3 and norms[5] <= 1.001e-4


def test_bf16_mixed_keeps_parameters_losses_and_penalties_in_float32():
    seen = []

    class Types(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.extend(v.dtype for v in pl_module.logs.values())

    module, data = make()
    fit(module, data, 2, [Types()], precision="bf16-mixed")
    assert set(seen) == {torch.float32} and {p.dtype for p in module.parameters()} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_double_precision_is_double_throughout():
    module, data = make()
    fit(module, data, 1, precision="64-true")
    assert {p.dtype for p in module.parameters()} == {torch.float64}


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            if pl_module.base_updates == 2:
                next(pl_module.critic.parameters()).data.fill_(math.nan)

    module, data = make()
    with pytest.raises(UserError, match=r"training diverged: .*loss/energy.* base update 3"):
        fit(module, data, 5, [Poison(), NonFiniteGuard(), Checkpoint(every_n_base_updates=1)], tmp_path=tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint["gebm_lightning"]["base_updates"] == 2
    assert all(torch.isfinite(v).all() for v in checkpoint["state_dict"].values())


def test_a_checkpoint_is_never_written_with_nans(tmp_path):
    class Poison(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if pl_module.base_updates == 2:
                next(pl_module.gebm.base.parameters()).data.fill_(math.nan)

    module, data = make()
    with pytest.raises(UserError, match="training diverged"):
        fit(module, data, 5, [Poison(), Checkpoint(every_n_base_updates=1)], tmp_path=tmp_path)
    assert read_checkpoint(tmp_path)["gebm_lightning"]["base_updates"] == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"precision": "16-mixed"}, "trainer.precision=16-mixed"),
        ({"max_epochs": 3}, "max_base_updates"),
        ({"gradient_clip_val": 1.0}, "energy_clip_norm"),
        ({"no_such": 1}, "trainer.no_such"),
        ({"strategy": "fsdp"}, "two players that take turns"),
        ({"devices": 0, "accelerator": "cpu"}, "at least one device"),
        ({"devices": "many"}, "not a number"),
        ({"devices": [7]}, "GPUs"),
    ],
    ids=str,
)
def test_what_the_trainer_refuses(kwargs, message):
    with pytest.raises(UserError, match=message):
        make_trainer(1, **kwargs)


def test_a_gpu_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="no GPU"):
        make_trainer(1, accelerator="gpu")


def test_the_module_is_under_200_lines():
    import inspect

    import gebm_lightning.lightning.module as module

    assert len(inspect.getsource(module).splitlines()) < 200
