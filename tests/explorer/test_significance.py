"""Tests of differences against the values of SciPy 1.17, and of textbooks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.explorer.compare import jensen_shannon
from tailrace.explorer.significance import Moments, g_test, holm, proportions, welch


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        ((15, 20.8, 7.9), (15, 23.0, 3.8), 0.0197560244703045),
        ((10, 20.6, 9.0), (20, 22.1, 0.9), 0.1541255195640466),
        ((10, 19.4, 1.4), (20, 21.6, 17.1), 0.03709319341745862),
        ((2, 1, 1), (3, 5, 0.5), 0.0546257171216223),
        ((100_000, 10, 4), (200_000, 10.01, 4), 0.19670709468509132),
        ((5, 0, 1), (5, 0, 1), 1.0),
        ((1000, 1, 1e-6), (1000, 2, 1e-6), 0.0),
        ((40, 100, 900), (7000, 130, 1600), 1.871054348528117e-07),
        ((3, 1, 0), (3, 2, 0), 0.0),
        ((3, 1, 0), (3, 1, 0), None),
        ((1, 1, 0), (3, 1, 2), None),
        ((3, 1, float("inf")), (3, 1, 2), None),
    ],
)
def test_welch(a: tuple[int, float, float], b: tuple[int, float, float], p: float | None) -> None:
    """`scipy.stats.ttest_ind_from_stats(…, equal_var=False)`, either way round; the first three are the textbook examples
    of equal and of unequal sizes and variances."""
    one, other = (Moments(count, mean, variance * (count - 1)) for count, mean, variance in (a, b))
    for tested in (welch(one, other), welch(other, one)):
        assert tested == (None if p is None else pytest.approx(p, rel=1e-8, abs=1e-300))


@pytest.mark.parametrize(
    ("a", "of_a", "b", "of_b", "p"),
    [
        (15, 100, 5, 100, 0.01842212545409897),
        (1, 10, 9, 10, 0.000346619351134667),
        (132, 9137, 173, 20863, 1.0056177428185802e-06),
        (0, 50, 3, 50, 0.07864017934882862),
        (500_000, 10**6, 501_000, 10**6, 0.15729899949648024),
        (0, 50, 0, 60, None),
        (50, 50, 60, 60, None),
        (0, 0, 1, 2, None),
    ],
)
def test_two_proportions(a: int, of_a: int, b: int, of_b: int, p: float | None) -> None:
    """The chi-square test of the two-by-two table without continuity correction, which is the z-test squared."""
    assert proportions(a, of_a, b, of_b) == (None if p is None else pytest.approx(p, rel=1e-9))


@pytest.mark.parametrize(
    ("a", "b", "p", "distance"),
    [
        ([10, 20, 30], [12, 25, 15], 0.07194058428876172, 0.18480196988967365),
        ([5, 0, 3], [1, 4, 2], 0.01363079031498933, 0.6386677853923076),
        ([100] * 50, [110] * 25 + [90] * 25, 0.9982119401148553, 0.042528250009916925),
        ([1000, 1], [1000, 1], 1.0, 0.0),
        ([9000, 500, 500], [8000, 1000, 1000], 2.710454321162526e-87, 0.11991021840559937),
        ([3] * 500, [4] * 250 + [2] * 250, 1.0, 0.1439473501802245),
        ([5, 0], [7, 0], None, 0.0),
        ([0, 0], [7, 1], None, 0.0),
        ([5, 0], [0, 7], 5.404574088581701e-05, 1.0),
    ],
)
def test_categories(a: list[int], b: list[int], p: float | None, distance: float) -> None:
    """`scipy.stats.chi2_contingency(…, lambda_="log-likelihood")`, and `scipy.spatial.distance.jensenshannon(…, 2)`."""
    assert g_test(a, b) == (None if p is None else pytest.approx(p, rel=1e-8))
    assert jensen_shannon(a, b) == pytest.approx(distance, rel=1e-9)


def test_holm() -> None:
    """The classic example of four hypotheses; a `None` is no test, and tests that are not shown count."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([0.01, None], 10) == [pytest.approx(0.1), None]
    assert holm([]) == []


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
)
def test_the_rest_of_a_sample(part: list[float], rest: list[float]) -> None:
    """The moments of a whole without those of a part are the moments of the rest, as far as floats tell."""

    def of(values: list[float]) -> Moments:
        mean = sum(values) / len(values)
        return Moments(len(values), mean, sum((value - mean) ** 2 for value in values))

    left, expected = of(part + rest).without(of(part)), of(rest)
    assert left.count == expected.count
    assert left.mean == pytest.approx(expected.mean, abs=1e-3)
    assert left.squares == pytest.approx(expected.squares, rel=1e-6, abs=10)


def test_against_scipy_itself() -> None:
    """The same on other numbers, where SciPy is installed."""
    stats = pytest.importorskip("scipy.stats")
    for count in (2, 5, 50, 5000):
        for shift in (0.0, 0.1, 1.0):
            found = welch(Moments(count, 0.0, count * 2.0), Moments(count + 1, shift, count * 1.0))
            expected = stats.ttest_ind_from_stats(
                0.0, (count * 2.0 / (count - 1)) ** 0.5, count, shift, 1.0, count + 1, equal_var=False
            )
            assert found == pytest.approx(expected.pvalue, rel=1e-8)
