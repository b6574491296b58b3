"""Create the TLS context."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from ..errors import AudiocliError


def create_ssl_context(variables: Mapping[str, str]) -> ssl.SSLContext:
    """Create the TLS context with the certificates of SSL_CERT_FILE and SSL_CERT_DIR, the system, or certifi.

    The certificates in a hashed directory are loaded on demand: 0.1 ms instead of 20 ms for the whole bundle.

    Raises:
        AudiocliError: SSL_CERT_FILE or SSL_CERT_DIR cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file, directory = variables.get("SSL_CERT_FILE"), variables.get("SSL_CERT_DIR")
    try:
        if file or directory:
            context.load_verify_locations(cafile=file or None, capath=directory or None)
            return context
    except (OSError, ssl.SSLError) as error:
        raise AudiocliError(f"cannot read the certificates of SSL_CERT_FILE or SSL_CERT_DIR: {error}") from error
    system = ssl.get_default_verify_paths().capath
    if system and _has_hashed_certificates(system):
        context.load_verify_locations(capath=system)
    else:
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context


def _has_hashed_certificates(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(Path(entry.name).suffix == ".0" for entry in entries)
    except OSError:
        return False
