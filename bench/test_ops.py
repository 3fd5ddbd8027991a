"""Every case under pytest-benchmark: right first, then eager and segfast in turns; never fails on a time.

`pytest bench` times; `pytest bench --benchmark-disable` only checks and calls both sides once.
"""

# SPDX-License-Identifier: Apache-2.0

import pytest

from segfast.bench.harness import cases

ROUNDS = 5


@pytest.fixture(scope="module", params=cases(), ids=lambda case: f"{case.op}: {case.name}")
def ready(request):
    """A case and its calls, checked against the reference."""
    work = request.param.work("cpu")
    work.check()
    return request.param, work


@pytest.mark.parametrize("side", ["eager", "segfast"])
def test_case(ready, side, benchmark, medians):
    case, work = ready
    timed, other = (work.eager, work.segfast) if side == "eager" else (work.segfast, work.eager)

    def take_turns():  # A B A B ...: the other side goes first, not timed
        other()

    benchmark.group = f"{case.op}: {case.name}"
    benchmark.extra_info |= {"op": case.op, "case": case.name}
    benchmark.pedantic(timed, setup=take_turns, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats is not None:  # None with --benchmark-disable
        medians.setdefault((case.op, case.name), {})[side] = benchmark.stats.stats.median
