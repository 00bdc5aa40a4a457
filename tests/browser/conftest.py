"""Fixtures: the browser. For a module only, since Playwright keeps an event loop running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import harness


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with harness.chromium() as browser:
        yield browser
