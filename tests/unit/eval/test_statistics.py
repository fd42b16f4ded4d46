"""Paired tests against constructed data whose answers are known, and against SciPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from eval.statistics import (
    bootstrap_interval,
    compare_paired,
    effect_size,
    holm,
    randomisation_p,
)
from rag.errors import EvaluationError


def test_few_differences_are_tested_exactly() -> None:
    # Of the 2^5 sign patterns only all-plus and all-minus are as extreme.
    assert randomisation_p(np.array([0.1, 0.2, 0.1, 0.3, 0.1])) == 2 / 32
    assert randomisation_p(np.array([-0.1, -0.2, -0.1]), alternative="less") == 1 / 8
    assert randomisation_p(np.array([0.1, 0.2, 0.1]), alternative="less") == 1.0


def test_exact_p_equals_the_enumeration() -> None:
    differences = np.random.default_rng(3).normal(0.1, 0.3, 9)
    sums = [abs(np.dot(s, differences)) for s in itertools.product((-1, 1), repeat=9)]
    expected = np.mean([s >= abs(differences.sum()) - 1e-12 for s in sums])
    assert randomisation_p(differences) == pytest.approx(expected)


def test_rounding_does_not_split_equal_sums() -> None:
    rng = np.random.default_rng(8)
    for _ in range(50):
        tenths = rng.integers(-9, 10, 8).astype(np.float64)
        assert randomisation_p(tenths / 10) == randomisation_p(tenths)


def test_sampled_p_is_near_scipys() -> None:
    rng = np.random.default_rng(11)
    a = rng.random(200)
    b = a + rng.normal(0.02, 0.15, 200)
    theirs = stats.permutation_test(
        (b - a,), np.mean, permutation_type="samples", n_resamples=20_000, rng=5
    ).pvalue
    assert randomisation_p(b - a) == pytest.approx(theirs, abs=0.015)
    assert randomisation_p(b - a) == pytest.approx(stats.ttest_rel(b, a).pvalue, abs=0.02)


def test_no_difference_is_never_significant() -> None:
    same = np.random.default_rng(0).random(50)
    found = compare_paired(same, same)
    assert (found.p, found.difference, found.effect) == (1.0, 0.0, 0.0)
    assert (found.low, found.high) == (0.0, 0.0)
    assert (found.wins, found.losses, found.ties, found.n) == (0, 0, 50, 50)


def test_a_clear_difference_is_found_with_its_size() -> None:
    rng = np.random.default_rng(1)
    a = rng.random(300)
    found = compare_paired(a, a + rng.normal(0.05, 0.1, 300))
    assert found.p < 0.001
    assert found.low < 0.05 < found.high
    assert found.effect == pytest.approx(0.5, abs=0.15)
    assert found.wins > found.losses


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(2)
    rejected = sum(
        randomisation_p(rng.normal(0, 1, 30), permutations=500) < 0.1 for _ in range(400)
    )
    assert 20 <= rejected <= 62  # 40 expected, standard deviation 6


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.exponential(1.0, 60), resamples=500)
        inside += low <= 1.0 <= high
    assert 0.86 <= inside / 300 <= 0.98


def test_the_interval_is_near_scipys() -> None:
    values = np.random.default_rng(9).random(80)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_the_same_seed_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random(40), rng.random(40)
    assert compare_paired(a, b) == compare_paired(a, b)
    assert compare_paired(a, b, seed=1).p != compare_paired(a, b, seed=2).p


def test_constant_differences_have_no_effect_size() -> None:
    assert effect_size(np.full(5, 0.25)) is None
    assert effect_size(np.zeros(5)) == 0.0
    assert effect_size(np.array([0.1, 0.3])) == pytest.approx(0.2 / np.std([0.1, 0.3], ddof=1))


def test_holm_adjusts_in_steps() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


def test_scores_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(EvaluationError, match="scores of 3 queries cannot be paired"):
        compare_paired(np.zeros(3), np.zeros(4))
    with pytest.raises(EvaluationError, match="not a finite number"):
        compare_paired(np.zeros(2), np.array([0.0, np.nan]))
    with pytest.raises(EvaluationError, match="no query"):
        compare_paired(np.zeros(0), np.zeros(0))
