"""``webhook create``, ``list``, ``test``, ``enable``, ``revoke``: telling other systems what happens here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edge_runtime.errors import TransportError
from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig

ACTOR = "command line"


@click.group()
def webhook() -> None:
    """Tell other systems what happens here: signed, tried again, at least once."""


@webhook.command()
@server_options
@click.argument("url")
@click.option("--name", required=True, help="Who listens.")
@click.option("--event", "events", multiple=True, help="An event, noun.* or *; may come more than once. [default: *]")
@click.option("--allow-private", is_flag=True, help="Let it call private addresses, and those by http.")
def create(
    config: ServerConfig, as_json: bool, url: str, name: str, events: tuple[str, ...], allow_private: bool
) -> None:
    """Make a webhook and print its secret, with which the receiver checks the signature."""
    from sync_server.commands.database import open_database
    from sync_server.webhooks import service
    from sync_server.webhooks.secret import load_or_create_key, secret_of, secret_text

    key = load_or_create_key(config.webhooks_key_path)
    with open_database(config) as database, database.session() as session:
        hook = service.create(
            session, name=name, url=url, events=events or ("*",), allow_private=allow_private, actor=ACTOR
        )
        number, secret = hook.id, secret_text(secret_of(key, hook.salt))
    show({"id": number, "secret": secret}, secret, as_json=as_json)
    click.echo(f"Webhook {number} ({name}). Try it with: sync-server webhook test {number}", err=True)


@webhook.command("list")
@server_options
def list_webhooks(config: ServerConfig, as_json: bool) -> None:
    """List webhooks: how they do, what waits, what was dropped, and the latest error."""
    from sync_server.commands.database import open_database
    from sync_server.webhooks import service

    with open_database(config) as database, database.session() as session:
        rows = [service.describe(session, hook) for hook in service.live(session)]
    lines = [
        f"{row['id']:>4}  {row['state']:<8}  {row['queued']:>4} queued  {row['dropped']:>4} dropped  {row['name']}"
        f"  {row['url']}  {row['last_error'] or ''}".rstrip()
        for row in rows
    ]
    show({"webhooks": rows}, "\n".join(lines) or "There are no webhooks.", as_json=as_json)


@webhook.command()
@server_options
@click.argument("webhook_id", type=int)
def test(config: ServerConfig, as_json: bool, webhook_id: int) -> None:
    """Call a webhook now with a webhook.test, and say what it answered."""
    from sync_server.commands.database import open_database
    from sync_server.db import utc_now
    from sync_server.webhooks import delivery, service
    from sync_server.webhooks.secret import load_or_create_key

    key = load_or_create_key(config.webhooks_key_path)
    with open_database(config) as database, database.session() as session:
        trial = delivery.trial(service.find(session, webhook_id))
    outcome = delivery.call(trial, key, now=utc_now())
    if outcome.error:
        raise TransportError(f"Webhook {webhook_id} failed: {outcome.error}", advice="Check the receiver.")
    text = f"Webhook {webhook_id} answered {outcome.status}."
    show({"id": webhook_id, "status": outcome.status}, text, as_json=as_json)


@webhook.command()
@server_options
@click.argument("webhook_id", type=int)
def enable(config: ServerConfig, as_json: bool, webhook_id: int) -> None:
    """Let a webhook that was disabled for failing hear of events again."""
    from sync_server.commands.database import open_database
    from sync_server.webhooks import service

    with open_database(config) as database, database.session() as session:
        service.enable(session, webhook_id, actor=ACTOR)
    show({"enabled": webhook_id}, f"Webhook {webhook_id} is enabled.", as_json=as_json)


@webhook.command()
@server_options
@click.argument("webhook_id", type=int)
def revoke(config: ServerConfig, as_json: bool, webhook_id: int) -> None:
    """End a webhook at once, and forget what it was not told yet."""
    from sync_server.commands.database import open_database
    from sync_server.webhooks import service

    with open_database(config) as database, database.session() as session:
        service.revoke(session, webhook_id, actor=ACTOR)
    show({"revoked": webhook_id}, f"Webhook {webhook_id} is revoked.", as_json=as_json)
