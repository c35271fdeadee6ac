"""Our SQL beside a well-kept statistics library: Wilson's interval, the delivery curve, Student."""

from __future__ import annotations

import warnings
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t
from statsmodels.duration.survfunc import CumIncidenceRight
from statsmodels.stats.proportion import proportion_confint

from tests.cohorts import NOON, receipt, table
from tests.watched_world import fill, warehouse

MOMENTS = [0, 1, 5, 20, 60, 150, 299]


def test_wilsons_interval_is_the_librarys():
    with warehouse() as con:
        for k, n in [(0, 1), (1, 1), (0, 40), (8, 10), (39, 40), (961_234, 1_000_000)]:
            query = f"SELECT wilson_low({k}, {n}), wilson_high({k}, {n})"
            assert con.execute(query).fetchall()[0] == pytest.approx(
                proportion_confint(k, n, method="wilson"), abs=1e-6
            )
        assert con.execute("SELECT wilson_low(0, 0), wilson_high(0, 0)").fetchall() == [(None,) * 2]


@pytest.mark.parametrize("freedom", [3, 5, 10, 30, 200])
def test_students_quantile_is_the_librarys_within_a_hundredth(freedom):
    with warehouse() as con:
        ((ours,),) = con.execute(f"SELECT usms_student({freedom})").fetchall()
    assert ours == pytest.approx(t.ppf(0.975, freedom), rel=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_the_curve_is_the_librarys(seed):
    """Random outcomes and random ends of watching, with ties: within 1e-9."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 400))
    left = random.integers(1, 300, count)
    # 0 censored, 1 delivered, 2 failed
    event = random.choice(3, count, p=[0.3, 0.5, 0.2])
    event[np.argmax(left)] = 0  # or the library divides by zero
    names = ["pending", "delivered", "failed"]
    rows = []
    for seconds, kind in zip(left.tolist(), event.tolist(), strict=True):
        moment = NOON + timedelta(seconds=seconds)
        given = {"received_at": moment, "final_at": moment} if kind else {}
        rows.append(receipt(names[kind], last_asked_at=moment, **given))
    with warehouse() as con:
        fill(con, table(rows, ("template",)))
        found = con.execute(f"FROM delivery_curve(seconds := {MOMENTS})").fetchall()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of its standard errors
        theirs = CumIncidenceRight(left.astype(float), event)
    assert set(event.tolist()) == {0, 1, 2} or count < 20
    for seconds, _, _, _, delivered, not_delivered in found:
        if delivered is None:
            continue
        place = int(np.searchsorted(theirs.times, seconds, side="right")) - 1
        shares = [incidence[place] if place >= 0 else 0 for incidence in theirs.cinc]
        shares += [0.0] * (2 - len(shares))
        assert (delivered, not_delivered) == pytest.approx(tuple(shares), abs=1e-9)
    assert all(a[4] <= b[4] for a, b in pairwise(found) if b[4] is not None)
