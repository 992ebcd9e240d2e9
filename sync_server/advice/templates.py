"""Advice without an endpoint: plain sentences from what the record holds, and nothing that it does not hold."""

from __future__ import annotations

from sync_server.advice.patterns import CONTEXT, Band, Finding

# A signal that carries this much of what raises the score stands alone.
ALONE = 0.7
_MEANING: dict[Band, str] = {
    "slight": "The device left its normal range by a little. Healthy devices do so now and then.",
    "clear": "The device behaves as fewer than one in a thousand healthy windows of the training data did.",
    "extreme": "The device behaves as practically no healthy window of the training data did.",
}
_URGENCY: dict[Band, str] = {
    "slight": "Wait whether it comes back; if it does, look at the device at the next occasion.",
    "clear": "Look at the device today, and compare it with others of its kind.",
    "extreme": "Look at the device now. If it can do harm, take it out of service until somebody has.",
}
UNKNOWN = (
    "The server does not know the bundle that found this incident, so nothing signed says what its signals are.\n\n"
    "What to do: publish the release that the device runs to this server, or find out where the device has it from."
)


def write(finding: Finding) -> str:
    """Return the text for an incident: what was seen, what it may mean, what to do. Plain text, three paragraphs."""
    return "\n\n".join((_seen(finding), _meaning(finding), _advice(finding)))


def _seen(finding: Finding) -> str:
    length = "1 window" if finding.windows == 1 else f"{finding.windows} windows"
    state = "It has ended." if finding.is_over else "No end was reported yet."
    sentences = [
        f"The worst of {length} scores {finding.peak_score:.4f}; alarms begin at {finding.threshold:.4f}.",
        state,
        _signals(finding),
    ]
    return "What was seen: " + " ".join(sentences)


def _signals(finding: Finding) -> str:
    named = [part for part in finding.pattern.parts if part.direction == "raises"]
    if not named:
        return "No single signal stands out: all of them together are unusual."
    ordered = sorted(named, key=lambda part: -finding.shares[part.name])
    listed = [f"{_called(part.name, part.unit)} with {abs(finding.shares[part.name]):.0%}" for part in ordered]
    sentence = f"What raises the score most is {_joined(listed)} of all contributions."
    lowering = [_called(part.name, part.unit) for part in finding.pattern.parts if part.direction == "lowers"]
    if lowering:
        sentence += f" {_joined(lowering)} looks healthier than usual, which often means that it is stuck or steady."
    return sentence


def _meaning(finding: Finding) -> str:
    return f"What it may mean: {_MEANING[finding.pattern.band]} {_cause(finding)}"


def _cause(finding: Finding) -> str:
    raising = {name: share for name, share in finding.shares.items() if share > 0}
    total = sum(raising.values())
    lead = max(raising, key=lambda name: raising[name], default=None)
    if lead is None:
        return "The combination of signals is new, not any one of them."
    if lead == CONTEXT:
        return "It is used in a way, or in surroundings, that the training data hardly holds; it need not be broken."
    if raising[lead] >= ALONE * total:
        return f"{_called(lead, finding.units[lead])} stands alone: a sensor that drifts or is loose looks like this."
    return "Several signals moved together, which one bad sensor does not explain."


def _advice(finding: Finding) -> str:
    names = [part.name for part in finding.pattern.parts if part.direction == "raises" and part.name != CONTEXT]
    steps = [_URGENCY[finding.pattern.band]]
    if names:
        steps.append(f"Begin with {_joined(names)}: check the sensor and its mounting first, then what it measures.")
    if any(part.name == CONTEXT for part in finding.pattern.parts):
        steps.append("Ask how the device is used; if that is to stay, bring such readings into the next training.")
    steps.append(
        "If other devices of the cohort show the same, suspect the release or the surroundings before the devices."
    )
    return "What to do: " + " ".join(steps)


def _called(name: str, unit: str) -> str:
    if name == CONTEXT:
        return "what the device is doing (its context)"
    return f"{name} ({unit})" if unit else name


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
