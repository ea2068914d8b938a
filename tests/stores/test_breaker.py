"""The circuit breaker: who tries a store that does not answer, and who fails at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from hasher.stores.breaker import CircuitBreaker


def time_out() -> None:
    raise TimeoutError("It is late.")


def test_after_a_time_out_one_thread_tries_again_and_the_others_fail() -> None:
    breaker, tries, go_on = CircuitBreaker(), Event(), Event()

    def answer() -> int:
        tries.set()
        go_on.wait()
        return 42

    with pytest.raises(TimeoutError, match="It is late"):
        breaker.call(time_out)
    with ThreadPoolExecutor(1) as pool:
        trial = pool.submit(breaker.call, answer)
        tries.wait()
        for _ in range(3):
            with pytest.raises(TimeoutError, match="just now: It is late"):
                breaker.call(pytest.fail)
        go_on.set()
        assert trial.result() == 42
    assert breaker.call(answer) == 42


def test_of_many_who_meet_a_store_that_is_well_again_none_fails() -> None:
    breaker, barrier = CircuitBreaker(), Barrier(8)

    def answer() -> int:
        time.sleep(0.01)  # is what the store takes
        return 42

    def meet(_: int) -> int:
        barrier.wait()
        return breaker.call(answer)

    with pytest.raises(TimeoutError):
        breaker.call(time_out)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(meet, range(8))) == [42] * 8


def test_a_breaker_closes_when_a_call_ends_in_another_error() -> None:
    breaker = CircuitBreaker()
    for failing, error in ((time_out, TimeoutError), (lambda: 1 // 0, ZeroDivisionError)):
        with pytest.raises(error):
            breaker.call(failing)
    nested = breaker.call(lambda: breaker.call(lambda: 42))  # which an open one would not allow
    assert nested == 42


def test_an_exception_counts_as_a_time_out_if_the_store_says_so() -> None:
    breaker = CircuitBreaker(KeyError)

    def fail_while_another_tries() -> None:
        with pytest.raises(TimeoutError, match="just now: 'locked'"):
            breaker.call(pytest.fail)

    with pytest.raises(KeyError):
        breaker.call(dict[str, int]().__getitem__, "locked")
    breaker.call(fail_while_another_tries)
