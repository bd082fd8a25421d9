"""f-divergences by quadrature against closed forms, f-GAN's best fits, and the variational bound and its tightness."""

import dataclasses
import math

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize

from gebm_lightning import UserError
from gebm_lightning.divergences._f import f_divergence, f_divergence_of_densities, grid
from gebm_lightning.divergences._phi import PHI

KEYS = pytest.mark.parametrize("key", list(PHI))


def normal(mean, std):
    """The log-density of N(mean, std²) in one dimension, of points (n, 1)."""
    return lambda t: -((t[:, 0] - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)


def uniform(low, high):
    def log_density(t):
        inside = (low < t[:, 0]) & (t[:, 0] < high)
        return torch.where(inside, torch.full_like(t[:, 0], -math.log(high - low)), -math.inf)

    return log_density


def divergence(key, p, q, low=-40.0, high=40.0, num=20_000):
    return float(f_divergence_of_densities(p, q, key, *grid(low, high, num)).value)


def kl(m1, s1, m2, s2):
    return math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5


def pearson(m1, s1, m2, s2):
    v = 2 * s2**2 - s1**2
    return s2**2 / (s1 * math.sqrt(v)) * math.exp((m1 - m2) ** 2 / v) - 1 if v > 0 else math.inf


def squared_hellinger(m1, s1, m2, s2):
    v = s1**2 + s2**2
    return 2 - 2 * math.sqrt(2 * s1 * s2 / v) * math.exp(-((m1 - m2) ** 2) / (4 * v))


def twice_jensen_shannon(m1, s1, m2, s2):
    def integrand(t):
        p, q = (math.exp(-((t - m) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * math.pi)) for m, s in ((m1, s1), (m2, s2)))
        return sum(a * math.log(2 * a / (p + q)) for a in (p, q) if a > 0)

    return quad(integrand, -30, 30, epsabs=1e-11, limit=400, points=(m1, m2))[0]


CLOSED = {
    "kl": kl,
    "reverse_kl": lambda m1, s1, m2, s2: kl(m2, s2, m1, s1),
    "pearson": pearson,
    "neyman": lambda m1, s1, m2, s2: pearson(m2, s2, m1, s1),
    "squared_hellinger": squared_hellinger,
    "jeffreys": lambda m1, s1, m2, s2: kl(m1, s1, m2, s2) + kl(m2, s2, m1, s1),
    "js": twice_jensen_shannon,
    "gan": lambda *args: twice_jensen_shannon(*args) - 2 * math.log(2),
}
PAIRS = [(0.0, 1.0, 0.7, 1.3), (0.3, 0.8, -0.5, 0.9), (1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 0.001, 1.0)]


@pytest.mark.parametrize("key", list(CLOSED))
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_between_gaussians(key, pair):
    m1, s1, m2, s2 = pair
    value, truth = divergence(key, normal(m1, s1), normal(m2, s2)), CLOSED[key](*pair)
    assert value == pytest.approx(truth, rel=1e-7, abs=1e-9)
    # A wrong factor in the width or the order of the arguments is seen.
    if m1 != m2 and s1 != s2:
        assert divergence(key, normal(m1, s1), normal(m2, s2 * math.sqrt(2))) != pytest.approx(truth, rel=1e-3)
        if key not in ("squared_hellinger", "jeffreys", "js", "gan"):
            assert divergence(key, normal(m2, s2), normal(m1, s1)) != pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize(("delta", "std"), [(0.5, 1.0), (2.0, 0.7)])
def test_total_variation_of_equal_variances(delta, std):
    value = divergence("total_variation", normal(0, std), normal(delta, std))
    assert value == pytest.approx(math.erf(delta / (2 * math.sqrt(2) * std)), abs=1e-6)


def test_pearson_and_neyman_are_infinite_where_the_integral_diverges():
    """For s₁² ≥ 2 s₂² the integrand grows without bound, as far as the grid goes."""
    assert pearson(0, 2, 0, 1) == math.inf
    values = [divergence("pearson", normal(0, 2), normal(0, 1), -r, r) for r in (10, 20, 50)]
    assert values[0] > 1e5 and values[1] > 1e30 and values[2] > 1e250
    assert divergence("neyman", normal(0, 1), normal(0, 2), -50, 50) == pytest.approx(values[2], rel=1e-9)
    assert divergence("pearson", normal(0, 2), normal(0, 1), -300, 300) == math.inf


@KEYS
def test_the_quadrature_is_that_of_phi_itself(key):
    """The forms in logs against q·φ(p/q) where nothing underflows, and the path of a φ that is not of PHI."""
    p, q, (t, w) = normal(0.5, 1.0), normal(0.0, 1.2), grid(-6, 6, 500)
    direct = (q(t).exp() * PHI[key].phi((p(t) - q(t)).exp()) * w).sum()
    torch.testing.assert_close(f_divergence_of_densities(p, q, key, t, w).value, direct, rtol=1e-11, atol=1e-13)
    own = dataclasses.replace(PHI[key], name="own")
    torch.testing.assert_close(f_divergence_of_densities(p, q, own, t, w).value, direct, rtol=1e-11, atol=1e-13)
    for p, q in ((uniform(0, 2), uniform(1, 3)), (uniform(0, 1), uniform(2, 3)), (uniform(0, 1), uniform(0, 2))):
        ours, other = (float(f_divergence_of_densities(p, q, phi, *grid(-1, 4, 500)).value) for phi in (key, own))
        assert ours == pytest.approx(other, rel=1e-12)


DISJOINT = {
    "kl": math.inf,
    "reverse_kl": math.inf,
    "pearson": math.inf,
    "neyman": math.inf,
    "squared_hellinger": 2.0,
    "jeffreys": math.inf,
    "js": 2 * math.log(2),
    "gan": 0.0,
    "total_variation": 1.0,
}


@KEYS
def test_disjoint_supports(key):
    value = divergence(key, uniform(0, 1), uniform(2, 3), -1, 4, 5000)
    assert value == pytest.approx(DISJOINT[key], rel=1e-12, abs=1e-12)


WITHIN = {"kl": math.log(2), "pearson": 1.0, "reverse_kl": math.inf, "js": math.log(16 / 27) / 2 + math.log(2)}


@pytest.mark.parametrize("key", list(WITHIN))
def test_a_support_within_the_other(key):
    """P = U(0, 1), Q = U(0, 2): p = 0 < q gives q·φ(0), which is finite for KL and infinite for its reverse."""
    assert divergence(key, uniform(0, 1), uniform(0, 2), -1, 4, 5000) == pytest.approx(WITHIN[key], rel=1e-12)
    assert divergence("kl", uniform(0, 2), uniform(0, 1), -1, 4, 5000) == math.inf


@KEYS
def test_densities_that_underflow(key):
    """N(0, 1) and N(100, 1) in either precision: p/q overflows where p has its mass, KL is 5000 all the same."""
    for dtype, rel in ((torch.float64, 1e-7), (torch.float32, 1e-3)):
        t, w = grid(-20, 120, 20_000, dtype=dtype)
        value = f_divergence_of_densities(normal(0, 1), normal(100, 1), key, t, w).value
        truth = {"kl": 5000, "reverse_kl": 5000, "jeffreys": 10_000}.get(key, DISJOINT[key])
        assert value.dtype == dtype and float(value) == pytest.approx(truth, rel=rel, abs=rel)


def test_two_dimensions():
    def product(first, second):
        return lambda t: first(t[:, :1]) + second(t[:, 1:])

    p, q = product(normal(0, 1), normal(1, 0.8)), product(normal(0.7, 1.3), normal(0.5, 1.0))
    t, w = grid((-9, -8), (10, 9), 300)
    assert t.shape == (90_000, 2) and w == pytest.approx(19 * 17 / 90_000)
    estimate = f_divergence_of_densities(p, q, "kl", t, w)
    assert float(estimate.value) == pytest.approx(kl(0, 1, 0.7, 1.3) + kl(1, 0.8, 0.5, 1), rel=1e-9)
    assert float(estimate.info["mass_p"]) == pytest.approx(1) and float(estimate.info["mass_q"]) == pytest.approx(1)
    narrow = f_divergence_of_densities(p, q, "kl", *grid((-1, -1), (1, 1), 50))
    assert float(narrow.info["mass_p"]) < 0.5


@pytest.mark.parametrize(
    ("key", "value", "mean", "std"), [("kl", 0.2831, 1.0100, 1.8308), ("js", 0.1280, 1.3070, 1.7542)]
)
def test_f_gans_best_fit_gaussian(key, value, mean, std):
    """P = .33·N(−1, .255²) + .67·N(2, 2), where the last 2 is a variance."""

    def fit(last):
        def p(t):
            return torch.logaddexp(math.log(0.33) + normal(-1, 0.255)(t), math.log(0.67) + normal(2, last)(t))

        def objective(v):
            return divergence(key, p, normal(v[0], math.exp(v[1])), -20, 25, 3000)

        best = minimize(objective, [0.5, 0.3], method="BFGS")
        return best.fun, best.x[0], math.exp(best.x[1])

    assert fit(math.sqrt(2)) == pytest.approx((value, mean, std), abs=1e-3)
    assert abs(fit(2.0)[2] - std) > 0.1


P, Q = normal(0.4, 1.0), normal(0.0, 1.2)
OPTIMAL = {
    "kl": lambda r: 1 + r,
    "reverse_kl": lambda r: r,
    "pearson": lambda r: 2 * torch.expm1(r),
    "neyman": lambda r: 2 * r,
    "squared_hellinger": lambda r: r / 2,
    "jeffreys": lambda r: 1 + r - (-r).exp(),
    "js": lambda r: r,
    "gan": lambda r: r,
    "total_variation": lambda r: 50 * r.sign(),
}


@KEYS
def test_the_bound_is_below_the_divergence_and_tight_at_phis_slope(key):
    t, w = grid(-12, 12, 4000)
    phi, estimate = PHI[key], f_divergence_of_densities(P, Q, key, *grid(-12, 12, 4000))
    p, q = P(t).exp() * w, Q(t).exp() * w

    def bound(v):
        return (p * phi.activation(v)).sum() - (q * phi.dual(v)).sum()

    v = OPTIMAL[key](P(t) - Q(t))
    torch.testing.assert_close(estimate.witness(t), phi.activation(v), rtol=1e-9, atol=1e-9)
    assert float(bound(v)) == pytest.approx(float(estimate.value), rel=1e-9)
    for change in (0.3 * torch.sin(t[:, 0]), torch.full_like(v, -0.2), 0.1 * v, -0.5 * v):
        other = bound(v + (100 if key == "total_variation" else 1) * change)
        assert other < estimate.value + 1e-12
    assert bound(-v) < estimate.value - 1e-2


@KEYS
def test_the_estimate_from_samples(key):
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    y = 1.2 * torch.randn(15_000, 1, generator=generator, dtype=torch.float64)

    def critic(points):
        return OPTIMAL[key](P(points) - Q(points))

    estimate = f_divergence(x, y, key, critic)
    truth, sem = divergence(key, P, Q), float(estimate.info["sem"])
    assert estimate.value.shape == () and abs(float(estimate.value) - truth) < 5 * sem and sem < 0.1
    assert f_divergence(x, y, PHI[key], critic).value == estimate.value
    torch.testing.assert_close(estimate.witness(x), PHI[key].activation(critic(x)))
    assert estimate.witness(x).mean() > estimate.witness(y).mean()
    # Swapped samples are no bound on D(P‖Q) that the test would take.
    swapped = f_divergence(y, x, key, critic)
    assert abs(float(swapped.value) - truth) > 4 * float(swapped.info["sem"])


def test_the_standard_error():
    generator = torch.Generator().manual_seed(0)
    estimates = [
        f_divergence(
            0.4 + torch.randn(100, 1, generator=generator, dtype=torch.float64),
            1.2 * torch.randn(50, 1, generator=generator, dtype=torch.float64),
            "js",
            lambda points: P(points) - Q(points),
        )
        for _ in range(400)
    ]
    spread = torch.stack([estimate.value for estimate in estimates]).std()
    reported = torch.stack([estimate.info["sem"] for estimate in estimates]).mean()
    # The standard deviation of 400 values is known to 1/√800.
    assert abs(float(reported / spread) - 1) < 5 / math.sqrt(800)


def test_a_critic_is_trained_through_the_bound_and_images_are_points():
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1), torch.nn.Flatten(0))
    estimate = f_divergence(images, images + 1, "kl", critic)
    estimate.value.backward()
    assert critic[1].weight.grad.abs().sum() > 0 and estimate.witness(images).shape == (6,)
    assert not estimate.info["sem"].requires_grad


