"""The settings of the methods that weigh two rewards, and which is the best one at a satisfaction.

Each method is a family of arms, one for each setting of its weights or thresholds. Knows no answer
but its figures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clients.eval.core.asking import Arm
from clients.eval.core.statistics import wilson

POLICIES = ("helpful", "harmless")
REWARDS = ("helpfulness", "harmlessness")
BOTH = "helpful_and_harmless"
Families = Mapping[str, Sequence[Arm]]


@dataclass(frozen=True)
class Settings:
    """The options, read. Thresholds by utility, temperatures for whoever draws."""

    thresholds: Mapping[str, Sequence[float]]
    weights: Sequence[float]
    strengths: Sequence[float]
    samples: Sequence[int]
    temperatures: Sequence[float]
    candidates: int
    alpha: float
    levels: Sequence[float]

    @staticmethod
    def of(options: Mapping[str, str]) -> "Settings":
        """Raises ValueError for what is no number."""
        utilities = [one for one in options["utilities"].split(",") if one]
        return Settings(
            {utility: _numbers(options[utility]) for utility in utilities},
            _numbers(options["weights"]),
            _numbers(options["strengths"]),
            [int(one) for one in _numbers(options["samples"])],
            _numbers(options["temperatures"]),
            int(options["candidates"]),
            float(options["alpha"]),
            _numbers(options["levels"]),
        )

    def base(self) -> Arm:
        """The base policy alone."""
        return Arm("policy[base]", {"strategy": "plain"}, sampled(1.0))

    def singles(self) -> list[Arm]:
        """Each policy of a single reward alone."""
        return [
            _arm("mod", f"policy[{name}]", {"policies": [name], "weights": [1.0]}, 1.0)
            for name in POLICIES
        ]

    def families(self) -> dict[str, list[Arm]]:
        """All settings of all methods."""
        found = {
            f"sitalign[{utility}]": list(self._sitalign(utility)) for utility in self.thresholds
        }
        found["mod"] = list(self._mod())
        found["genarm"] = list(self._genarm())
        found |= {name: list(self._args(name, params)) for name, params in ARGS.items()}
        found["best_of_n"] = [
            _arm("best_of_n", f"best_of_n[samples={n}]", {"samples": n, "monitor": BOTH}, 1.0, n)
            for n in self.samples
        ]
        return found

    def _sitalign(self, utility: str) -> Iterator[Arm]:
        params = {
            "utility": utility, "primary": REWARDS[0], "constrained": [REWARDS[1]], "base": "base",
            "candidates": self.candidates, "alpha": self.alpha,
        }  # fmt: skip
        rows = self.candidates if utility == "rollout" else 1
        for t in self.temperatures:
            for least in self.thresholds[utility]:
                name = f"sitalign[{utility},threshold={least:g},temperature={t:g}]"
                yield _arm("sitalign", name, {**params, "thresholds": [least]}, t, rows)

    def _mod(self) -> Iterator[Arm]:
        for t in self.temperatures:
            for weight in self.weights:
                params = {"policies": list(POLICIES), "weights": [1 - weight, weight]}
                yield _arm("mod", f"mod[harmless={weight:g},temperature={t:g}]", params, t)

    def _genarm(self) -> Iterator[Arm]:
        for t in self.temperatures:
            for weight in self.weights:
                alphas = [1 - weight, weight]
                params = {"base": "base", "rewards": list(REWARDS), "alphas": alphas}
                yield _arm(
                    "genarm", f"genarm[harmlessness={weight:g},temperature={t:g}]", params, t
                )

    def _args(self, family: str, params: Mapping[str, Any]) -> Iterator[Arm]:
        """Greedy, as in its source."""
        for weight in self.strengths:
            name = f"{family[:-1]},weight={weight:g}]"
            own = {**params, "candidates": self.candidates, "weight": weight}
            yield _arm("args", name, own, 0.0)


ARGS: Mapping[str, Mapping[str, Any]] = {
    "args[base,helpfulness]": {"policy": "base", "monitor": REWARDS[0]},
    "args[helpful,harmlessness]": {"policy": "helpful", "monitor": REWARDS[1]},
    "args[base,both]": {"policy": "base", "monitor": BOTH},
}
"""One reward alone; a helpful policy with the other reward; the worse of both rewards."""


def sampled(temperature: float) -> dict[str, Any]:
    """The sampling of an arm; an answer has some twenty tokens."""
    return {"temperature": temperature, "top_p": 1.0, "max_tokens": 40}


def _arm(
    strategy: str, name: str, params: Mapping[str, Any], temperature: float, rows: int = 1
) -> Arm:
    return Arm(name, {"strategy": strategy, "params": dict(params)}, sampled(temperature), rows)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


@dataclass(frozen=True)
class Tried:
    """How a setting did on the validation split."""

    arm: Arm
    reward: float
    satisfied: int
    n: int

    def reaches(self, level: float) -> bool:
        """Whether the share of satisfied answers is at least `level`, by its 95% lower bound."""
        return wilson(self.satisfied, self.n).low >= level


def best(tried: Sequence[Tried], level: float) -> Tried:
    """The most rewarded setting that reaches the level; without one the most satisfied."""
    able = [one for one in tried if one.reaches(level)]
    if able:
        return max(able, key=lambda one: one.reward)
    return max(tried, key=lambda one: (one.satisfied, one.reward))
