"""The schema's history, run by `refund.store.migrate`."""
