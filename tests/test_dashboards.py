"""wandb's dashboard: built without a network, saved in one call."""

import re
import sys

import pytest

from gebm_lightning import UserError
from gebm_lightning.dashboards import dashboard, save
from gebm_lightning.panels import PANELS

interface = pytest.importorskip("wandb_workspaces.workspaces.interface")


def test_the_dashboard_has_every_panel(wandb_server):
    built = dashboard("me", "toys")
    assert wandb_server == []
    assert save(built).startswith("https://wandb.test/me/toys?nw=")
    (view,) = wandb_server
    sections = view.spec.section.panel_bank_config.sections
    assert [s.name for s in sections] == ["Samples", "Players", "Bounds", "Critic", "FID"]
    plots = [panel.config for section in sections[1:] for panel in section.panels]
    assert [p.chart_title for p in plots] == [panel.title for panel in PANELS]
    for plot in plots:
        assert plot.x_axis == "trainer/global_step" and plot.use_metric_regex
    sent = view.model_dump_json() if hasattr(view, "model_dump_json") else str(view)
    assert "images/strip" in sent and "comparison" in sent and "spectral_norm" in sent


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("loss/base", "losses"),
        ("val/eval_log_z", "c and log Z"),
        ("test/fid_digits/base", "FID of the base"),
        ("test/fid_inception/short_run", "FID of the GEBM"),
        ("train/relative_fid/equilibrium", "FID relative to the base's"),
        ("final/test/relative_fid/equilibrium", None),
        ("loss/base/else", None),
    ],
)
def test_a_metric_has_one_panel_at_most(key, title):
    plots = [panel for section in dashboard("me", "toys").sections[1:] for panel in section.panels]
    assert [p.title for p in plots if re.search(p.metric_regex, key)] == ([] if title is None else [title])


def test_mistakes_are_one_sentence(wandb_server, monkeypatch):
    def refuse(view):
        raise ValueError("permission denied\nand a long answer")

    monkeypatch.setattr(interface.internal, "upsert_view2", refuse)
    with pytest.raises(UserError, match=r"^wandb did not take the dashboard: permission denied; log in"):
        save(dashboard("me", "toys"))
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(UserError, match="dashboards need wandb-workspaces"):
        dashboard("me", "toys")
