"""The formats that device, exporter, server, browser and load generator must agree on, as pure functions.

No file, socket, clock or database is touched here, and numpy is not needed. ``FORMAT.md`` says the same in prose,
and the golden files under ``tests/golden`` pin the bytes. The rooms, from the ground up::

    checks      strict readers for JSON values
    names  window  histogram        naming, windows and bins
    manifest  golden  archive  signature  bundle      the signed file
    release  rollout  enrolment     who runs what, and first trust
    result  batch                   records, and how they travel
    problem  routes                 HTTP
"""
