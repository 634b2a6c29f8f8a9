"""``expunge certify`` and ``expunge verify``: sign what an audit found, and check it again."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import result
from expunge.cli.errors import running
from expunge.cli.options import Json
from expunge.settings import check_filled


def certify(
    audit: Annotated[str, typer.Argument(help="The folder of an audit, or its audit.json.")],
    key: Annotated[
        str, typer.Option("--key", help="Ed25519 private key, PEM; made if there is no such file, for you alone.")
    ] = "expunge-key.pem",
    days: Annotated[int, typer.Option("--days", help="How long the certificate is valid.")] = 365,
    out: Annotated[
        str | None,
        typer.Option("--out", help="File of the certificate.  [default: certificate.json beside the record]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign an audit: scope, verdict, thresholds, and the hashes of record, evidence, models and rows.

    Needs `pip install 'expunge[audit]'`. Says what was measured, never that data is erased.
    """
    check_filled({"audit": audit, "key": key, "out": out}, "the command line")
    with running(as_json=as_json, quiet=False):
        from expunge.audit import certificate

        file, content, made = certificate.certify(audit, key, days=days, out=out)
    statement = content["statement"]
    if as_json:
        result.print_json({"file": str(file), "key_made": made, **content})
        return
    if made:
        typer.echo(f"  made the key {key}; keep it, and give its public part to whoever is to verify")
    typer.echo(f"{file}: verdict {statement['verdict']}, valid until {statement['valid_until'][:10]}")
    typer.echo(f"  key {statement['key']}")


def verify(
    file: Annotated[str, typer.Argument(help="A certificate, or the folder of an audit that has one.")],
    key: Annotated[
        str | None, typer.Option("--key", help="The signer's key, PEM: it must be signed with this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a certificate: the signature, its validity, and every hash that can be reached; exit code 1 where one fails."""
    check_filled({"file": file, "key": key}, "the command line")
    with running(as_json=as_json, quiet=False):
        from expunge.audit import certificate

        found = certificate.verify(file, key_file=key)
    statement = found.statement
    if as_json:
        lines = [vars(line) for line in found.lines]
        result.print_json({"valid": found.good, "problems": found.problems, "checked": lines, "statement": statement})
    else:
        colours = {"same": typer.colors.GREEN, "changed": typer.colors.RED, "not reached": typer.colors.YELLOW}
        for line in found.lines:
            typer.secho(f"  {line.status:<12}", fg=colours[line.status], nl=False)
            typer.echo(line.what)
        said = f"verdict {statement.get('verdict')}, valid until {str(statement.get('valid_until'))[:10]}"
        typer.echo(f"{said}; signed with the key {statement.get('key')}")
        if key is None:
            typer.echo("  compare the key's fingerprint with the signer's, or give the key with --key")
    if not found.good:
        typer.secho(f"expunge: not valid: {'; '.join(found.problems)}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1)
    if not as_json:
        typer.secho("valid", fg=typer.colors.GREEN, bold=True)
