"""FID, KID, precision and recall of generated against real features, by torch-fidelity's arithmetic on one extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, check_number
from .kept import Kept
from .modes import mode_scores, wasserstein1_2d


def neighbour_radii(real: Tensor, neighbours: int = 5, chunk: int = 1000) -> Tensor:
    """(m,) distance of each of the features (m, f) to its k-th nearest other, k at most m − 1."""
    k = min(neighbours, len(real) - 1)
    return torch.cat([torch.cdist(part, real).kthvalue(k + 1).values for part in real.split(chunk)])


def density_and_coverage(
    generated: Tensor, real: Tensor, neighbours: int = 5, chunk: int = 1000, radii: Tensor | None = None
) -> dict[str, float]:
    """Density and coverage of features (n, f) against (m, f) (Naeem et al., ICML 2020, eqs. 4 and 5).

    Around each real sample lies a ball that reaches its k-th nearest real neighbour. Density is the mean number of balls
    a generated sample is in, over k; coverage the share of balls with a generated sample in them. `radii` are those of
    the balls, where they are known already.
    """
    k = min(neighbours, len(real) - 1)
    radii = neighbour_radii(real, neighbours, chunk) if radii is None else radii
    inside, reached = 0.0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part in generated.split(chunk):
        within = torch.cdist(part, real) < radii
        inside += within.sum().item()
        reached |= within.any(0)
    return {"density": inside / (k * len(generated)), "coverage": reached.double().mean().item()}


def inception_score(logits: Tensor, seed: int = 0, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation over splits of exp KL(p(y|x) ‖ p(y)) (Salimans et al., NeurIPS 2016), of logits (n, k)."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    scores = isc_features_to_metric(logits, splits=min(splits, len(logits)), rng_seed=seed)
    return scores["inception_score_mean"], scores["inception_score_std"]


def check_settings(key: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a `Scorer` from a config, or a UserError that names `key`."""
    if not isinstance(settings, Mapping) and not hasattr(settings, "items"):
        raise UserError(f"{key} holds settings by name, not {settings!r}")
    lowest = {"kid_subsets": 1, "kid_subset_size": 2, "prc_samples": 4}
    for name, value in settings.items():
        if name == "mode_radius":
            check_number(f"{key}.{name}", value, above=0)
        elif name in lowest:
            check_number(f"{key}.{name}", value, low=lowest[name], integer=True)
        else:
            raise UserError(f"{key}.{name}: there are {', '.join([*lowest, 'mode_radius'])}")
    return {str(name): value for name, value in settings.items()}


