"""Has a ratio become worse? For CI: two results of one machine, of the base and of the change.

Only ratios are compared (figures in ``x``: one side's time by another's in the same run), since absolute times of two
machines, or of two hours on one, say nothing. Both results say how often ours was faster, and more is better, unless
the figure's goal is an ``at_most``. A ratio has regressed when it is worse by more than the threshold *and* by more
than noise: where both sides kept the ratio of every turn, the notches around the medians, 1.57 times the quartiles'
distance by the root of the number of turns, must not overlap (McGill, Tukey, Larsen 1978)::

    python -m benchmarks.compare --baseline base/ --current head/ --threshold 0.05

Exit codes: 0 no ratio regressed, 1 at least one did, 2 usage, 3 there is nothing to compare.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import FORMAT, grid, number

RATIO = "x"
BAD_INPUT = 3
COLUMNS = ("ratio", "baseline", "current", "change", "noise", "verdict")


class NothingToCompareError(Exception):
    """A file or folder that holds no results of this format, or results that cannot be compared."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One ratio in both results.

    Attributes:
        name: Benchmark and figure.
        baseline: Its value there.
        current: Its value here.
        change: Share by which it became better; negative is worse.
        noise: Share that the notches of both reach together; 0 where turns were not kept.
    """

    name: str
    baseline: float
    current: float
    change: float
    noise: float

    def regressed(self, threshold: float) -> bool:
        """Whether it is worse by more than the threshold and by more than noise."""
        return -self.change > max(threshold, self.noise)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return results by benchmark.

    Args:
        path: A result file, or a folder of them.

    Raises:
        NothingToCompareError: There is none, or one is no result of this format.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise NothingToCompareError(f"{path} holds no result. Run: python -m benchmarks scoring")
    results = {}
    for file in files:
        try:
            result = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise NothingToCompareError(f"{file} cannot be read as a result: {error}") from error
        if (
            not isinstance(result, dict)
            or result.get("format") != FORMAT
            or not isinstance(result.get("figures"), list)
        ):
            raise NothingToCompareError(f"{file} is no benchmark result of format {FORMAT}.")
        results[str(result.get("benchmark"))] = result
    return results


def compare(
    baseline: Mapping[str, Mapping[str, Any]], current: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Ratio], list[str]]:
    """Pair the ratios of two sets of results.

    Args:
        baseline: What ``read`` returns.
        current: The same of the change.

    Returns:
        The ratios that both have, and the names of those that only one has a number for.

    Raises:
        NothingToCompareError: They have no ratio in common, or one run was quick and the other was not.
    """
    for name in sorted(baseline.keys() & current.keys()):
        if baseline[name].get("quick") != current[name].get("quick"):
            raise NothingToCompareError(f"One run of {name} was quick and the other was not; run both alike.")
    before, after = _ratios(baseline), _ratios(current)
    shared = [name for name in after if name in before]
    if not shared:
        raise NothingToCompareError("The two have no ratio in common, so nothing was compared.")
    return [_pair(name, before[name], after[name]) for name in shared], sorted(before.keys() ^ after.keys())


def _ratios(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {
        f"{benchmark}: {figure['name']}": figure
        for benchmark, result in results.items()
        for figure in result["figures"]
        if figure.get("unit") == RATIO and figure.get("value")
    }


def _pair(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Ratio:
    """Return the change of a ratio, as a share of what it was."""
    sign = -1.0 if after.get("at_most") is not None else 1.0
    change = sign * (after["value"] / before["value"] - 1)
    reach = _notch(before.get("repeats", ())) + _notch(after.get("repeats", ()))
    return Ratio(name, before["value"], after["value"], change, reach / before["value"])


def _notch(repeats: Sequence[float]) -> float:
    """Return how far the notch reaches from the median of the turns."""
    if len(repeats) < 2:
        return 0.0
    low, _, high = statistics.quantiles(repeats, n=4, method="inclusive")
    return float(1.57 * (high - low) / len(repeats) ** 0.5)


def table(ratios: Sequence[Ratio], threshold: float) -> str:
    """Lay the ratios out for a terminal, the worst change first."""
    rows = [
        [
            ratio.name,
            number(ratio.baseline),
            number(ratio.current),
            f"{ratio.change:+.1%}",
            f"{ratio.noise:.1%}",
            "REGRESSED" if ratio.regressed(threshold) else "",
        ]
        for ratio in sorted(ratios, key=lambda ratio: ratio.change)
    ]
    return grid(COLUMNS, rows)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--baseline", type=click.Path(path_type=Path), required=True, help="Result file or folder of the base.")
@click.option("--current", type=click.Path(path_type=Path), required=True, help="The same of the change.")
@click.option(
    "--threshold", type=click.FloatRange(min=0, max=1), default=0.05, show_default=True, help="Share that may be lost."
)
def main(baseline: Path, current: Path, threshold: float) -> None:
    """Fail when a ratio of ours to others in the same run became worse."""
    try:
        before, after = read(baseline), read(current)
        ratios, lonely = compare(before, after)
    except NothingToCompareError as error:
        click.echo(f"compare: {error}", err=True)
        sys.exit(BAD_INPUT)
    click.echo(table(ratios, threshold))
    for name in lonely:
        click.echo(f"on one side only: {name}")
    if _machines(before) != _machines(after):
        click.echo("The runs were on different machines: ratios only, and with less trust.")
    worse = sum(ratio.regressed(threshold) for ratio in ratios)
    click.echo(f"{worse} of {len(ratios)} ratios regressed by more than {threshold:.0%} and more than noise.")
    sys.exit(1 if worse else 0)


def _machines(results: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {str(result.get("machine", {}).get("processor")) for result in results.values()}


if __name__ == "__main__":
    main()
