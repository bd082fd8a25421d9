"""Every figure: labelled, the same twice, and what it claims holds of the numbers behind it."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from gebm_lightning import UserError, figures
from gebm_lightning.divergences import PHI, wasserstein1
from gebm_lightning.figures import FIGURES, chains, fenchel, flows, kale, models, plane, supports, witnesses
from gebm_lightning.figures.__main__ import draw, main
from gebm_lightning.figures.laws import generator

CHEAP = {
    "wasserstein_witness": {"num_samples": 200},
    "mmd_witness": {"num_samples": 200},
    "disjoint_supports": {},
    "fenchel_dual": {},
    "variational_bound": {"num_steps": 40},
    "kale_smoothie": {"num_samples": 80},
    "unequal_variances": {"num_samples": 80},
    "kale_below_w1": {"num_samples": 80},
    "mmd_flow": {"num_steps": 20, "per_ring": 20},
    "kale_flow": {"num_steps": 20, "per_ring": 20},
}
"""Figures without a trained model, at sizes for tests."""
TRAINED = {
    "right_support_wrong_mass": {"num_samples": 200},
    "sampling_at_modes": {"num_chains": 32},
    "moving_between_modes": {"num_steps": 20},
}
SLOW = {"wrong_support_wrong_mass": {"num_samples": 200}, "toy_on_a_line": {"num_samples": 200}}
"""Each trains a model of its own."""


def slowly(names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def numbers(figure):
    """All that is drawn in a figure, as arrays."""
    found = []
    for ax in figure.axes:
        found += [line.get_xydata() for line in ax.lines]
        found += [np.asarray(c.get_offsets()) for c in ax.collections]
        found += [path.vertices for c in ax.collections for path in c.get_paths()]
        found += [patch.get_path().vertices for patch in ax.patches]
    return found


def test_no_figure_is_forgotten():
    assert set(FIGURES) == {*CHEAP, *TRAINED, *SLOW}


@pytest.mark.parametrize("name", [*CHEAP, *TRAINED, *slowly(SLOW)])
def test_a_figure_is_labelled_and_the_same_twice(name):
    settings = {**CHEAP, **TRAINED, **SLOW}[name]
    seed = {"mmd_flow": 42, "kale_flow": 42}.get(name, 0)
    flows.moved.cache_clear()
    first = FIGURES[name](seed=seed, **settings)
    flows.moved.cache_clear()
    state = torch.get_rng_state()
    second = FIGURES[name](seed=seed, **settings)
    assert torch.equal(state, torch.get_rng_state()), "it drew from the global generator"
    assert isinstance(first, Figure) and first.get_figwidth() * 120 <= 900
    one, other = numbers(first), numbers(second)
    assert len(one) == len(other) > 0
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
    for ax in first.axes:
        spec = ax.get_subplotspec()
        if spec is None or not len(ax.get_yticks()):
            continue
        assert ax.get_xlabel() or not spec.is_last_row()
        assert ax.get_ylabel() or not spec.is_first_col()


@pytest.mark.parametrize("name", ["wasserstein_witness", "kale_smoothie", "mmd_flow"])
def test_another_seed_gives_another_figure(name):
    one, other = (numbers(FIGURES[name](seed=seed, **CHEAP[name])) for seed in (1, 2))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_metrics_fall_as_q_comes_to_p_and_their_witnesses_are_of_their_class():
    far, near = witnesses.wasserstein_witnesses()
    assert far.value > near.value > 0
    step = float(witnesses.POINTS[1] - witnesses.POINTS[0])
    for witness in (far, near):
        assert witness.heights.diff().abs().max() <= step * (1 + 1e-9)
    far, near = witnesses.mmd_witnesses()
    assert far.value > near.value > 0
    # |f(x)| ≤ ‖f‖ sqrt(k(x, x)) = 1, up to the mean that the figure takes off.
    assert all(float(w.heights.max() - w.heights.min()) <= 2 for w in (far, near))


def test_disjoint_supports():
    found = supports.separated(num_points=100)
    assert found.kl[0] == 0 and torch.isinf(found.kl[1:]).all()
    torch.testing.assert_close(found.js[10:], torch.full_like(found.js[10:], 2 * math.log(2)))
    assert found.js[0] == 0 and (found.js[:11].diff() > 0).all()
    for values in (found.w1, found.mmd, found.kale):
        assert torch.isfinite(values).all() and (values.diff() > 0).all() and values[0].abs() < 1e-6
    torch.testing.assert_close(found.w1, found.separation)


@pytest.mark.parametrize("phi", ["kl", "js", "pearson", "squared_hellinger"])
def test_tangents_and_biconjugate(phi):
    f = PHI[phi]
    slope = float(f.derivative(torch.tensor(1.7, dtype=torch.float64)))
    at = torch.tensor(fenchel.touching_point(f, slope), dtype=torch.float64)
    torch.testing.assert_close(at, torch.tensor(1.7, dtype=torch.float64))
    torch.testing.assert_close(f.phi(at), slope * at - f.conjugate(torch.tensor(slope, dtype=torch.float64)))
    u = torch.linspace(0.1, 3, 50, dtype=torch.float64)
    few = fenchel.biconjugate(f, u, f.derivative(torch.logspace(-2, 0.6, 10, dtype=torch.float64)))
    many = fenchel.biconjugate(f, u, f.derivative(torch.logspace(-2, 0.6, 2000, dtype=torch.float64)))
    assert (few <= f.phi(u) + 1e-12).all() and (many <= f.phi(u) + 1e-12).all()
    torch.testing.assert_close(many, f.phi(u), atol=1e-4, rtol=0)


@pytest.mark.parametrize("phi", ["kl", "js"])
def test_the_bound_is_below_the_divergence_and_closes(phi):
    found = fenchel.bounds(phi=phi, num_steps=150, shown=(0, 150))
    assert (found.family <= found.divergence + 1e-9).all() and (found.trained <= found.divergence + 1e-9).all()
    best = int(found.family.argmax())
    assert found.exponents[best] == 1 and found.family[best] == pytest.approx(found.divergence, abs=1e-9)
    assert (found.family[: best + 1].diff() > 0).all() and (found.family[best:].diff() < 0).all()
    assert found.trained[0] < 0.1 * found.divergence and found.trained[-5:].mean() > 0.85 * found.divergence
    off = {step: (critic - found.optimum)[150:250].abs().mean() for step, critic in found.critics.items()}
    assert off[150] < 0.5 * off[0]


@pytest.mark.parametrize("reverse", [False, True])
def test_penalties_smooth_kale(reverse):
    glasses = kale.smoothie(reverse=reverse)
    values = [glass.value for glass in glasses]
    assert values == sorted(values, reverse=True) and values[-1] > 0
    heights = [float(glass.log_ratio.abs().max()) for glass in glasses]
    assert heights == sorted(heights, reverse=True)


def test_unequal_variances_are_seen_both_ways():
    found = kale.widths(num_samples=200)
    middle = found.sigmas.tolist().index(1.0)
    for values in (found.forward, found.backward, found.half_mmd2):
        assert values.argmin() == middle and (values >= 0).all()
        assert (values[: middle + 1].diff() < 0).all() and (values[middle:].diff() > 0).all()
    assert found.forward[0] > found.backward[0], "a collapsed Q costs more than one that is too wide the other way"
    assert found.forward[-1] < found.backward[-1]


def test_kale_is_below_the_witnesss_slope_times_w1():
    found = kale.below_w1(num_samples=200)
    assert (found.kale >= 0).all() and (found.kale <= found.lipschitz * found.w1).all()
    assert (found.kale.diff() < 0).all(), "it falls as Q moves to P"
    assert found.kale[-1] < 0.01 * found.kale[0]


def shares_off(laws):
    """How far base and model are from the data's shares of the three modes, total variation."""
    true = torch.tensor(models.TARGET.weights)
    return [float((models.TARGET.shares(x) - true).abs().sum() / 2) for x in (laws.base, laws.gebm)]


