"""Claim: of several specialists, the one whose token is worth most speaks, and all tasks get done.

Source: arXiv 2503.21720 (Collab). Prompts list three small tasks of three kinds; each policy does
one kind well. An answer's reward is the share of its segments that are right, by rule; what guides
the strategies is a trained reward model. What must be chosen (the best single policy, weights of
the mixture, look-ahead and divergence of Collab) is chosen on the validation split. Everything is
compared to the best single policy, paired by prompt, with intervals from a bootstrap over prompts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.eval.core.asking import Arm, Reply
from clients.eval.core.bench import Bench
from clients.eval.core.errands import FOLDER, Errands, load, names, rewards
from clients.eval.core.report import Report, Row, mean_cost
from clients.eval.core.statistics import Interval, difference, mean, ratio

TITLE = "Collab: of several policies the one whose token is worth most speaks (arXiv 2503.21720)"
OPTIONS: Mapping[str, str] = {
    "model": "satisfice-mini-policies",
    "policies": "sort,raise,code",
    "target": "errands_reward",
    "wish": "wish",
    "parts": "alone,mixtures,samples,collab,blocks,agents,paper",
    "candidates": "3",
    "many": "10",
    "lookaheads": "4,20",
    "alphas": "0,0.05",
    "blocks": "4",
    "samples": "4,16",
    "max_tokens": "24",
    "validation": "72",
    "test_file": str(FOLDER / "test.jsonl"),
    "validation_file": str(FOLDER / "validation.jsonl"),
}
PROMPTS = 504
AIM = 1.2
# What the paper set, in rewards of another scale.
PAPER: Mapping[str, Any] = {"candidates": 10, "alpha": 1.0, "lookahead": 20}
PLAUSIBLE = 0.1  # of an agent's best probability; the paper considers every candidate


@dataclass(frozen=True)
class Settings:
    """The options, read."""

    policies: Sequence[str]
    target: str
    wish: str
    parts: Sequence[str]
    candidates: int
    many: int
    lookaheads: Sequence[int]
    alphas: Sequence[float]
    blocks: Sequence[int]
    samples: Sequence[int]
    longest: int

    @staticmethod
    def of(options: Mapping[str, str]) -> "Settings":
        """Raises ValueError for what is no number."""

        def listed(name: str) -> list[str]:
            return [part for part in options[name].split(",") if part]

        return Settings(
            listed("policies"), options["target"], options["wish"], listed("parts"),
            int(options["candidates"]), int(options["many"]), [*map(int, listed("lookaheads"))],
            [*map(float, listed("alphas"))], [*map(int, listed("blocks"))],
            [*map(int, listed("samples"))], int(options["max_tokens"]),
        )  # fmt: skip

    def policy(self, name: str, temperature: float) -> Arm:
        """One policy alone: a mixture of one."""
        decoding = {"strategy": "mod", "params": {"policies": [name], "weights": [1.0]}}
        shown = name if temperature else f"{name},temperature=0"
        return Arm(f"policy[{shown}]", decoding, self._sampling(temperature))

    def mod(self, weights: Sequence[float], temperature: float) -> Arm:
        """A weighted product of all policies."""
        shown = ",".join(f"{weight:.2g}" for weight in weights)
        shown += "" if temperature else ",temperature=0"
        params = {"policies": list(self.policies), "weights": list(weights)}
        return Arm(
            f"mod[{shown}]", {"strategy": "mod", "params": params}, self._sampling(temperature)
        )

    def sampled(self, policy: str, samples: int, block: int | None = None) -> Arm:
        """The best of several samples of one policy, whole ones or block by block."""
        whole = block is None
        block = block or self.longest
        params = {"policy": policy, "samples": samples, "block": block, "monitor": self.target}
        shown = f"samples={samples}" + ("" if whole else f",block={block}")
        name = "best_of_n" if whole else "controlled_decoding"
        # Blocks as long as the answer are best of n, of a policy by name.
        decoding = {"strategy": "controlled_decoding", "params": params}
        return Arm(f"{name}[{policy},{shown}]", decoding, self._sampling(1.0), samples)

    def collab(self, temperature: float = 0.0, **params: Any) -> Arm:
        """Collab with these parameters; the paper's candidates where nothing is said."""
        own: dict[str, Any] = {
            "agents": list(self.policies),
            "candidates": self.candidates,
            "target": self.target,
            "plausible": 0.0,
        }
        own |= params
        named = {**params, **({"agents": len(params["agents"])} if "agents" in params else {})}
        shown = ",".join(f"{key}={value}" for key, value in named.items() if key != "target")
        shown += f",temperature={temperature:g}" if temperature else ""
        rows = 1
        if own.get("utility", "rollout") == "rollout" or own.get("block", 1) > 1:
            rows = len(own["agents"]) * own["candidates"]
        decoding = {"strategy": "collab", "params": own}
        return Arm(f"collab[{shown}]", decoding, self._sampling(temperature), rows)

    def mixtures(self) -> list[list[float]]:
        """The same weight for all, and more than half for one of them."""
        count = len(self.policies)
        rest = 0.4 / (count - 1) if count > 1 else 0.0
        leaning = [[0.6 if i == j else rest for i in range(count)] for j in range(count)]
        return [[1 / count] * count, *(leaning if count > 1 else [])]

    def _sampling(self, temperature: float) -> dict[str, Any]:
        return {"temperature": temperature, "max_tokens": self.longest, "top_p": 1.0}


