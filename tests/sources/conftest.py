from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest


@pytest.fixture(scope="session")
def elsewhere():
    """Another process, made without forking this one, as Ray's workers are."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool
