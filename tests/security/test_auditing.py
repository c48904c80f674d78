"""What the output of pip-audit means: nothing that was not audited counts as good."""

from __future__ import annotations

import json

import pytest

from auditing import FINE, FOUND, NOT_RUN, judge

GOOD = {"name": "attrs", "version": "26.1.0", "vulns": []}
BAD = {
    "name": "aiohttp",
    "version": "3.10.5",
    "vulns": [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["3.14.4"]}],
}
UNKNOWN = {"name": "six", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def reported(*dependencies):
    return json.dumps({"dependencies": dependencies, "fixes": []})


@pytest.mark.parametrize("others", [(), (GOOD,), (UNKNOWN,)])
def test_an_advisory_is_told_with_its_remedy(others):
    verdict = judge(reported(*others, BAD), "")

    assert verdict.code == FOUND
    assert verdict.said == "aiohttp 3.10.5: PYSEC-2026-1 (CVE-2026-1), fixed in 3.14.4"


def test_packages_without_advisories_are_fine():
    assert judge(reported(GOOD, GOOD), "").code == FINE


@pytest.mark.parametrize(
    "last",
    [
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org', port=443)",
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org', port=443)",
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed",
    ],
)
def test_a_service_that_is_out_of_reach_audits_nothing(last):
    verdict = judge("", f"Traceback (most recent call last):\n{last}\n")

    assert verdict.code == NOT_RUN
    assert verdict.said.startswith("not run: ")


def test_a_mirror_that_knows_no_package_audits_nothing():
    assert judge(reported(UNKNOWN, UNKNOWN), "").code == NOT_RUN


@pytest.mark.parametrize(
    ("out", "err"),
    [
        (reported(GOOD, UNKNOWN), ""),
        (reported(), ""),
        ("", "ERROR:pip_audit._cli:invalid requirements input: lowest.txt"),
        ("", ""),
        ("[]", "requests.py is missing"),
    ],
    ids=["one left out", "none", "no pins", "silent", "another output"],
)
def test_what_was_not_wholly_audited_is_not_fine(out, err):
    assert judge(out, err).code == FOUND
