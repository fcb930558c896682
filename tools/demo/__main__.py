"""`make demo`: plays the story on real parts; `--keep` leaves everything running."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys

from tools.control_plane import build
from tools.control_plane.embedded import exit_on_signals
from tools.demo.narrator import Narrator
from tools.demo.stage import EXAMPLES, Stage
from tools.demo.story import tell
from tools.lab.folder import throw_away_folder
from tools.lab.installation import ROOT

REPORT = ROOT / "build" / "demo" / "report.json"


def main() -> int:
    """Exit status 0 if every step was right."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    keep: bool = parser.parse_args().keep
    exit_on_signals()
    directory = throw_away_folder("chatelaine-demo-")
    narrator = Narrator()
    stage = Stage(directory)
    complete = False
    try:
        tell(stage, narrator)
        complete = True
    finally:
        ok = narrator.finish(REPORT, complete=complete)
        if not ok:
            narrator.console.print(f"logs are kept in {directory}")
        elif keep:
            _linger(stage, narrator)
        stage.stop()
        if ok:
            shutil.rmtree(directory, ignore_errors=True)
    return 0 if ok else 1


def _linger(stage: Stage, narrator: Narrator) -> None:
    operator = stage.operator
    assert operator is not None
    live = f"--state-dir {operator.state} --kubeconfig {operator.kubeconfig}"
    narrator.console.print(
        f"""
Everything keeps running; Ctrl-C ends it. Things to try in another terminal, in this folder:

  export KUBECONFIG={stage.control_plane.kubeconfig}
  export PATH={ROOT / ".venv" / "bin"}:{build.require("kubectl").parent}:$PATH
  kubectl get hsms,hsmclaims,attestationpolicies -A
  kubectl -n payments describe hsmclaim checkout
  kubectl get networkpolicies -A
  kubectl get hsm hsm-b -o yaml

  chatelaine evidence list --state-dir {operator.state}
  chatelaine verify bundle {operator.state}/evidence
  chatelaine policy capture hsm-b --base {EXAMPLES / "rules.yaml"} --output mine.yaml {live}
  chatelaine policy diff {stage.policy_file} mine.yaml
  chatelaine policy diff --live mine.yaml {live}

In docs/how-to/write-your-first-policy.md, for `kubectl exec` into the operator's pod, say:

  chatelaine_in_pod() {{ chatelaine "$@" {live}; }}
""",
        markup=False,
    )
    try:
        signal.pause()
    except SystemExit:
        narrator.console.print("stopping")


if __name__ == "__main__":
    sys.exit(main())