@dataclass(frozen=True)
class Chosen:
    """What the validation split says."""

    single: Arm
    policy: str
    weights: Sequence[float]
    lookahead: int
    alpha: float

    @property
    def ahead(self) -> Mapping[str, Any]:
        """Collab with look-aheads."""
        return {"lookahead": self.lookahead, "alpha": self.alpha}

    @property
    def prefix(self) -> Mapping[str, Any]:
        """Collab by the reward of unfinished text."""
        return {"utility": "prefix_reward", "alpha": self.alpha}


@dataclass
class Asking:
    """Asks the same prompts under many arms, none twice that differ in name only."""

    bench: Bench
    prompts: Sequence[Errands]
    done: dict[str, Sequence[Reply]] = field(default_factory=dict)

    async def ask(self, arm: Arm) -> Sequence[Reply]:
        """The replies in the prompts' order."""
        key = json.dumps([arm.decoding, arm.sampling], sort_keys=True)
        if key not in self.done:
            self.done[key] = await self.bench.ask(arm, self.prompts)
        return self.done[key]


@dataclass
class Found:
    """What every arm got, prompt by prompt."""

    bench: Bench
    report: Report
    prompts: Sequence[Errands]
    asking: Asking
    got: dict[str, Sequence[float]] = field(default_factory=dict)

    async def ask(self, arm: Arm) -> Row:
        """Asks all prompts and writes the arm's row."""
        replies = await self.asking.ask(arm)
        self.got[arm.name] = rewards(replies)
        value = mean(self.got[arm.name], names(self.prompts), self.bench.seed)
        row = Row.of(arm.name, "reward", value, mean_cost(replies))
        self.report.rows.append(row)
        return row

    def against(self, arm: str, other: str) -> tuple[Interval, Interval]:
        """(ratio, difference) of two arms, written as rows."""
        ours, theirs = self.got[arm], self.got[other]
        each, seed = names(self.prompts), self.bench.seed
        found = ratio(ours, theirs, each, seed), difference(ours, theirs, each, seed)
        for metric, value in zip(("reward_ratio", "reward_difference"), found, strict=True):
            self.report.rows.append(Row.of(f"{arm} / {other}", metric, value))
        return found


async def measure(bench: Bench) -> Report:
    """Chooses on validation, then asks every part's arms the test prompts."""
    settings = Settings.of(bench.options)
    report = Report("collab", [bench.asker.model])
    few = load(Path(bench.options["validation_file"]), int(bench.options["validation"]))
    prompts = load(Path(bench.options["test_file"]), bench.n or PROMPTS)
    bench.console.print(f"validation split, {len(few)} prompts")
    chosen = await choose(bench, settings, few, report)
    bench.console.print(f"test split, {len(prompts)} prompts")
    found = Found(bench, report, prompts, Asking(bench, prompts))
    single = await found.ask(chosen.single)
    parts = {
        "alone": alone, "mixtures": mixtures, "samples": samples, "collab": modes,
        "blocks": blocks, "agents": agents, "paper": paper,
    }  # fmt: skip
    for name in settings.parts:
        await parts[name](found, settings, chosen)
    compare(found, single.arm, settings)
    return report


async def choose(
    bench: Bench, settings: Settings, few: Sequence[Errands], report: Report
) -> Chosen:
    """The best single policy, mixture, look-ahead and divergence on the validation split."""

    asking = Asking(bench, few)

    async def best(arms: Sequence[Arm]) -> int:
        values = [sum(rewards(await asking.ask(arm))) / len(few) for arm in arms]
        told = ", ".join(f"{arm.name} {v:.3f}" for arm, v in zip(arms, values, strict=True))
        report.notes.append(f"validation (n={len(few)}): {told}")
        return values.index(max(values))

    alone = [(name, t) for name in settings.policies for t in (0.0, 1.0)]
    name, temperature = alone[await best([settings.policy(*one) for one in alone])]
    mixed = settings.mixtures()
    weights = mixed[await best([settings.mod(one, 0.0) for one in mixed])]
    ahead, alphas = settings.lookaheads, settings.alphas
    lookahead = ahead[await best([settings.collab(lookahead=n, alpha=alphas[0]) for n in ahead])]
    arms = [settings.collab(lookahead=lookahead, alpha=alpha) for alpha in alphas]
    alpha = alphas[await best(arms)]
    return Chosen(settings.policy(name, temperature), name, weights, lookahead, alpha)


