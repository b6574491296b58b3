"""Whom to trust."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from ..errors import AudiocliError


def trusted_context(variables: Mapping[str, str]) -> ssl.SSLContext:
    """Make the one TLS context of the process from SSL_CERT_FILE, SSL_CERT_DIR, the system's folder, or certifi.

    A folder of hashed certificates is read one by one as they are needed: 0.1 ms instead of 20 for the whole bundle.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, folder = variables.get("SSL_CERT_FILE"), variables.get("SSL_CERT_DIR")
    try:
        if file or folder:
            context.load_verify_locations(cafile=file or None, capath=folder or None)
            return context
    except (OSError, ssl.SSLError) as error:
        raise AudiocliError(
            f"the certificates named in SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}"
        ) from error
    system = ssl.get_default_verify_paths().capath
    if system and _has_hashed_certificates(system):
        context.load_verify_locations(capath=system)
    else:
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context


def _has_hashed_certificates(folder: str) -> bool:
    try:
        with os.scandir(folder) as listing:
            return any(Path(entry.name).suffix == ".0" for entry in listing)
    except OSError:
        return False
