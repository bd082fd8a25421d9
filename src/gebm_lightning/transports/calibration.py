"""Calibration of a critic on held-out data: what it takes to read it as a log density ratio (Turner et al., ICML 2019, §4)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..gebm import GEBM, call_base, call_energy, log_mean_exp
from ..noise import Generator, shared
from ..samplers.gradients import sampling_mode
from ..samplers.refiner import Fitted, Refiner, Samples, chunks
from .space import check_choice, check_finite

ESTIMATION_CHUNK = 512


class LogisticCalibration(nn.Module):
    """d -> slope·d + intercept, fitted by logistic regression (Platt scaling); differentiable."""

    slope: Tensor
    intercept: Tensor

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float64))
        self.register_buffer("intercept", torch.tensor(intercept, dtype=torch.float64))

    def forward(self, d: Tensor) -> Tensor:
        return self.slope.to(d) * d + self.intercept.to(d)

    def info(self) -> dict[str, float]:
        return {"slope": self.slope.item(), "intercept": self.intercept.item()}


class IsotonicCalibration(nn.Module):
    """d -> the logit of the step that d falls on: borders (k − 1,), levels (k,), both increasing; without a gradient."""

    borders: Tensor
    levels: Tensor

    def __init__(self, borders: Tensor, levels: Tensor) -> None:
        super().__init__()
        self.register_buffer("borders", borders)
        self.register_buffer("levels", levels)

    def forward(self, d: Tensor) -> Tensor:
        return _Steps.apply(d, self.borders.to(d), self.levels.to(d))

    def info(self) -> dict[str, float]:
        return {"steps": float(len(self.levels))}


class _Steps(torch.autograd.Function):
    """A gradient, zero wherever there is one, would leave a sampler where it is without a word: it is refused."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, borders: Tensor, levels: Tensor) -> Tensor:
        # A NaN would be put on the highest step.
        return torch.where(d.isnan(), d, levels[torch.bucketize(d, borders)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise UserError(NO_GRADIENT)


NO_GRADIENT = "isotonic calibration is constant by pieces and has no gradient for this sampler: use method=logistic"

Calibration = LogisticCalibration | IsotonicCalibration


def _logistic(d: np.ndarray, real: np.ndarray) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    # With a tie at the border the likelihood has no maximum either.
    if d[real].min() >= d[~real].max():
        raise UserError(
            "the critic tells all held-out real samples from all base samples: no logistic calibration is finite; use more "
            "samples or method=isotonic"
        )
    centre, scale = d.mean(), d.std()
    fitted = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-10, max_iter=1000)
    fitted.fit(((d - centre) / scale)[:, None], real)
    slope = float(fitted.coef_[0, 0] / scale)
    if not slope > 0:
        raise UserError(f"{WRONG_WAY}: its logistic calibration has the slope {slope:.3g}")
    return LogisticCalibration(slope, float(fitted.intercept_[0] - slope * centre))


def _isotonic(d: np.ndarray, real: np.ndarray) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    # A base sample at the top and a real one at the bottom: the ends, where one kind is alone, stay off 1 and 0, and a
    # few lonely samples there do not weigh as if they were many.
    d, real = np.append(d, [d.max(), d.min()]), np.append(real, [False, True])
    order = np.argsort(d, kind="stable")
    d, real = d[order], real[order]
    weights = np.where(real, 0.5 / real.sum(), 0.5 / (~real).sum())
    values = IsotonicRegression().fit_transform(d, real, sample_weight=weights * len(d))
    steps = np.flatnonzero(np.diff(values) > 0)
    levels = values[np.append(steps, len(values) - 1)]
    borders = (d[steps] + d[steps + 1]) / 2
    return IsotonicCalibration(torch.from_numpy(borders), torch.from_numpy(levels).logit())


WRONG_WAY = (
    "the critic is no higher on held-out real samples than on base samples, so its sign, or the convention that makes it "
    "an energy, does not fit"
)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], Calibration]] = {"logistic": _logistic, "isotonic": _isotonic}


