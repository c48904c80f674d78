"""Recognizes the addresses of this machine, the only ones that `http://` may lead to by default."""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: localhost, 127.0.0.0/8 or ::1.

    Args:
        host: A name or an address, without brackets and port.
    """
    if f".{host.removesuffix('.')}".endswith(".localhost"):
        return True  # RFC 6761 reserves the name and all names below it.
    try:
        # The system also accepts short forms, such as 127.1.
        ip = ipaddress.ip_address(host if ":" in host else socket.inet_aton(host))
    except (OSError, ValueError):
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