class Scorer:
    """Scores generated features against one real split.

    FID is the Fréchet distance of the Gaussians fitted to both; KID the mean of the unbiased cubic-kernel MMD² over
    subsets; precision and recall those of k = 3 nearest neighbours, on equally many of both.

    Args:
        name: the extractor's, part of the FID's key: `fid_<name>`.
        real: (m, f) features of the real split.
        seed: of KID's subsets.
        kid_subsets: how many.
        kid_subset_size: at most this many samples each, and at most half of either side.
        prc_samples: at most this many samples of each side for precision and recall, whose cost is quadratic.
        labels: (m,) classes of the real samples, for `by_class`.
        modes: means (k, f) and σ of a mixture that the data come from, for the scores of its modes.
        mode_radius: how far from a mean, in units of σ, a sample is still of high quality.
        kept: where what is computed of the real split alone, its moments and radii, is kept.
    """

    def __init__(
        self,
        name: str,
        real: Tensor,
        seed: int = 0,
        kid_subsets: int = 100,
        kid_subset_size: int = 1000,
        prc_samples: int = 10_000,
        labels: Tensor | None = None,
        modes: tuple[Tensor, float] | None = None,
        mode_radius: float = 4.0,
        kept: Kept | None = None,
    ) -> None:
        from torch_fidelity.metric_fid import fid_features_to_statistics

        if len(real) < 4:
            raise UserError(f"scores need at least 4 real samples, not {len(real)}")
        self.name, self.real, self.seed, self.labels, self.modes = name, real.double(), seed, labels, modes
        self.kid_subsets, self.kid_subset_size, self.prc_samples = kid_subsets, kid_subset_size, prc_samples
        self.mode_radius = mode_radius
        self._kept = kept or Kept()
        self._radii: dict[int, Tensor] = {}
        self._statistics = dict(
            self._kept.get("moments", lambda: fid_features_to_statistics(self.real), ("mu", "sigma"))
        )

    def _subset_size(self, num_generated: int) -> int:
        # Subsets that are the whole would all be the same, and their spread nothing.
        return max(2, min(self.kid_subset_size, num_generated // 2, len(self.real) // 2))

    def fid(self, generated: Tensor) -> float:
        """The Fréchet distance alone, of features (n, f)."""
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        statistics = fid_features_to_statistics(generated.double())
        return fid_statistics_to_metric(statistics, self._statistics, False)["frechet_inception_distance"]

    def __call__(self, generated: Tensor) -> dict[str, float]:
        """All scores of features (n, f)."""
        from torch_fidelity.metric_kid import kid_features_to_metric
        from torch_fidelity.metric_prc import prc_features_to_metric

        size = self._subset_size(len(generated))
        kid = kid_features_to_metric(
            generated, self.real, kid_subsets=self.kid_subsets, kid_subset_size=size, rng_seed=self.seed, verbose=False
        )
        n = min(len(generated), len(self.real), self.prc_samples)
        prc = prc_features_to_metric(generated[:n], self.real[:n], verbose=False)
        return {
            f"fid_{self.name}": self.fid(generated),
            "kid": kid["kernel_inception_distance_mean"],
            "kid_std": kid["kernel_inception_distance_std"],
            "precision": float(prc["precision"]),
            "recall": float(prc["recall"]),
            **density_and_coverage(generated[:n], self.real[:n], radii=self._radii_of(n)),
            **self._in_the_plane(generated),
        }

    def _radii_of(self, n: int) -> Tensor:
        """Radii of the first n real samples' balls, computed once."""
        if n not in self._radii:

            def make() -> dict[str, Any]:
                return {"radii": neighbour_radii(self.real[:n]).numpy()}

            self._radii[n] = torch.from_numpy(self._kept.get(f"radii-5-{n}", make, ("radii",))["radii"])
        return self._radii[n]

    def _in_the_plane(self, generated: Tensor) -> dict[str, float]:
        """W₁, and the scores of known modes, of points as they are."""
        if self.name != "identity" or self.real.shape[1] != 2:
            return {}
        scores = {"wasserstein1": wasserstein1_2d(generated, self.real)}
        return scores if self.modes is None else scores | mode_scores(generated, *self.modes, radius=self.mode_radius)

    def by_class(self, generated: Tensor, labels: Tensor) -> dict[int, dict[str, float]]:
        """All scores within each class of generated (n, f) and real samples; classes with fewer than 4 of either are left out."""
        assert self.labels is not None, "a Scorer without labels"
        settings = self.seed, self.kid_subsets, self.kid_subset_size, self.prc_samples
        scores = {}
        for k in sorted(set(labels.tolist())):
            mine, theirs = generated[labels == k], self.real[self.labels == k]
            if min(len(mine), len(theirs)) >= 4:
                counts = {"num_generated": float(len(mine)), "num_real": float(len(theirs))}
                scores[k] = Scorer(self.name, theirs, *settings)(mine) | counts
        return scores

    def protocol(self, num_generated: int) -> dict[str, Any]:
        """What a reader must know to compare these figures with others."""
        return {
            "num_real": len(self.real),
            "num_generated": num_generated,
            "kid_subsets": self.kid_subsets,
            "kid_subset_size": self._subset_size(num_generated),
            "prc_samples": min(num_generated, len(self.real), self.prc_samples),
            "prc_neighbours": 3,
            "density_neighbours": 5,
        }
