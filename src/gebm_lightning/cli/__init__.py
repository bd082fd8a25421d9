"""The commands; each has its config in `gebm_lightning.conf`."""
