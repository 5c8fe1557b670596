"""The stages of refund_nightly, one file per task."""
