"""What a build made, for a person and for machines: the same figures twice.

``report_dict`` is what ``--json`` prints; ``print_report`` draws tables of it. Neither computes anything: figures come
from the build, sizes from the bundles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exporter.built import Build, BuiltModel
from exporter.packing import PackedBundle
from exporter.pipeline import Outcome

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DEFAULT = "default"


def model_dict(model: BuiltModel, bundle: PackedBundle | None) -> dict[str, Any]:
    """Return the figures of one model as one JSON-ready object."""
    value: dict[str, Any] = {
        "cohort": model.cohort,
        "detector": model.detector,
        "form": model.form,
        "precision": model.precision,
        "evaluation": dict(model.evaluation),
        "parity": dict(model.parity),
        "costs": dict(model.costs),
        "threshold": {
            "anomaly_score": model.threshold.anomaly_score,
            "raw_score": model.threshold.raw_score,
            "alarms_per_device_day": model.threshold.alarms_per_device_day,
        },
        "signals": len(model.signals),
        "context": list(model.context),
        "features": len(model.features),
        "convert_seconds": round(model.convert_seconds, 4),
        "notes": list(model.notes),
        "below_goals": list(model.below_goals),
    }
    if bundle is not None:
        value |= {
            "path": bundle.path,
            "digest": bundle.digest,
            "bundle_bytes": len(bundle.data),
            "unpacked_bytes": bundle.unpacked_bytes,
        }
    return value


def build_dict(build: Build, bundles: Sequence[PackedBundle] = ()) -> dict[str, Any]:
    """Return the figures of a build as one JSON-ready object; bundles in the order of its models, or none."""
    packed: Sequence[PackedBundle | None] = bundles or [None] * len(build.models)
    return {
        "data": {"sha256": build.data_digest, "readings": build.readings, "devices": dict(build.devices)},
        "models": [model_dict(model, bundle) for model, bundle in zip(build.models, packed, strict=True)],
        "notes": list(build.notes),
        "timings": dict(build.timings),
    }


def report_dict(outcome: Outcome) -> dict[str, Any]:
    """Return everything about a build and its release as one JSON-ready object."""
    manifest = outcome.bundles[0].manifest
    return {
        "model": manifest.model,
        "version": manifest.version,
        "release_number": manifest.release_number,
        "channels": list(outcome.spec.release.channels),
        **build_dict(outcome.build, outcome.bundles),
        "seconds": dict(outcome.seconds),
        "release": None if outcome.release is None else outcome.release.to_dict(),
        "published": None if outcome.published is None else outcome.published.to_dict(),
        "rollout": None if outcome.rollout is None else outcome.rollout.to_dict(),
        "warnings": list(outcome.warnings),
    }


def print_report(outcome: Outcome, console: Console) -> None:
    """Draw the report of a build and its release for a person."""
    report = report_dict(outcome)
    console.rule(f"{report['model']} {report['version']}, release {report['release_number']}", align="left")
    print_build(report, console)
    for line in release_lines(report):
        console.print(line, markup=False, highlight=False)
    total = sum(report["seconds"].values())
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in report["seconds"].items() if seconds >= 0.05)
    console.print(f"{total:.1f} s in all: {steps}.", markup=False, highlight=False)


def print_build(report: Mapping[str, Any], console: Console) -> None:
    """Draw the tables of a build: what was trained on, how good it is, how true and how large the graphs are."""
    data = report["data"]
    devices = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in data["devices"].items())
    console.print(f"{data['readings']:,} readings; devices: {devices}.", markup=False, highlight=False)
    console.print(_quality(report["models"]))
    console.print(_forms(report["models"]))
    for line in _remarks(report):
        console.print(f"- {line}", markup=False, highlight=False)


def release_lines(report: Mapping[str, Any]) -> list[str]:
    """Return sentences on how far the release went, and what comes next."""
    lines = [f"! {warning}" for warning in report["warnings"]]
    release, published, rollout = report["release"], report["published"], report["rollout"]
    if release is None:
        return [*lines, "Packed, not released: give --repository to list it, --publish URL to send it."]
    if release["signatures"] < release["signatures_needed"]:
        return [
            *lines,
            f"Signed by {release['signatures']} of {release['signatures_needed']}. Next: exporter sign "
            f"{release['folder']} --key FILE, then exporter publish {release['folder']}",
        ]
    if published is None:
        return [*lines, f"Signed. Next: exporter publish {release['folder']} --server URL --token-file FILE"]
    lines.append(
        f"Published: targets {published['targets_version']}, {len(published['added'])} bundles added, "
        f"{len(published['withdrawn'])} withdrawn."
    )
    if rollout is None:
        channel = report["channels"][0]
        lines.append(
            f"No device gets it yet. Next: exporter rollout {channel} --model {report['model']} "
            f"--release {report['release_number']} --staged"
        )
    else:
        lines.append(f"Rolled out to {rollout['share'] / 100:g} % of the channel's devices.")
    return lines


def _quality(models: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("How good it is, on devices it was not trained on")
    heads = ("model", "AUC", "single readings", "faulty caught", "how early", "healthy alarms a device and day")
    for head in heads:
        table.add_column(head, justify="left" if head == "model" else "right", overflow="fold")
    for model in models:
        table.add_row(model["cohort"] or DEFAULT, *quality_cells(model["evaluation"]))
    return table


def quality_cells(figures: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Return the figures of one model for a table: AUC, that of single readings, caught, how early, healthy alarms."""
    return (
        number(figures.get("auc"), 4),
        number(_at(figures, "baseline", "auc"), 4),
        _caught(figures),
        _early(figures),
        _alarms(figures),
    )


