"""``refund model evaluate``: what a model scores on a labelled set."""
