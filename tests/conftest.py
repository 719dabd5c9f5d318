"""Fixtures for every test folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from crash.table import pytest_sessionfinish as pytest_sessionfinish
from crash.table import pytest_terminal_summary as pytest_terminal_summary
from crash.table import pytest_testnodedown as pytest_testnodedown
from support.engine import database as database
from support.engine import engine as engine
from support.kafka import KafkaBroker, KafkaMissing
from support.raymon import RaymonCorpus, RaymonMissing, raymon_corpus
from support.required import required

# How long an example takes says more of the machine than of the code.
settings.register_profile("tailrace", deadline=None)
settings.load_profile("tailrace")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One real broker for the session. Whoever kills it starts it again; topics are told apart by name."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    with required(KafkaMissing):
        broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> RaymonCorpus:
    """Log files of the real raymon client, and what is in them."""
    with required(RaymonMissing):
        return raymon_corpus(tmp_path_factory.mktemp("raymon"))
