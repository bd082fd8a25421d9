"""Speed, as ratios within one run: `python -m benchmarks`; see `docs/speed.md`."""
