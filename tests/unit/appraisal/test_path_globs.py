"""Globs over paths: what they match, against a slow and plain matcher, and what a hostile path may cost."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatelaine.appraisal.path_globs import PathGlob


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("/var/log/**", "/var/log/syslog", True),
        ("/var/log/**", "/var/log/nginx/access.log", True),
        ("/var/log/**", "/var/log", False),
        ("/var/log/**", "/var/logs/evil", False),
        ("/var/log/**", "/srv/var/log/evil", False),
        ("/var/log/*", "/var/log/syslog", True),
        ("/var/log/*", "/var/log/nginx/access.log", False),
        ("/var/log/*.log", "/var/log/.log", True),
        ("/var/log/*.log", "/var/log/a.log.so", False),
        ("/home/*/.cache/**", "/home/ada/.cache/x/y", True),
        ("/home/*/.cache/**", "/home/ada/evil/.cache/x", False),
        ("/a/**/z", "/a/z", True),
        ("/a/**/z", "/a/b/c/z", True),
        ("/a/**/z", "/a/b/c/z/y", False),
        ("/a/**/m/**/z", "/a/m/z", True),
        ("/a/**/m/**/z", "/a/x/m/m/y/z", True),
        ("/a/**/m/**/z", "/a/z", False),
        ("/a/**/m/**/m/**/z", "/a/m/z", False),
        ("/a/**/m/**/m/**/z", "/a/m/x/m/z", True),
        ("/tmp/?", "/tmp/a", True),
        ("/tmp/?", "/tmp/", False),
        ("/tmp/?", "/tmp//", False),
        ("/tmp/a?c*f", "/tmp/abcdef", True),
        ("/tmp/a*b*c", "/tmp/aXbYbc", True),
        ("/tmp/a*b*c", "/tmp/aXc", False),
        ("/tmp/a*b*b*c", "/tmp/aXbXc", False),
        ("/tmp/a*b*b*c", "/tmp/aXbbXc", True),
        ("/tmp/a*bc*c", "/tmp/abc", False),
        ("/tmp/ab*ba", "/tmp/aba", False),
        ("/tmp/a?b", "/tmp/a\nb", True),
        ("/tmp/[ab]", "/tmp/a", False),
        ("/tmp/[ab]", "/tmp/[ab]", True),
        ("/tmp/\\*", "/tmp/\\x", True),
        ("/tmp/a.c", "/tmp/abc", False),
        ("/tmp/*", "/tmp/with\nnewline", True),
        ("/tmp/x**y", "/tmp/x/y", False),
        ("**", "/anything/at/all", True),
        ("/usr/bin/ls", "/usr/bin/ls", True),
        ("/usr/bin/ls", "/usr/bin/ls ", False),
        ("/usr/bin/ls", "/USR/bin/ls", False),
    ],
)
def test_globs_stay_within_their_folders(glob, path, expected):
    assert PathGlob(glob).matches(path) is expected


@cache
def plain_match(glob: str, path: str) -> bool:
    """The same language, one character at a time, with all the going back that it takes."""

    def part(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return part(pattern[1:], text) or (bool(text) and part(pattern, text[1:]))
        return bool(text) and pattern[0] in ("?", text[0]) and part(pattern[1:], text[1:])

    def whole(globs: list[str], parts: list[str]) -> bool:
        if not globs:
            return not parts
        if globs[0] == "**":
            least = 1 if len(globs) == 1 else 0
            return any(whole(globs[1:], parts[n:]) for n in range(least, len(parts) + 1))
        return bool(parts) and part(globs[0], parts[0]) and whole(globs[1:], parts[1:])

    return whole(glob.split("/"), path.split("/"))


@given(st.lists(st.sampled_from(["**", "*", "a*", "?b", "*a*b", "ab", ""]), min_size=1, max_size=6),
       st.lists(st.text("ab", max_size=3), min_size=1, max_size=6))  # fmt: skip
def test_quick_matcher_agrees_with_the_plain_one(globs, parts):
    glob, path = "/".join(globs), "/".join(parts)
    assert PathGlob(glob).matches(path) is plain_match(glob, path)


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("/" + "*a" * 500, "/" + "a" * 4000 + "b"),
        ("/" + "*?a" * 300 + "*b", "/" + "a" * 4000),
        ("/" + "**/a/" * 200 + "b", "/" + "a/" * 2000),
    ],
)
def test_hostile_path_does_not_make_a_glob_go_back_for_ever(glob, path):
    """Without going back this takes a moment; with it, longer than the universe has lasted."""
    assert PathGlob(glob).matches(path) is False
