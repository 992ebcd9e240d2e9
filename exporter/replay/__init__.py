"""What would this release have flagged? A candidate beside the release in use, on telemetry that there is already.

Both sides score with the code that devices run; windows are cut by each bundle's own rule, incidents grouped by the
contract's. ``sides`` opens releases, ``telemetry`` replays recorded readings, ``stored`` the windows that a server
kept, ``outcome`` holds the figures.
"""