def test_the_gebm_mends_the_mass_on_the_right_support():
    laws = plane.draw(models.right_support(0), models.TARGET, 0, 2000)
    base, gebm = shares_off(laws)
    assert gebm < 0.05 < 0.2 < base
    far, near = (float(wasserstein1(laws.data[:800], x[:800]).value) for x in (laws.base, laws.gebm))
    assert near < 0.3 * far


@pytest.mark.slow
def test_the_gebm_takes_what_is_nearest_on_the_wrong_support():
    laws = plane.draw(models.wrong_support(0), models.TARGET, 0, 2000)
    base, gebm = shares_off(laws)
    assert gebm < 0.05 < 0.2 < base
    far, near = (float(wasserstein1(laws.data[:800], x[:800]).value) for x in (laws.base, laws.gebm))
    assert 0.05 < near < 0.4 * far, "nearer, but its support is the base's"


@pytest.mark.slow
def test_a_line_is_learned_by_the_base_and_its_mass_by_the_energy():
    law = models.Bimodal()
    laws = plane.draw(models.on_a_line(0), law, 0, 2000)
    data, base, gebm = (law.place(x) for x in laws)
    for _, off in (base, gebm):
        assert off.abs().mean() < 0.02
    far, near = (float(wasserstein1(data[0][:, None], x[:, None]).value) for x in (base[0], gebm[0]))
    assert near < 0.4 * far
    figure = figures.toy_on_a_line(num_samples=100, others={"EBM": laws.data[:100]})
    assert [ax.get_title() for ax in figure.axes[:4]] == ["data", "GAN: the base alone", "EBM", "GEBM"]


