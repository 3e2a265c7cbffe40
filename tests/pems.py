"""Certificates for tests of TLS, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_pems(folder: Path) -> Path:
    """Fills a folder with a CA, another CA, certificates for localhost and for another name, and one of ours."""
    for ca in ("ca", "other-ca"):
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{ca}.key")
        _openssl(folder, "req", "-x509", *key, "-out", f"{ca}.pem", "-days", "2", "-subj", f"/CN={ca}")
    for name, alt in (
        ("right", "DNS:localhost,IP:127.0.0.1"),
        ("wrong", "DNS:redis.example"),
        ("ours", "DNS:meter.example"),
    ):
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")
        _openssl(folder, "req", *key, "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text(f"subjectAltName={alt}\n")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    return folder
