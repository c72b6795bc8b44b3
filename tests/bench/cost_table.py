"""python tests/bench/cost_table.py [--core_hour PRICE] [--hours_per_shard H]: what stages 0 to 2 cost.

Computed from the rates below, which tests/bench/shard_rates.py measured; in core-hours, and in money where the price of
a core for an hour is given, in the unit in which it is given. No price is known here, and no rate of a GPU: none was
measured. The rates are proportional to the sound; what is not (transcripts, which run on one machine) is not in it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

HOURS = (1, 100, 10_000)


@dataclass(frozen=True)
class Rate:
    """`cpu_s`: of work per hour of sound. `shard_cpu_s`: what a shard costs beside it: start, libraries, hashing."""

    name: str
    steps: int
    cpu_s: float
    shard_cpu_s: float


RATES = (
    Rate("0 (prepare)", 2, 16.3, 3.2),
    Rate("1 (embed)", 1, 39.0, 3.8),
    Rate("2 (tokenize)", 1, 133.2, 4.5),
)
DISK_GB = {"tracks, until stage 0 ends": 4 * 24000 * 3600 / 1e9, "clips": 2 * 24000 * 3600 / 1e9}
"""Per hour of sound, computed: float32 and int16 at 24 kHz."""


def main() -> int:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core_hour", type=float, help="the price of one processor core for an hour")
    parser.add_argument("--hours_per_shard", type=float, default=1.0, help="as shards.nj: auto with slurm and ray")
    arguments = parser.parse_args()
    print(f"| stage | {' | '.join(f'{hours:,} h of sound' for hours in HOURS)} |\n|---|{'---|' * len(HOURS)}")
    totals = [0.0] * len(HOURS)
    for rate in RATES:
        costs = [core_hours(rate, hours, arguments.hours_per_shard) for hours in HOURS]
        totals = [total + cost for total, cost in zip(totals, costs, strict=True)]
        print(f"| {rate.name}, core-hours | {' | '.join(map(shown, costs))} |")
    print(f"| all, core-hours | {' | '.join(map(shown, totals))} |")
    if arguments.core_hour is not None:
        print(f"| all, at {arguments.core_hour:g} a core-hour | "
              f"{' | '.join(shown(total * arguments.core_hour) for total in totals)} |")  # fmt: skip
    for name, per_hour in DISK_GB.items():
        print(f"| {name}, GB | {' | '.join(shown(per_hour * hours) for hours in HOURS)} |")
    print("| GPU-hours | not measured | not measured | not measured |")
    return 0


def core_hours(rate: Rate, hours: float, hours_per_shard: float) -> float:
    """Cut as many hours to a shard; at least one shard for each step."""
    shards = max(1, round(hours / hours_per_shard)) * rate.steps
    return (rate.cpu_s * hours + rate.shard_cpu_s * shards) / 3600


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
