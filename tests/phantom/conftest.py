from __future__ import annotations

import pytest

from napari_dmri.phantom.travelling import TravellingSubject, simulate_subject


@pytest.fixture(scope="session")
def traveller() -> TravellingSubject:
    """One subject at two sites, small."""
    return simulate_subject(0)
