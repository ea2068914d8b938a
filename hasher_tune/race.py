"""A race of candidates whose speeds are measured with noise: the best, and how sure that is.

In each block every candidate left is measured once, so that what disturbs the machine disturbs all
alike; two candidates are compared by the logarithm of their ratio within a block. After some blocks
(a look) those leave that are certainly slower than the best: racing, as in Maron and Moore's
Hoeffding races and in F-Race, with Student's t in place of their bounds.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from statistics import NormalDist, fmean
from typing import Any, Generic, Protocol, Self, TypeVar

ERROR = 0.05  # the chance that the interval of any given pair, at any look, misses the truth
DOUBT = 0.05  # the chance that another is better by more than NEAR, at one look
NEAR = 0.03  # a difference that does not matter
FIRST_LOOK = 3  # blocks
NEXT_LOOK = 1.2  # times as many
BORROWED = 4  # degrees of freedom that a pair's variance borrows from all pairs (as limma does)


@dataclass(frozen=True)
class Interval:
    """A ratio, and where it lies with the confidence that was asked for."""

    ratio: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.ratio:{spec}} ({self.low:{spec}}–{self.high:{spec}})"


def student(probability: float, freedom: float) -> float:
    """Return Student's quantile, by Fisher's expansion; 2 % off at worst from 6 degrees on."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


@dataclass(frozen=True)
class Sample:
    """Logarithms of ratios, without a tenth at either end (Yuen's trimmed mean).

    A burst that halves one measurement in thirty would otherwise be most of the variance.
    """

    mean: float
    variance: float
    """Of a single one; that of the mean is a `count`th of it."""
    count: int
    freedom: int

    @classmethod
    def of(cls, logs: list[float]) -> Self:
        """Take two or more logarithms."""
        ordered, count = sorted(logs), len(logs)
        cut = count // 10
        kept = ordered[cut : count - cut]
        pulled_in = [kept[0]] * cut + kept + [kept[-1]] * cut
        middle, factor = fmean(pulled_in), (len(kept) / count) ** 2
        squares = sum((value - middle) ** 2 for value in pulled_in)
        return cls(fmean(kept), squares / (count - 1) / factor, count, len(kept) - 1)

    def interval(self, error: float, borrowed: float = 0.0, freedom: int = 0) -> Interval:
        """Return the interval of the ratio, which misses it with the chance `error`.

        A variance that is known from elsewhere may be borrowed, with its degrees of freedom.
        """
        together = self.freedom + freedom
        spread = (freedom * borrowed + self.freedom * self.variance) / together
        half = student(1 - error / 2, together) * sqrt(spread / self.count)
        return Interval(exp(self.mean), exp(self.mean - half), exp(self.mean + half))


def paired(ours: list[float], theirs: list[float], error: float = 0.05) -> Interval:
    """Return the ratio of two lists that were measured side by side, at least six of each."""
    return Sample.of([log(a / b) for a, b in zip(ours, theirs, strict=True)]).interval(error)


class Candidate(Hashable, Protocol):
    """What can race: the simpler of two is the lesser."""

    def __lt__(self, other: Any, /) -> bool: ...


C = TypeVar("C", bound=Candidate)