async def alone(found: Found, settings: Settings, chosen: Chosen) -> None:
    """Every policy, sampled and greedy, and the target as a policy."""
    for name in (*settings.policies, settings.wish):
        for temperature in (0.0, 1.0):
            arm = settings.policy(name, temperature)
            if arm.name not in found.got:
                await found.ask(arm)


async def mixtures(found: Found, settings: Settings, chosen: Chosen) -> None:
    """The plain mixture and the best one."""
    equal = settings.mixtures()[0]
    for temperature in (0.0, 1.0):
        await found.ask(settings.mod(equal, temperature))
    if list(chosen.weights) != equal:
        await found.ask(settings.mod(chosen.weights, 0.0))


async def modes(found: Found, settings: Settings, chosen: Chosen) -> None:
    """Collab in every mode, and at its cost the best of n and blocks of the best single policy."""
    row = await found.ask(settings.collab(**chosen.ahead))
    answer = found.report.rows[0].cost["generated_tokens"]
    equal = min(128, max(2, round(row.cost["generated_tokens"] / answer)))
    for block in (None, *settings.blocks):
        await found.ask(settings.sampled(chosen.policy, equal, block))
    await found.ask(settings.collab(**chosen.prefix))
    implicit: dict[str, Any] = {
        "utility": "implicit",
        "target": settings.wish,
        "candidates": settings.many,
        "plausible": PLAUSIBLE,
    }
    await found.ask(settings.collab(**implicit, alpha=0.0))


async def blocks(found: Found, settings: Settings, chosen: Chosen) -> None:
    """Collab over blocks of several tokens, up to the whole answer."""
    for block in (*settings.blocks, settings.longest):
        for temperature in (0.0, 1.0):
            await found.ask(settings.collab(temperature, **chosen.prefix, block=block))


async def samples(found: Found, settings: Settings, chosen: Chosen) -> None:
    """The best of few samples of the best single policy, and block by block."""
    for count in settings.samples:
        for block in (None, *settings.blocks):
            await found.ask(settings.sampled(chosen.policy, count, block))


async def paper(found: Found, settings: Settings, chosen: Chosen) -> None:
    """As many candidates as the paper has, and all that it says; each also of plausible tokens."""
    many = {"candidates": settings.many}
    for params in ({**chosen.ahead, **many}, {**chosen.prefix, **many}, PAPER):
        await found.ask(settings.collab(**params))
        await found.ask(settings.collab(**params, plausible=PLAUSIBLE))


async def agents(found: Found, settings: Settings, chosen: Chosen) -> None:
    """Reward by the number of policies, the best single one first."""
    ordered = sorted(settings.policies, key=lambda name: name != chosen.policy)
    for params in (chosen.ahead, chosen.prefix):
        for count in range(1, len(ordered) + 1):
            named = ordered[:count] if count < len(ordered) else list(settings.policies)
            await found.ask(settings.collab(**params, agents=named))


def compare(found: Found, single: str, settings: Settings) -> None:
    """Ratios and differences to the best single policy, and what was aimed at."""
    report = found.report
    others = [name for name in found.got if name != single]
    if not any(found.got[single]):
        report.notes.append("the best single policy gets nothing right: there is no ratio to it")
        return
    ratios = {name: found.against(name, single)[0] for name in others}
    mine = [name for name in others if name.startswith("collab[lookahead=")][:1]
    for name in mine:
        sure = ratios[name].low >= AIM
        report.verdicts.append((f"{name} has at least {AIM} times the best policy (bound)", sure))
        equal = [other for other in others if other.startswith(("best_of_n", "controlled"))]
        report.verdicts += [
            (f"{name} is ahead of {other}", found.against(name, other)[1].low > 0)
            for other in equal
        ]


def draw(report: Report, path: Path) -> None:
    """Reward over generated tokens, and over the number of policies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    rows = [row for row in report.rows if row.metric == "reward"]
    for family in ("policy", "mod", "best_of_n", "controlled_decoding", "collab"):
        own = [row for row in rows if row.arm.partition("[")[0] == family]
        cost = [row.cost.get("generated_tokens", 0) for row in own]
        ends = [[r.value - r.low for r in own], [r.high - r.value for r in own]]
        left.errorbar(cost, [row.value for row in own], ends, fmt="o", label=family)
    left.set_xscale("log")
    left.set_xlabel("generated tokens a request")
    left.set_ylabel("reward")
    figure.legend(loc="outside lower left", ncols=5)
    for start in ("lookahead", "utility=prefix_reward"):
        own = [r for r in rows if r.arm.startswith(f"collab[{start}") and "agents=" in r.arm]
        counts = [int(row.arm.partition("agents=")[2].rstrip("]")) for row in own]
        right.set_xticks(counts)
        right.plot(counts, [row.value for row in own], marker="o", label=start)
    right.set_ylim(0, 1)
    right.set_xlabel("policies")
    right.legend(loc="lower right")
    figure.suptitle(f"{report.models[0]}, n = {rows[0].n}")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