def _forms(models: Sequence[Mapping[str, Any]]) -> Table:
    """Return the candidates: what each keeps of the trained model, and what it costs on this machine."""
    table = _table(
        "The forms it could ship in; * ships. Fidelity is that of the worst data set; us of processor time a window"
    )
    heads = ("model", "form", "on disk", "deflated", "load", "1", "100", "10,000", "Spearman", "flips", "AUC change")
    for head in heads:
        table.add_column(head, justify="left" if head in ("model", "form") else "right", overflow="fold")
    for model in models:
        for name, form in model["parity"]["candidates"].items():
            mark = "*" if name == model["form"] else ""
            cost = model["costs"][name]
            table.add_row(
                model["cohort"] or DEFAULT,
                f"{name}{mark}",
                f"{cost['bytes'] / 1000:.0f} KB",
                f"{cost['bytes_deflated'] / 1000:.0f} KB",
                f"{cost['load_ms']:.1f} ms",
                *(number(float(value), 3) for value in cost["window_us"].values()),
                *_worst(form["sets"].values()),
            )
    return table


def _worst(sets: Iterable[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Return the lowest rank correlation, the largest share of flips and the largest loss of AUC."""
    figures = list(sets)
    changes = [one["auc_change"] for one in figures if one["auc_change"] is not None]
    return (
        number(min(one["spearman"] for one in figures), 6),
        f"{max(one['label_flip_share'] for one in figures):.3%}",
        f"{min(changes):+.5f}" if changes else "-",
    )


def _remarks(report: Mapping[str, Any]) -> list[str]:
    """Return every note once, with the models it is about."""
    seen: dict[str, list[str]] = {}
    for model in report["models"]:
        name = model["cohort"] or DEFAULT
        forms = [f"{form}: {cost['verdict']}{_stayed(model, form)}" for form, cost in model["costs"].items()]
        for note in (*model["notes"], *forms, *(f"below a goal: {goal}" for goal in model["below_goals"])):
            seen.setdefault(note, []).append(name)
    return [*report["notes"], *(f"{', '.join(names)}: {note}" for note, names in seen.items())]


def _stayed(model: Mapping[str, Any], form: str) -> str:
    """Return which operators of a form stayed float, as a sentence; empty where that is all of them or none."""
    nodes = model["parity"]["candidates"][form]["float_nodes"]
    return f" Stayed float: {', '.join(nodes)}." if nodes else ""


def number(value: object, digits: int = 3) -> str:
    """Return a figure for a table; a dash for one that is not there."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}g}" if abs(value) < 1 else f"{value:.{max(0, digits - 1)}f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def _caught(figures: Mapping[str, Any]) -> str:
    share = figures.get("faulty_devices_caught_share")
    caught, of = figures.get("faulty_devices_caught"), figures.get("faulty_devices")
    if caught is not None and of is not None:
        return f"{caught} of {of}"
    return "-" if share is None else f"{100 * share:.0f} %"


def _early(figures: Mapping[str, Any]) -> str:
    hours = figures.get("median_hours_early")
    return "-" if hours is None else f"{hours:.0f} h" if hours < 96 else f"{hours / 24:.1f} days"


def _alarms(figures: Mapping[str, Any]) -> str:
    alarms = figures.get("healthy_alarms_per_device_day")
    if not isinstance(alarms, Mapping):
        return number(alarms)
    most = alarms.get("max")
    worst = "" if most is None else f" (worst device {most:.3g})"
    return f"{number(alarms.get('mean'))}{worst}"


def _at(figures: Mapping[str, Any], *path: str) -> Any:
    value: Any = figures
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", header_style="bold")