def test_training_is_a_function_of_its_seed():
    weights = []
    for _ in range(2):
        gebm = models.small(models.Line(), 1, 3)
        models.train(gebm, models.Bimodal(), generator(3, "test"), 5, penalty=0.1, with_base=True)
        weights.append(torch.cat([p.flatten() for p in gebm.parameters()]))
    assert torch.equal(*weights)


def test_cold_chains_descend_and_keep_the_bases_shares():
    found = chains.cooling(num_chains=200)
    assert (found.energy.diff() < 0).all()
    first, last = (models.TARGET.shares(x) for x in (found.x[0], found.x[-1]))
    distance = torch.cdist(found.x[-1], models.TARGET.modes).amin(1)
    assert (distance < 0.5).float().mean() > 0.95, "they are at the modes"
    assert (last - first).abs().sum() / 2 < 0.15 < (last - torch.tensor(models.TARGET.weights)).abs().sum() / 2


def test_low_friction_moves_between_modes():
    high, low = (chains.wandering(friction=friction, num_steps=300).switches for friction in (100.0, 0.05))
    assert low > 2 * high


def test_flows_go_to_the_rings():
    for flow, first in ((flows.MMDFlow(flows.KERNEL, 1e-3), 0.3871), (flows.KALEFlow(flows.KERNEL, 1e-3, 1e-4), 3.658)):
        found = flows.moved(flow, 30, 42, 80)
        assert float(found.losses[0]) == pytest.approx(first, rel=2e-3)
        assert (found.losses.diff() < 0).all()


@pytest.fixture
def run(tmp_path):
    row = {"method": "equilibrium", "scores": {"train": {"relative_fid": 0.8}, "test": {"relative_fid": 0.7}}}
    curve = {"step": [0.0, 10.0], "train": [1.0, 0.9], "test": [1.0, 0.85]}
    summary = {"rows": [row], "curve": curve, "protocol": {"extractor": "digits"}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        keys = ["step", "loss", "test/relative_fid/base", "test/relative_fid/short_run", "final/test/relative_fid/base"]
        writer.writerows([keys, [10, 1, "", "", ""], [100, "", 1, 0.9, ""], [200, "", 1, 0.8, 1]])
    return tmp_path


def test_relative_scores_of_a_run(run):
    (ax,) = figures.relative_fid(run).axes
    assert ax.lines[0].get_ydata().tolist() == [1.0, 0.9] and 0.7 in [line.get_ydata()[0] for line in ax.lines]
    assert ax.get_xlabel() == "sampling steps" and "digits" in ax.get_ylabel()
    (ax,) = figures.relative_fid_in_training(run).axes
    assert ax.lines[0].get_xydata().tolist() == [[100, 0.9], [200, 0.8]] and len(ax.lines) == 2


@pytest.mark.parametrize("name", figures.RUN_FIGURES)
def test_a_folder_without_scores(name, run, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        figures.RUN_FIGURES[name](tmp_path / "nowhere")
    (run / "summary.json").write_text('{"rows": [], "curve": {}, "protocol": {"extractor": "digits"}}')
    (run / "metrics.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match="train with"):
        figures.RUN_FIGURES[name](run)


def test_the_command(tmp_path, run, capsys):
    main([str(tmp_path / "new"), "fenchel_dual", "relative_fid", "--run", str(run)])
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / "new" / f"{name}.png") for name in ("fenchel_dual", "relative_fid")]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["fenchel_dual.png", "relative_fid.png"]
    with pytest.raises(SystemExit, match="no figure nonsense: the figures are"):
        main([str(tmp_path), "nonsense"])
    with pytest.raises(UserError, match="--run=RUN"):
        draw(tmp_path, ["relative_fid"])
