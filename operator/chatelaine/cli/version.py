"""`chatelaine version`: of this command, and of what runs in the cluster as far as it can be seen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from chatelaine import __version__
from chatelaine.cli.explain import SYSTEM, Json, Kubeconfig, System
from chatelaine.cli.usage import UsageGroup

app = typer.Typer(cls=UsageGroup, add_completion=False, help="Say which version this is, and which run in the cluster.")

SECONDS = 5.0
"""Nobody waits longer for a version."""


@app.callback(invoke_without_command=True)
def version(
    client: Annotated[bool, typer.Option("--client", help="Ask no cluster.")] = False,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM,
    json: Json = False,
) -> None:
    """Say which version this is; of the cluster what can be seen within five seconds."""
    found = {"chatelaine": __version__}
    if not client:
        found |= asyncio.run(_cluster(kubeconfig, system))
    if json:
        from chatelaine.cli.explain_report import print_json

        print_json(found)
        return
    width = max(map(len, found))
    for name, text in found.items():
        typer.echo(f"{name.ljust(width)}  {text}")


async def _cluster(kubeconfig: Path | None, system: str) -> dict[str, str]:
    """Of the API server, and of the operator's image; why it is not known, where it is not."""
    from chatelaine.cli.explain_access import PersonAdapter
    from chatelaine.cli.explain_reading import bodies
    from chatelaine.kube.errors import KubeError
    from chatelaine.kube.port import PODS, Selection

    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(SECONDS), await PersonAdapter.of(kubeconfig) as kube:
            found["kubernetes"] = await kube.version()
            selector = "app.kubernetes.io/name=chatelaine,app.kubernetes.io/component=operator"
            images = {
                str(container.get("image", ""))
                async for body in bodies(kube, Selection(PODS, system, selector))
                for container in (body.get("spec") or {}).get("containers") or ()
            }
            found["operator"] = ", ".join(sorted(images)) or f"no pod of it in namespace {system}"
    except (KubeError, TimeoutError) as error:
        missing = "operator" if "kubernetes" in found else "kubernetes"
        found[missing] = f"not known: {error or f'no answer within {SECONDS:.0f} s'}"
    return found


if __name__ == "__main__":
    app()
