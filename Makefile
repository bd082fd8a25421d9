PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: help train test test-all lint docs figures notebooks tables bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install -q --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

train: .venv/.stamp  ## train, sample and score the default GEBM; ARGS='seed=1 ...' passes overrides
	$(BIN)/python train.py $(ARGS)

test: .venv/.stamp  ## the tests, without the slow ones
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

test-all: .venv/.stamp  ## all tests
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.stamp  ## the documentation site, into site/; a broken link or reference ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

bench: .venv/.stamp  ## speed as ratios, 20 minutes on one core; ARGS='--threads 2 sampling', ARGS=--save keeps them
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(ARGS)

figures: .venv/.stamp  ## the gallery's pictures, into docs/images/gallery
	$(BIN)/python -m gebm_lightning.figures docs/images/gallery $(ARGS)

notebooks: .venv/.stamp  ## run the notebooks at full size, in place: a few minutes
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

RATIOS := kale,donsker_varadhan,fgan_kl,fgan_reverse_kl,fgan_js,fgan_gan,fgan_jeffreys,fgan_pearson,fgan_squared_hellinger,fgan_total_variation,logistic,least_squares,hinge
TABLE := OMP_NUM_THREADS=1 $(BIN)/python train.py -m name=objectives seed=0,1,2 data=gaussian_grid trainer.max_base_updates=5000 \
	callbacks.sampling=null callbacks.evaluation.curve_steps=[] callbacks.evaluation.splits=[test] \
	callbacks.evaluation.scores.kid_subsets=10 callbacks.evaluation.scores.prc_samples=2000

# A sharp mixture asks for steep energies: a penalty far below that of images, which Neyman's critic needs. The Wasserstein critic needs more updates than one.
tables: .venv/.stamp  ## every objective on 25 Gaussians, three seeds: two hours on one core; again, it goes on where it was
	$(TABLE) objective=$(RATIOS) energy_schedule.num=1 objective.penalties.gradient.weight=1e-3 $(ARGS)
	$(TABLE) objective=fgan_neyman energy_schedule.num=1 $(ARGS)
	$(TABLE) objective=wasserstein energy_schedule.num=5 objective.penalties.gradient.weight=0.1 $(ARGS)
	$(TABLE) objective=mmd,scaled_mmd energy_schedule.num=1 $(ARGS)
