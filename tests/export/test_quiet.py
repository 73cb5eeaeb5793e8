from __future__ import annotations

import logging
import threading
import warnings

import pytest

from mas_edge.export.quiet import quiet


def test_an_exporter_is_not_heard_and_the_rest_of_the_process_is(caplog: pytest.LogCaptureFixture) -> None:
    with quiet("exporter"):
        warnings.warn("of the exporter", stacklevel=1)  # an error, were it not held back
        logging.getLogger("exporter.passes").warning("of the exporter")
        logging.getLogger("exporter").error("of the exporter")
        logging.getLogger().warning("of an exporter that logs on the root logger")
        logging.getLogger("mas_edge.orchestrator").warning("of our own")
        other = threading.Thread(target=logging.getLogger().warning, args=("of another thread",))
        other.start()
        other.join()
    assert caplog.messages == ["of our own", "of another thread"]


def test_an_exporter_is_heard_again_afterwards_also_if_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="no lowering"), quiet("exporter"):
        message = "no lowering"
        raise RuntimeError(message)
    logging.getLogger("exporter").warning("first")
    logging.getLogger().warning("second")
    with pytest.warns(UserWarning, match="third"):
        warnings.warn("third", stacklevel=1)
    assert caplog.messages == ["first", "second"]