class Race(Generic[C]):
    """The candidates left, and those that have left with how they stood to the best."""

    def __init__(self, candidates: list[C]) -> None:
        self.left = list(candidates)
        self.gone: dict[C, Interval] = {}
        self._logs: dict[C, list[float]] = {candidate: [] for candidate in candidates}
        self._joined = dict.fromkeys(candidates, 0)  # the block in which each was measured first
        self._blocks = self._looks = 0
        self._next_look = FIRST_LOOK
        self._common_variance = 0.0

    @property
    def blocks(self) -> int:
        """How many blocks were measured."""
        return self._blocks

    def join(self, candidate: C) -> None:
        """Let one more take part, from the next block on."""
        self.left.append(candidate)
        self._logs[candidate], self._joined[candidate] = [], self._blocks

    def add(self, block: Mapping[C, float]) -> bool:
        """Add what a block measured of every candidate left; True if it was time for a look."""
        for candidate in self.left:
            self._logs[candidate].append(log(block[candidate]))
        self._blocks += 1
        if self._blocks < self._next_look:
            return False
        self._next_look = max(self._blocks + 1, int(self._blocks * NEXT_LOOK))
        self._looks += 1
        self._look()
        return True

    def _look(self) -> None:
        """Let those leave that are certainly slower than the best."""
        best = self.best
        pairs = [self._differences(one, best) for one in self.left if one != best]
        known = [Sample.of(logs).variance for logs in pairs if len(logs) >= FIRST_LOOK]
        self._common_variance = fmean(known) if known else 0.0
        for candidate in [one for one in self.left if one != best]:
            found = self.against(candidate, best)
            if found.high < 1:
                self.left.remove(candidate)
                self.gone[candidate] = found

    def rounds(self, candidate: C) -> int:
        """Return in how many blocks `candidate` was measured."""
        return len(self._logs[candidate])

    @property
    def best(self) -> C:
        """The one with the highest mean, of those that were measured in the most blocks.

        One that has just joined is compared with the best of the others first.
        """
        veterans = [one for one in self.left if len(self._logs[one]) >= FIRST_LOOK] or self.left
        leader = veterans[0]
        for one in veterans[1:]:
            logs = self._differences(one, leader)
            if len(logs) > 1 and Sample.of(logs).mean > 0:
                leader = one
        return leader

    @property
    def is_decided(self) -> bool:
        """Whether no other left is better than the choice by a difference that matters."""
        return any(map(self._is_good, self.choices))

    @property
    def choices(self) -> list[C]:
        """The simplest candidates that no other seems to beat by a difference that matters.

        Several can be equally simple; then those that are certain, if any is, the fastest first.
        """
        leads = self._leads()
        # Half of what matters: at the whole of it, one would hardly ever become certain.
        seem = [one for one in self.left if leads[one] > log(1 - NEAR / 2)]
        simplest = [one for one in seem if not any(other < one for other in seem)]
        certain = list(filter(self._is_good, simplest))
        return sorted(certain or simplest, key=leads.__getitem__, reverse=True)

    def _leads(self) -> dict[C, float]:
        """Return the logarithm of the mean ratio to the best, for each that is left."""
        best = self.best
        logs = {one: self._differences(one, best) for one in self.left if one != best}
        means = {
            one: Sample.of(found).mean if len(found) >= FIRST_LOOK else -inf
            for one, found in logs.items()
        }
        return {best: 0.0, **means}

    def _is_good(self, candidate: C) -> bool:
        """Whether no other left is better by more than NEAR, each with the chance DOUBT.

        There is no allowance for the number of looks: an error here costs little more than NEAR,
        but one in dropping a candidate may cost much.
        """
        pairs = [self._differences(candidate, one) for one in self.left if one != candidate]
        return all(len(logs) >= FIRST_LOOK and self._low(logs) > 1 - NEAR for logs in pairs)

    def _low(self, logs: list[float]) -> float:
        """Where a ratio begins, with the chance DOUBT that it is less."""
        return Sample.of(logs).interval(2 * DOUBT, self._common_variance, BORROWED).low

    def against(self, one: C, other: C) -> Interval:
        """Return the ratio of one to another in the blocks that both were measured in.

        Each look takes a share of ERROR (1/2, 1/6, 1/12, …), and each of its comparisons an equal
        part of that. So the candidate that is truly the best is dropped with the chance ERROR / 2
        at most, however often one looks and whichever other one is taken for the best.
        """
        logs = self._differences(one, other)
        if len(logs) < FIRST_LOOK:
            return Interval(exp(fmean(logs)) if logs else 1.0, 0.0, inf)
        look = max(1, self._looks)
        error = ERROR / (look * (look + 1)) / max(1, len(self._logs) - 1)
        return Sample.of(logs).interval(error, self._common_variance, BORROWED)

    def _differences(self, one: C, other: C) -> list[float]:
        """Return the logarithms of their ratios, block by block."""
        ours, theirs = self._logs[one], self._logs[other]
        first = max(self._joined[one], self._joined[other])
        ours, theirs = ours[first - self._joined[one] :], theirs[first - self._joined[other] :]
        return [a - b for a, b in zip(ours, theirs, strict=False)]
