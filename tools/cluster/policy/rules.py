"""Renders the rules for a world as one nftables table, which replaces the one before in a single step.

Each pod that a policy selects has a chain for a direction: a line for each thing that is allowed, and at the end
everything else is dropped. Connections that were allowed once go on until they end. A pod whose address the API server
does not tell yet reaches nothing and is reached by nobody but the node: until then no policy could be applied to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tools.cluster.policy.objects import Object, Pod, Policy, World, selects

TABLE = "inet chatelaine_policies"

_HOOKS = """
 chain forward {{
  type filter hook forward priority filter - 5; policy accept;
  ct state established,related accept
  ip saddr {pods} ip saddr != @known counter drop
  ip daddr {pods} ip daddr != @known counter drop
  ip saddr vmap @egress
  ip daddr vmap @ingress
 }}
 chain input {{
  type filter hook input priority filter - 5; policy accept;
  ct state established,related accept
  ip saddr {pods} ip saddr != @known counter drop
  ip saddr vmap @egress
 }}
"""


def render(world: World, pods_network: str) -> str:
    """Input for `nft -f`. `pods_network` holds the addresses of all pods, known or not."""
    chains, jumps = [], {"egress": list[str](), "ingress": list[str]()}
    for number, pod in enumerate(world.pods):
        applying = [
            policy
            for policy in world.policies
            if policy.namespace == pod.namespace and selects(policy.selector, pod.labels)
        ]
        for direction, lines in (
            ("ingress", _ingress(world, pod, applying)),
            ("egress", _egress(world, pod, applying)),
        ):
            if lines is not None:
                chain = f"{direction}_{number}"
                chains.append(_chain(chain, lines))
                jumps[direction].append(f"{pod.address} : jump {chain}")
    known = _elements(pod.address for pod in world.pods)
    parts = [
        f" set known {{\n  type ipv4_addr\n{known} }}\n",
        *chains,
        *(f" map {name} {{\n  type ipv4_addr : verdict\n{_elements(found)} }}\n" for name, found in jumps.items()),
        _HOOKS.format(pods=pods_network),
    ]
    # Made if it is missing, so that it can be removed; all of it takes place at once or not at all.
    return f"table {TABLE} {{}}\ndelete table {TABLE}\ntable {TABLE} {{\n{''.join(parts)}}}\n"


def _ingress(world: World, pod: Pod, policies: Sequence[Policy]) -> list[str] | None:
    rules = [(policy, rule) for policy in policies for rule in policy.ingress or ()]
    if all(policy.ingress is None for policy in policies):
        return None
    lines = [f"ip saddr {pod.address}"]  # a pod reaches itself, also by a Service
    for policy, rule in rules:
        peers = _peers(world, policy, rule.get("from"))
        ports = list(_ports(rule.get("ports"), pod))
        lines += [f"{peer} {port}" for peer in _sources(peers, "saddr") for port in ports]
    return lines


def _egress(world: World, pod: Pod, policies: Sequence[Policy]) -> list[str] | None:
    rules = [(policy, rule) for policy in policies for rule in policy.egress or ()]
    if all(policy.egress is None for policy in policies):
        return None
    lines = [f"ip daddr {pod.address}"]
    for policy, rule in rules:
        peers = _peers(world, policy, rule.get("to"))
        entries = rule.get("ports") or ()
        named = [port for port in entries if isinstance(port.get("port"), str)]
        plain = [port for port in entries if port not in named]
        if plain or not entries:
            ports = list(_ports(plain, None))
            lines += [f"{peer} {port}" for peer in _sources(peers, "daddr") for port in ports]
        # A name means the port of that name of each pod that is called.
        called = world.pods if peers is None else peers[0]
        lines += [f"ip daddr {peer.address} {port}" for peer in called for port in _named(named, peer)]
    return lines


def _peers(world: World, policy: Policy, entries: Sequence[Object] | None) -> tuple[list[Pod], list[Object]] | None:
    """Pods and blocks of addresses that a rule names; None: anybody."""
    if not entries:
        return None
    pods, blocks = list[Pod](), []
    for entry in entries:
        if "ipBlock" in entry:
            blocks.append(entry["ipBlock"])
        else:
            pods += [pod for pod in world.pods if _is_peer(world, policy, entry, pod)]
    return pods, blocks


def _is_peer(world: World, policy: Policy, entry: Object, pod: Pod) -> bool:
    namespaces = entry.get("namespaceSelector")
    if namespaces is None:
        if pod.namespace != policy.namespace:
            return False
    elif not selects(namespaces, world.namespaces.get(pod.namespace, {})):
        return False
    return selects(entry.get("podSelector") or {}, pod.labels)


def _sources(peers: tuple[list[Pod], list[Object]] | None, side: str) -> Iterator[str]:
    """Matches for the addresses of peers; `side` is `saddr` or `daddr`."""
    if peers is None:
        yield ""
        return
    pods, blocks = peers
    if pods:
        yield f"ip {side} {{ {', '.join(sorted({pod.address for pod in pods}))} }}"
    for block in blocks:
        if ":" in block["cidr"]:
            continue
        excepted = [one for one in block.get("except") or () if ":" not in one]
        yield f"ip {side} {block['cidr']}" + (f" ip {side} != {{ {', '.join(excepted)} }}" if excepted else "")


def _ports(entries: Sequence[Object] | None, named_by: Pod | None) -> Iterator[str]:
    """Matches for ports; a rule without any matches all."""
    if not entries:
        yield ""
        return
    for entry in entries:
        protocol, port = str(entry.get("protocol", "TCP")).lower(), entry.get("port")
        if port is None:
            yield f"meta l4proto {protocol}"
        elif not isinstance(port, str):
            yield f"{protocol} dport {port}" + (f"-{entry['endPort']}" if "endPort" in entry else "")
        elif named_by is not None:
            yield from _named([entry], named_by)


def _named(entries: Iterable[Object], pod: Pod) -> Iterator[str]:
    for entry in entries:
        protocol = str(entry.get("protocol", "TCP"))
        if (number := pod.ports.get((entry["port"], protocol))) is not None:
            yield f"{protocol.lower()} dport {number}"


def _chain(name: str, allowed: Iterable[str]) -> str:
    lines = "".join(f"  {' '.join(line.split())} return\n" for line in dict.fromkeys(allowed))
    return f" chain {name} {{\n{lines}  counter drop\n }}\n"


def _elements(items: Iterable[str]) -> str:
    found = sorted(set(items))
    return f"  elements = {{ {', '.join(found)} }}\n" if found else ""
