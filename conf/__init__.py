"""The configs of the commands, found by Hydra as pkg://gebm_lightning.conf."""
