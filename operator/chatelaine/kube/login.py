"""Where the API server is and who we are: in-cluster files or a kubeconfig, read by the official client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

from chatelaine.kube.errors import KubeError

CONNECTIONS: Final = 64
"""Most connections at a time: watches hold about ten, writers sixteen, the rest are reads."""


class LoginFailed(KubeError):
    """No usable credentials; the message says which file."""


async def login(kubeconfig: Path | None) -> Configuration:
    """Configuration of the official client. A kubeconfig given or in `$KUBECONFIG` wins over the in-cluster files.

    In-cluster tokens are read again every minute by the client itself; kubeconfigs are read again by the adapter
    when the server says 401.

    Raises:
        LoginFailed: neither works.
    """
    configuration = Configuration()
    path = kubeconfig or _environment_kubeconfig()
    try:
        if path is not None:
            await kube_config.load_kube_config(
                config_file=str(path), client_configuration=configuration, persist_config=False
            )
        else:
            kube_config.load_incluster_config(client_configuration=configuration)
    except (kube_config.ConfigException, OSError, yaml.YAMLError, TypeError, KeyError) as error:
        where = str(path) if path is not None else "the service account's files"
        raise LoginFailed(f"no login to the API server from {where}: {error}") from error
    configuration.client_session_kwargs = {"trust_env": False, "auto_decompress": True}
    configuration.connection_pool_maxsize = CONNECTIONS
    configuration.retries = None
    return configuration


def _environment_kubeconfig() -> Path | None:
    text = os.environ.get("KUBECONFIG", "")
    return Path(text) if text else None


async def authorization(configuration: Any) -> str | None:
    """The `Authorization` header, renewed if its file says so; None where a client certificate speaks for us."""
    header: str | None = await configuration.get_api_key_with_prefix("BearerToken")
    return header
