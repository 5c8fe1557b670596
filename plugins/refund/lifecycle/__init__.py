"""From weights to champion: build, import, evaluate, promote, and measure over time."""
