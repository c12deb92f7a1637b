"""The errors of bad data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hfssl.errors import DataError


def refusal(function: Callable, *args: Any, **kwargs: Any) -> str:
    """The one line with which a call must be refused."""
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("expected ")
    return message
