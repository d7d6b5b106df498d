"""When a program is restarted in place."""

from __future__ import annotations

from hasys.resources.restart import STABLE_RUN, RestartPolicy


def test_the_first_restart_is_at_once_and_the_others_wait() -> None:
    policy = RestartPolicy(retries=3, start_time=1, backoff=0.5)
    assert [policy.failed(0.1) for _ in range(4)] == [0.0, 0.5, 0.5, None]


def test_without_retries_the_first_failure_is_the_end() -> None:
    assert RestartPolicy(retries=0, start_time=1, backoff=0.5).failed(3) is None


def test_a_stable_run_forgives_earlier_failures() -> None:
    policy = RestartPolicy(retries=1, start_time=1, backoff=0.5)
    assert policy.failed(0.1) == 0.0
    assert policy.failed(STABLE_RUN) == 0.0
    assert policy.failed(STABLE_RUN - 1) is None


def test_a_slow_starter_is_stable_only_after_ten_start_times() -> None:
    policy = RestartPolicy(retries=1, start_time=30, backoff=0.5)
    assert policy.failed(1) == 0.0
    assert policy.failed(299) is None
    assert policy.failed(300) == 0.0


def test_one_restart_is_told_in_the_singular() -> None:
    policy = RestartPolicy(retries=2, start_time=30, backoff=0.5)
    told = []
    while policy.failed(0.1) is not None:
        told.append(policy.told)
    assert told == ["1 restart", "2 restarts"]
