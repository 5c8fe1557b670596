"""A model as a unit: card, labels, taxonomy, runtimes, build and decisions."""