def calibrate(d_real: Tensor, d_base: Tensor, method: str = "logistic") -> Calibration:
    """Logits to calibrated logits, those of P(real | d) when real and base samples are equally likely: log dP/dQ.

    Args:
        d_real: (m,) logits d = −E of held-out real samples.
        d_base: (k,) those of base samples.
        method: "logistic", slope·d + intercept, or "isotonic", increasing steps of the probability, kept from 0 and 1 by
            one more sample of the other kind at either end.

    Raises:
        UserError: the critic is not higher on real than on base samples, is constant or not finite, or (logistic) tells
            them apart without fail.
    """
    from sklearn.metrics import roc_auc_score

    check_choice("method", method, METHODS)
    if min(len(d_real), len(d_base)) < 2:
        raise UserError(f"a calibration needs at least two held-out samples, not {min(len(d_real), len(d_base))}")
    check_finite("the critic to calibrate", "mend the energy", d_real[:, None], d_base[:, None])
    d = torch.cat([d_real, d_base]).detach().double().cpu().numpy()
    real = np.arange(len(d)) < len(d_real)
    area = roc_auc_score(real, d)
    if not area > 0.5:
        raise UserError(f"{WRONG_WAY}: a real sample ranks above a base sample in {area:.1%} of pairs")
    return METHODS[method](d, real)


class CalibratedEnergy(nn.Module):
    """An energy whose −E is the calibrated logit of another's: E(x) = −calibration(−E₀(x)), (n, *shape) -> (n,)."""

    def __init__(self, energy: nn.Module, calibration: nn.Module) -> None:
        super().__init__()
        self.energy, self.calibration = energy, calibration

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return -self.calibration(-call_energy(self.energy, x, y))


@torch.inference_mode(False)
def calibrated(
    gebm: GEBM, real: Tensor, generator: Generator, method: str = "logistic", y: Tensor | None = None
) -> GEBM:
    """The model with a calibrated energy and its log Z, over the same networks, which stay as they are.

    Args:
        gebm: the model.
        real: (m, *shape) held-out real samples; as many base samples are drawn.
        generator: of the base samples; the same for all samples that follow.
        method: as of `calibrate`.
        y: (m,) labels of the real samples, given to the base as well.
    """
    d_real, d_base = logits(gebm, real, generator, y)
    calibration = calibrate(d_real, d_base, method)
    model = _with_calibration(gebm, calibration)
    c = log_mean_exp(calibration(d_base).float()).detach().to(gebm.log_partition)
    model._parameters = gebm._parameters | {"log_partition": nn.Parameter(c)}
    return model


def _with_calibration(gebm: GEBM, calibration: nn.Module) -> GEBM:
    model = copy.copy(gebm)
    energy = CalibratedEnergy(gebm.energy, calibration.to(gebm.log_partition.device)).train(gebm.energy.training)
    model._modules = gebm._modules | {"energy": energy}
    return model


def logits(gebm: GEBM, real: Tensor, generator: Generator, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """(m,) logits d = −E of real samples and of as many base samples of the same labels."""
    d_real, d_base, like = [], [], gebm.log_partition
    with sampling_mode(gebm), torch.no_grad():
        for rows, noise in chunks(len(real), shared(generator, "calibration"), ESTIMATION_CHUNK):
            labels = None if y is None else y[rows].to(like.device)
            x = call_base(gebm.base, gebm.prior.sample(rows.stop - rows.start, noise), labels)
            d_real.append(-call_energy(gebm.energy, real[rows].to(like), labels))
            d_base.append(-call_energy(gebm.energy, x, labels))
    return torch.cat(d_real), torch.cat(d_base)


@dataclass(frozen=True)
class Calibrated:
    """A refiner on the model with a calibrated energy, which `fit` finds from held-out data.

    Args:
        refiner: any refiner; one that follows gradients needs the logistic method.
        method: "logistic" or "isotonic".
        calibration: logits to calibrated logits, set by `fit`.
    """

    refiner: Any
    method: str = "logistic"
    calibration: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("sampler.method", self.method, METHODS)
        if self.method == "isotonic" and getattr(self.refiner, "uses_gradients", False):
            raise UserError(NO_GRADIENT)

    @torch.inference_mode(False)
    def fit(self, gebm: GEBM, real: Tensor, generator: Generator, y: Tensor | None = None) -> Calibrated:
        """The same refiner, calibrated on real samples (m, *shape) and as many of the base, and fitted to that model."""
        calibration = calibrate(*logits(gebm, real, generator, y), self.method)
        model, refiner = _with_calibration(gebm, calibration), self.refiner
        if isinstance(refiner, Fitted):
            refiner = refiner.fit(model, real, generator, y)
        return replace(self, refiner=refiner, calibration=calibration)

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        """n samples of the refiner; `info` tells the calibration besides.

        Raises:
            UserError: nothing was fitted yet.
        """
        if self.calibration is None:
            raise UserError("a calibrated sampler needs held-out real data first: fit it")
        refiner: Refiner = self.refiner
        samples = refiner.refine(_with_calibration(gebm, self.calibration), n, generator, y)
        return samples._replace(info=samples.info | {"calibrated": self.method} | self.calibration.info())
