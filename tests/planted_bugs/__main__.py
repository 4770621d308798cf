"""`python -m tests.planted_bugs`: looks for every plant, or for some, and says where it was found.

For each it runs seed after seed until an invariant breaks, and then the same seed without the
plant, which must be whole. Exits with 1 if a plant was not found, or if a world is not whole.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass

from tests.planted_bugs.catalogue import PLANTS
from tests.planted_bugs.plant import Plant
from tests.simulation.run import run_seed

# Orders in each world: few, for most of these mistakes show with any.
_ORDERS_PER_SEED = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What became of the search for one plant.

    Attributes:
        seed: The one that showed it, which is also how many were run; None if none did.
        invariant: The first that broke.
        is_whole_without: Whether nothing breaks in that world without the plant.
    """

    name: str
    seed: int | None = None
    invariant: str | None = None
    subject: str = ""
    detail: str = ""
    is_whole_without: bool = False


def main() -> int:
    """Look for what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted_bugs", description=__doc__)
    parser.add_argument("names", nargs="*", help="of plants; none is all")
    parser.add_argument("--seeds-max", type=int, default=1_000)
    arguments = parser.parse_args()
    searches: list[Search] = []
    for name in arguments.names or PLANTS:
        searches.append(search(PLANTS[name], seeds_max=arguments.seeds_max))
        print(json.dumps(asdict(searches[-1])), flush=True)  # noqa: T201 (a command)
    return 0 if all(each.is_whole_without for each in searches) else 1


def search(plant: Plant, *, seeds_max: int) -> Search:
    """Run seeds from 1 on until one of them breaks with the plant."""
    for seed in range(1, seeds_max + 1):
        with plant.planted():
            outcome = run_seed(seed, orders_count=_ORDERS_PER_SEED)
        if outcome.breaches:
            breach = outcome.breaches[0]
            whole = run_seed(seed, orders_count=_ORDERS_PER_SEED)
            return Search(
                name=plant.name,
                seed=seed,
                invariant=breach.invariant,
                subject=breach.subject,
                detail=breach.detail,
                is_whole_without=not whole.breaches,
            )
    return Search(name=plant.name)


if __name__ == "__main__":
    sys.exit(main())
