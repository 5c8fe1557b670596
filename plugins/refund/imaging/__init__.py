"""Bytes in, checked uint8 RGB out: decoding, quality measures, fingerprints, and the isolated pool that runs them."""
