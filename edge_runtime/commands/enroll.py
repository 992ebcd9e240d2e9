"""``edge-runtime enroll``."""

from __future__ import annotations

import sys

import click

from edge_runtime.config import Config
from edge_runtime.options import device_options, show


@click.command(short_help="Join a server with the line its operator gave.")
@click.argument("line", metavar="LINE")
@click.option("--name", help="A name for people.")
@click.option("--cohort", help="Devices that share a model: hardware type, firmware.")
@device_options("allow_insecure_http", "ca_file")
def enroll(config: Config, as_json: bool, line: str, name: str | None, cohort: str | None) -> None:
    """Join the server that LINE names; the line comes from `sync-server enrolment create`.

    LINE is `-` to read it from standard input, so that its token does not show in the list of processes. Running it
    again with a new line keeps the device and gives it a new token.
    """
    from edge_runtime.contract.enrolment import EnrolmentLine
    from edge_runtime.device import transport_options
    from edge_runtime.enrolment import Wishes, enrol
    from edge_runtime.files import FileSystem
    from edge_runtime.home import Home
    from edge_runtime.http_transport import HttpTransport

    parsed = EnrolmentLine.parse(sys.stdin.readline() if line == "-" else line)
    wishes = Wishes(name, cohort, config.allow_insecure_http)
    home = Home(config.home)
    options = transport_options(config, insecure_http=config.allow_insecure_http)
    with HttpTransport(parsed.url, options) as transport, home.lock("enroll"):
        identity = enrol(home, parsed, transport, FileSystem(), wishes)
    text = (
        f"Enrolled at {identity.server_url} as {identity.device_id}: model {identity.model}, "
        f"channel {identity.channel}, {'cohort ' + identity.cohort if identity.cohort else 'no cohort'}.\n"
        "Next: edge-runtime sync"
    )
    show(identity.to_dict(), text, as_json=as_json)
