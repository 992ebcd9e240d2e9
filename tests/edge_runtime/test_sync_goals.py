"""A device whose owner minds refuses a release that misses its makers' goals, and keeps what it has."""

from __future__ import annotations

import dataclasses

import pytest
from simulators.bundles import SmallBundle
from simulators.enrolled import EnrolledDevice
from simulators.sync_scenes import offer, refused

from edge_runtime.config import load_config
from edge_runtime.device import open_device

POOR = SmallBundle(version="2.0.0", release_number=2, bias=0.5, below_goals=("Single readings do better.",)).build()


def choosy(enrolled: EnrolledDevice) -> None:
    """Let the device refuse what misses its makers' goals."""
    enrolled.device = dataclasses.replace(enrolled.device, refuse_below_goals=True)


def test_a_release_below_its_goals_is_refused_where_the_owner_wants_that(enrolled: EnrolledDevice) -> None:
    choosy(enrolled)
    offer(enrolled, POOR)
    report = refused(enrolled, "below_goals")
    assert report.outcome.outcome == "refused"
    assert "Single readings do better." in str(report.error)
    better = SmallBundle(version="3.0.0", release_number=3).build()
    offer(enrolled, better)
    assert enrolled.sync().outcome.outcome == "activated"


@pytest.mark.parametrize("wanted", [True, False])
def test_the_setting_reaches_the_device(enrolled: EnrolledDevice, wanted: bool) -> None:
    home = str(enrolled.device.home.path)
    config = load_config({"home": home}, {"EDGE_RUNTIME_REFUSE_BELOW_GOALS": str(wanted)})
    with open_device(config) as device:
        assert device.refuse_below_goals is wanted


def test_a_release_below_its_goals_is_taken_by_default_and_stays_when_the_owner_minds_later(
    enrolled: EnrolledDevice,
) -> None:
    offer(enrolled, POOR)
    assert enrolled.sync().outcome.outcome == "activated"
    choosy(enrolled)
    assert enrolled.sync().outcome.outcome == "unchanged"
    assert enrolled.active_release() == 2


def test_going_back_to_a_release_below_its_goals_is_refused_too(enrolled: EnrolledDevice) -> None:
    offer(enrolled, POOR)
    enrolled.sync()
    enrolled.server.publish(SmallBundle(version="3.0.0", release_number=3).build())
    enrolled.server.roll_out(3, previous=2)
    assert enrolled.sync().outcome.release == 3
    choosy(enrolled)
    enrolled.server.roll_out(3, previous=2, state="rolled_back")
    assert enrolled.sync().outcome.reason == "below_goals"
    assert enrolled.active_release() == 3
