"""``token create``, ``token list``, ``token revoke``: bearer tokens of people and programs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from sync_server.options import server_options, show

if TYPE_CHECKING:
    from sync_server.config import ServerConfig

ACTOR = "command line"
_KINDS = {"publisher": "pub", "operator": "ops", "viewer": "view"}


@click.group()
def token() -> None:
    """Make and revoke tokens of people and programs."""


@token.command()
@server_options
@click.option("--kind", type=click.Choice(list(_KINDS)), required=True, help="What its bearer may do.")
@click.option("--name", required=True, help="Who or what uses it.")
@click.option("--expires-days", type=click.IntRange(1, 3650), help="Days until it ends; without it, it does not.")
def create(config: ServerConfig, as_json: bool, kind: str, name: str, expires_days: int | None) -> None:
    """Print a new token. It is stored as SHA-256 and cannot be shown again."""
    from sync_server.access.audit import audit
    from sync_server.access.tokens import issue_token
    from sync_server.commands.database import open_database
    from sync_server.db import utc_now

    expires_at = None if expires_days is None else utc_now() + timedelta(days=expires_days)
    with open_database(config) as database, database.session() as session:
        issued = issue_token(session, _KINDS[kind], name=name, expires_at=expires_at)
        audit(session, ACTOR, "token.create", f"token:{issued.id}", {"kind": kind, "name": name})
    show({"id": issued.id, "kind": kind, "token": issued.token}, issued.token, as_json=as_json)
    click.echo(f"Token {issued.id} ({kind}, {name}). Revoke it with: sync-server token revoke {issued.id}", err=True)


@token.command("list")
@server_options
def list_tokens(config: ServerConfig, as_json: bool) -> None:
    """List publisher, operator and viewer tokens; their secrets are stored nowhere."""
    from sqlalchemy import select

    from sync_server.access.models import AccessToken
    from sync_server.commands.database import open_database

    statement = select(AccessToken).where(AccessToken.kind.in_(_KINDS.values())).order_by(AccessToken.id)
    with open_database(config) as database, database.session() as session:
        rows = [
            {
                "id": row.id,
                "kind": row.kind,
                "name": row.name,
                "expires_at": row.expires_at,
                "revoked_at": row.revoked_at,
            }
            for row in session.scalars(statement)
        ]
    lines = [
        f"{row['id']:>6}  {row['kind']:<4}  {'revoked' if row['revoked_at'] else 'live':<7}  {row['name']}"
        for row in rows
    ]
    show({"tokens": rows}, "\n".join(lines) or "There are no tokens.", as_json=as_json)


@token.command()
@server_options
@click.argument("token_id", type=int)
def revoke(config: ServerConfig, as_json: bool, token_id: int) -> None:
    """Revoke the token with this number at once, a device's or an enrolment's as well."""
    from sync_server.access.audit import audit
    from sync_server.access.tokens import revoke_token
    from sync_server.commands.database import open_database

    with open_database(config) as database, database.session() as session:
        row = revoke_token(session, token_id)
        audit(session, ACTOR, "token.revoke", f"token:{token_id}", {"kind": row.kind, "name": row.name})
        name = row.name
    show({"revoked": token_id, "name": name}, f"Token {token_id} ({name}) is revoked.", as_json=as_json)
