"""How often each way of finding SITAlign's multipliers breaks a constraint, on random states.

`python -m benchmarks.closed_forms` prints a table for the documentation: the share of feasible
states whose constraints are broken by more than the tolerance, for the certified solver and both
closed forms. The states are those of the solver's tests; their seed stands in the table.
"""

import argparse

from engines.rules.core.closed import quadratic
from engines.rules.core.dual import TOLERANCE, Solution, Status, solved
from tests.engines.rules.states import SEED, feasible, stated


def broken(found: Solution) -> float:
    """The share of states with a constraint broken, in percent."""
    return 100 * float((found.margin < -TOLERANCE).mean())


def main() -> None:
    """Prints the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--states", type=int, default=2000)
    asked.add_argument("--seed", type=int, default=SEED)
    given = asked.parse_args()
    print(f"{given.states} feasible states each, seed {given.seed}, 10 candidates, alpha 1")
    print("| spread / alpha | constraints | exact | unsolved | newton | expansion |")
    print("|---|---|---|---|---|---|")
    for spread in (0.3, 1.0, 30.0, 1000.0):
        for constraints in (1, 2, 3):
            states = stated(feasible(given.states, constraints, spread=spread, seed=given.seed))
            exact = solved(states)
            unsolved = int((exact.status == Status.UNSOLVED).sum())
            forms = [broken(quadratic(states, form)) for form in ("newton", "expansion")]
            shares = " | ".join(f"{share:.1f}%" for share in forms)
            print(f"| {spread:g} | {constraints} | {broken(exact):.1f}% | {unsolved} | {shares} |")


if __name__ == "__main__":
    main()
