"""A pytest plugin for runs under mutants: what was computed before the mutant came must not hide it.

Mutants are run in children forked from a process that has run the tests once. Those children inherit what modules of
tests made while they were imported, and every cache of the product; both are forgotten here. Caches are emptied before
each test: one that is answered from what another left there would not be seen to come by, and never be asked.
`tests/support` stays: it keeps keys that take long to make, and little of the product.
"""

from __future__ import annotations

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Forget modules of tests, and empty caches."""
    for name in list(sys.modules):
        if name.startswith("tests."):
            del sys.modules[name]
    _empty_caches()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let each test compute for itself."""
    _empty_caches()


def _empty_caches() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("chatelaine."):
            for member in list(vars(module).values()):
                forget = getattr(member, "cache_clear", None)
                if callable(forget):
                    forget()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A module of tests that cannot be imported under a mutant has seen it, as a failed test has."""
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