def test_the_witness_stays_finite_where_the_ratio_overflows():
    for dtype in (torch.float32, torch.float64):
        points = torch.tensor([[-50.0], [0.0], [150.0]], dtype=dtype)
        witness = f_divergence_of_densities(normal(0, 1), normal(100, 1), "kl", points, 1.0).witness
        assert witness(points).isfinite().all() and (witness(points).diff() <= 0).all()
    nowhere = f_divergence_of_densities(uniform(0, 1), uniform(0, 1), "kl", points, 1.0)
    assert nowhere.value == 0 and nowhere.witness(points)[2] == 1


def test_grid():
    t, w = grid(0.0, 1.0, 4)
    assert t[:, 0].tolist() == [0.125, 0.375, 0.625, 0.875] and w == 0.25 and t.dtype == torch.float64
    t, w = grid((0, 0), (2, 4), 2, dtype=torch.float32)
    assert t.tolist() == [[0.5, 1], [0.5, 3], [1.5, 1], [1.5, 3]] and w == 2 and t.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda x: f_divergence(x, x, "chi", lambda p: p[:, 0]), "kl, reverse_kl"),
        (lambda x: f_divergence(x, x, "kl", lambda p: p), r"\(3,\), not \(3, 1\)"),
        (lambda x: f_divergence(x, x[:0], "kl", lambda p: p[:, 0]), "at least one point"),
        (lambda x: f_divergence_of_densities(lambda p: p, lambda p: p[:, 0], "kl", x, 1.0), "log_p"),
        (lambda x: f_divergence_of_densities(lambda p: p[:, 0], lambda p: p[:, 0] / 0, "kl", x, 1.0), "log_q is NaN"),
        (lambda x: f_divergence_of_densities(lambda p: p[:, 0], lambda p: p[:, 0], "chi", x, 1.0), "kl, reverse_kl"),
        (lambda x: grid(1.0, 0.0, 5), "below"),
        (lambda x: grid((0.0, 0.0), 1.0, 5), "below"),
        (lambda x: grid(0.0, 1.0, 0), "num"),
    ],
)
def test_mistakes(make, word):
    with pytest.raises(UserError, match=word):
        make(torch.zeros(3, 1))
