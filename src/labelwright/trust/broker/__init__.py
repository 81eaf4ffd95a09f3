"""The key broker: it hands keys to what the verifier affirms, over the wire protocol of Confidential Containers' Trustee.

The learner's side (:class:`Client`) needs cryptography only; the server's side (:func:`create_app`) is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from labelwright.trust.broker.client import Client, Send, http_send
from labelwright.trust.broker.versions import Version

if TYPE_CHECKING:
    from labelwright.trust.broker.app import create_app
    from labelwright.trust.broker.guard import Limits
    from labelwright.trust.broker.keyfolder import KeyFolder, Versions

_HOMES = {"create_app": "app", "Limits": "guard", "KeyFolder": "keyfolder", "Versions": "keyfolder"}

__all__ = ["Client", "KeyFolder", "Limits", "Send", "Version", "Versions", "create_app", "http_send"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
