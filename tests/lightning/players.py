"""A small game, and how it is run."""

from gebm_lightning import compose
from gebm_lightning.config import build_parts, instantiate
from gebm_lightning.lightning import GEBMModule, make_trainer

TINY = ["model.width=4", "data.batch_size=16", "trainer.max_base_updates=3"]


def make(overrides=(), train_mode="both", schedule=None):
    cfg = compose([*TINY, *overrides])
    module = GEBMModule(
        *build_parts(cfg), instantiate(cfg.optim), schedule or instantiate(cfg.energy_schedule), train_mode, cfg.seed
    )
    return module, instantiate(cfg.data)


def fit(module, data, updates=3, callbacks=(), path=None, tmp_path=".", **kwargs):
    trainer = make_trainer(
        updates,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=str(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return trainer
